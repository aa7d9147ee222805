"""What a run does between batches: checkpoints, logs, stopping early."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, EarlyStopping
from torch import Tensor

from harness.report import n_parameters
from prefix_tuning.files import write_json
from seq2seq import run_folder


class OurModelCheckPoint(Checkpoint):
    """Keeps the best validation, every epoch if asked for, and where to resume.

    Args:
        folder: of the run.
        metric: of the validation, the larger the better unless it is "loss". One that is equal or
            undefined at every validation chooses nothing: the loss does.
        save_steps: optimiser steps between two checkpoints to resume from.
        all_epochs: keep ``checkpointepoch=N.ckpt`` of every epoch, as the original.
    """

    def __init__(self, folder: Path, metric: str, save_steps: int, all_epochs: bool) -> None:
        self.folder = folder
        self.metric = metric
        self.save_steps = save_steps
        self.all_epochs = all_epochs
        self.best: float | None = None
        """The metric of the best validation, the larger the better."""
        self.least_loss, self.always_equal = -math.inf, False
        self.saved_at = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best if self.metric != "loss" or self.best is None else -self.best,
            "least_loss": self.least_loss,
            "always_equal": self.always_equal,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        best = state_dict["best"]
        self.best = best if self.metric != "loss" or best is None else -best
        self.least_loss = state_dict.get("least_loss", -math.inf)
        self.always_equal = state_dict.get("always_equal", False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        # Not again at this step: a batch that is accumulated for the next one would be lost.
        self.saved_at = trainer.global_step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        value, loss = (self._merit(trainer, name) for name in (self.metric, "loss"))
        if self.best is None:
            better, self.always_equal = True, True
        else:
            self.always_equal = self.always_equal and value == self.best
            better = value > self.best or (self.always_equal and loss > self.least_loss)
        if better:
            self.best, self.least_loss = value, loss
            self._save(trainer, pl_module, self.folder / run_folder.BEST)
        if self.all_epochs:
            name = run_folder.EPOCHS.replace("*", str(trainer.current_epoch))
            self._save(trainer, pl_module, self.folder / name)

    def _merit(self, trainer: pl.Trainer, name: str) -> float:
        """The larger the better; what is not a finite number is worse than all that are."""
        value = trainer.callback_metrics[f"val_{name}"].item()
        return (-value if name == "loss" else value) if math.isfinite(value) else -math.inf

    def _save(self, trainer: pl.Trainer, pl_module: Any, folder: Path) -> None:
        if trainer.is_global_zero:
            pl_module.save(folder)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        # At the end of an epoch, or of --max_steps, the checkpoint follows its validation.
        is_end = trainer.is_last_batch or trainer.should_stop
        if step % self.save_steps == 0 and step > self.saved_at and not is_end:
            self._save_to_resume(trainer, pl_module, (trainer.current_epoch, batch_idx + 1))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._save_to_resume(trainer, pl_module, (trainer.current_epoch + 1, 0))

    def _save_to_resume(
        self, trainer: pl.Trainer, pl_module: Any, position: tuple[int, int]
    ) -> None:
        self.saved_at = trainer.global_step
        pl_module.position = position
        path = self.folder / run_folder.RESUME
        temporary = path.with_name(path.name + ".tmp")
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            os.replace(temporary, path)


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

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        groups = trainer.optimizers[0].param_groups
        rates = {f"lr_group_{i}": group["lr"] for i, group in enumerate(groups)}
        for logger in trainer.loggers:
            logger.log_metrics(rates, step=trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            write_json(self.folder / "metrics.json", pl_module.metrics)


def get_checkpoint_callback(
    folder: Path, metric: str, save_steps: int = 1000, all_epochs: bool = False
) -> OurModelCheckPoint:
    """Keeps the best of ``val_<metric>`` and where to resume."""
    return OurModelCheckPoint(folder, metric, save_steps, all_epochs)


def get_early_stopping_callback(metric: str, patience: int) -> EarlyStopping:
    """Stops after ``patience`` validations in a row without a better ``val_<metric>``."""
    mode = "min" if metric == "loss" else "max"
    return _StoppedStays(f"val_{metric}", mode=mode, patience=max(patience, 1))


class _StoppedStays(EarlyStopping):
    """A run killed after the decision to stop but before its end does not train on."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True
