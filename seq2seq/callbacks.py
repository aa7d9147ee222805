"""What a run does between batches: checkpoints, logs, stopping early."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from harness.report import n_parameters
from harness.stop import stopping
from prefix_tuning.files import write_json
from seq2seq import run_folder


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints where they are to stand.

    Lightning's own go through the system's temporary folder, which may be small, and which keeps
    what a kill leaves.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        torch.save(checkpoint, path)


class BestValidation:
    """Which validation was the best.

    Args:
        metric: that decides, the larger the better unless it is "loss". One that is equal or
            undefined at every validation decides nothing: the loss does.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.merit: float | None = None
        """The larger the better; None before the first validation."""
        self.loss_merit, self.always_equal = -math.inf, True

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        merit = self.merit
        return {
            "best": -merit if self.metric == "loss" and merit is not None else merit,
            "least_loss": self.loss_merit,
            "always_equal": self.always_equal,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """What :meth:`state` gave; older checkpoints have the metric alone."""
        best = state["best"]
        self.merit = -best if self.metric == "loss" and best is not None else best
        self.loss_merit = state.get("least_loss", -math.inf)
        self.always_equal = state.get("always_equal", False)

    def improves(self, metrics: Mapping[str, Tensor]) -> bool:
        """Whether a validation is better than all before; it counts from now on."""
        merit, loss = (self._merit(metrics, name) for name in (self.metric, "loss"))
        if self.merit is None:
            better = True
        else:
            self.always_equal = self.always_equal and merit == self.merit
            better = merit > self.merit or (self.always_equal and loss > self.loss_merit)
        if better:
            self.merit, self.loss_merit = merit, loss
        return better

    @staticmethod
    def _merit(metrics: Mapping[str, Tensor], name: str) -> float:
        """The larger the better; what is not a finite number is worse than all that are."""
        value = metrics[f"val_{name}"].item()
        return (-value if name == "loss" else value) if math.isfinite(value) else -math.inf


class OurModelCheckPoint(Checkpoint):
    """Keeps the best validation, every epoch if asked for, and where to resume.

    Args:
        folder: of the run.
        metric: of the validation (:class:`BestValidation`).
        save_steps: optimiser steps between two checkpoints to resume from.
        all_epochs: keep ``checkpointepoch=N.ckpt`` of every epoch, as the original.
    """

    def __init__(self, folder: Path, metric: str, save_steps: int, all_epochs: bool) -> None:
        self.folder = folder
        self.save_steps = save_steps
        self.all_epochs = all_epochs
        self.best = BestValidation(metric)
        self.saved_at = 0
        self.identity = ""
        """Of the run, for the checkpoint's manifest."""

    def state_dict(self) -> dict[str, Any]:
        return self.best.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best.restore(state_dict)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        # Not again at this step: a batch that is accumulated for the next one would be lost.
        self.saved_at = trainer.global_step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.best.improves(trainer.callback_metrics):
            self._save(trainer, pl_module, self.folder / run_folder.BEST)
        if self.all_epochs:
            name = run_folder.EPOCHS.replace("*", str(trainer.current_epoch))
            self._save(trainer, pl_module, self.folder / name)

    def _save(self, trainer: pl.Trainer, pl_module: Any, folder: Path) -> None:
        if trainer.is_global_zero:
            run_folder.whole(folder, pl_module.save)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        # At the end of an epoch, or of --max_steps, the checkpoint follows its validation.
        is_end = trainer.is_last_batch or trainer.should_stop
        is_new = step > self.saved_at and not is_end
        at_boundary = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        asked = pl_module.together.signal
        if is_new and (step % self.save_steps == 0 or (asked and at_boundary)):
            self._save_to_resume(trainer, pl_module, (trainer.current_epoch, batch_idx + 1))
        if asked and (self.saved_at == step or is_end):
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._save_to_resume(trainer, pl_module, (trainer.current_epoch + 1, 0))

    def _save_to_resume(
        self, trainer: pl.Trainer, pl_module: Any, position: tuple[int, int]
    ) -> None:
        pl_module.check_finite()
        self.saved_at = trainer.global_step
        pl_module.position = position
        temporary = run_folder.next_checkpoint(self.folder)
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            run_folder.keep(temporary, self.identity, trainer.global_step)


class StopWhenAsked(Callback):
    """SIGTERM and Ctrl-C end a run behind a step and its checkpoint, a second one at once."""

    def __init__(self) -> None:
        self.exits = contextlib.ExitStack()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        # Not earlier: Lightning's own handlers, which are there by now, know no checkpoint.
        pl_module.together.stop = self.exits.enter_context(stopping())

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        # A validation is long. Of several processes each sees its own signals alone, until the
        # next step.
        if trainer.world_size == 1:
            pl_module.together.stop.end()

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.exits.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.exits.close()


class LoggingCallback(Callback):
    """Collects the history of both losses, for ``log_history.json`` and its picture.

    Args:
        every: optimiser steps over which the training loss is averaged.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.history: list[dict[str, float]] = []
        self.losses: list[Tensor] = []
        self.logged_at = 0

    def state_dict(self) -> dict[str, Any]:
        losses = [loss.item() for loss in self.losses]
        return {"history": list(self.history), "losses": losses, "logged_at": self.logged_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = state_dict["history"]
        self.losses = [torch.tensor(loss) for loss in state_dict["losses"]]
        self.logged_at = state_dict["logged_at"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(outputs["mean"])
        step = trainer.global_step
        if step % self.every == 0 and step > self.logged_at:
            losses = torch.stack([loss.to(pl_module.device) for loss in self.losses])
            mean = trainer.strategy.reduce(losses.mean(), reduce_op="mean")
            self.history.append({"step": step, "loss": mean.item()})
            self.losses, self.logged_at = [], step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        loss = trainer.callback_metrics["val_loss"].item()
        self.history.append({"step": trainer.global_step, "eval_loss": loss})


class StopAtMaxSteps(Callback):
    """Ends the epoch when the steps are done, so that a validation follows.

    Lightning's own ``max_steps`` does not, and makes a run that was stopped at an epoch's end skip
    the order of the next epoch.

    Args:
        max_steps: of the optimiser; -1 for no limit.
    """

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.global_step == self.max_steps:  # killed after its last checkpoint
            trainer.should_stop = True

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.max_steps:
            trainer.should_stop = True


class Seq2SeqLoggingCallback(Callback):
    """Learning rates, sizes, and ``metrics.json`` after every validation.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        n_params, n_trained = n_parameters(pl_module), n_parameters(pl_module, trainable_only=True)
        sizes = {"n_params": n_params, "mp": n_params / 1e6, "grad_mp": n_trained / 1e6}
        for logger in trainer.loggers:
            logger.log_metrics(sizes, step=trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        groups = trainer.optimizers[0].param_groups
        rates = {f"lr_group_{i}": group["lr"] for i, group in enumerate(groups)}
        for logger in trainer.loggers:
            logger.log_metrics(rates, step=trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            write_json(self.folder / "metrics.json", pl_module.metrics)


class StopEarly(Callback):
    """Stops after ``patience`` validations in a row that were not better than all before.

    Args:
        metric: of the validation (:class:`BestValidation`).
        patience: validations to wait for a better one.
    """

    def __init__(self, metric: str, patience: int) -> None:
        self.patience = patience
        self.best = BestValidation(metric)
        self.wait_count = 0

    def state_dict(self) -> dict[str, Any]:
        return {**self.best.state(), "wait_count": self.wait_count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best.restore(state_dict)
        self.wait_count = state_dict["wait_count"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        # A run killed after the decision to stop but before its end does not train on.
        self._stop_if_waited(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        better = self.best.improves(trainer.callback_metrics)
        self.wait_count = 0 if better else self.wait_count + 1
        self._stop_if_waited(trainer)

    def _stop_if_waited(self, trainer: pl.Trainer) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True
