"""Trainer's loop with nothing lost: whole checkpoints, an end that was asked for, divergence."""

from __future__ import annotations

import errno
import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import TrainOutput

from harness import manifest
from harness.folder import RunFolder, trainer_checkpoints
from harness.sharing import SharingTrainer
from harness.stop import Diverged, Stop, stopping
from harness.trainer_progress import show
from prefix_tuning.errors import UserError, lacks_memory, refused_write
from prefix_tuning.files import read_json_object, write_json

UNFINISHED = "unfinished"
"""Folder in a run in which a checkpoint is written, until it is complete."""
UNLOGGED = "unlogged_loss.json"
"""In a checkpoint: the loss that was added up since the last log, and since which step."""


class SafeTrainer(SharingTrainer):
    """Trainer whose checkpoints are complete or not there, and which stops when it diverges.

    A checkpoint is written in :data:`UNFINISHED` and gets its name when it is complete, on the
    disk, and its manifest with it. Only then older ones are removed, so many stay as
    ``save_total_limit`` says.
    """

    graphable = False
    """Whether the loss is computed without looking at what a tensor holds (graphs.py)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.identity = ""
        self.stop = Stop()
        self.has_begun = False
        self._is_saving = False
        self.last_loss = torch.zeros(())
        show(self, self.loss_text, lambda: float(self.last_loss))
        self.add_callback(_LogWithEveryCheckpoint())
        self.add_callback(_Stopping(self))

    @property
    def _run(self) -> Path:
        assert self.args.output_dir is not None
        return Path(self.args.output_dir)

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        # Trainer's own would also leave the last rows out of evaluations and predictions.
        given = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = given and kwargs.get("is_training", False)
        try:
            return super()._get_dataloader(*args, **kwargs)
        finally:
            self.args.dataloader_drop_last = given

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One step.

        Raises:
            Diverged: its loss is not a number, or infinite. On a GPU :meth:`log` says so, since to
                look at every loss would be to wait for every step.
        """
        loss = self.forward_backward(*args, **kwargs)
        on_cpu = loss.device.type == "cpu"
        if on_cpu and not self._skips_steps and not torch.isfinite(loss).all():
            raise self._diverged(f"the training loss of step {self.state.global_step + 1}")
        self.last_loss = loss.detach() * self.current_gradient_accumulation_steps / self.own_share
        return loss

    def loss_text(self) -> str:
        """The loss of the last step, to be shown."""
        return f"{float(self.last_loss):.3f}"

    def forward_backward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Loss and gradients of a batch: what a recorded step (graphs.py) stands in for."""
        return super().training_step(*args, **kwargs)

    @property
    def _skips_steps(self) -> bool:
        """Whether a gradient scaler skips steps until their loss is a number again."""
        return getattr(self.accelerator, "scaler", None) is not None

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, as it does before every checkpoint.

        Raises:
            Diverged: the training loss is not a number, or infinite.
        """
        if not self._skips_steps and not math.isfinite(logs.get("loss", 0.0)):
            raise self._diverged(f"the training loss up to step {self.state.global_step}")
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate.

        Raises:
            Diverged: the loss is not a number, or infinite.
        """
        metrics = super().evaluate(*args, **kwargs)
        for name, value in metrics.items():
            if name.endswith("_loss") and not math.isfinite(value):
                raise self._diverged(f"{name} at step {self.state.global_step}")
        return metrics

    def check_finite(self) -> None:
        """Refuse to keep or publish what is no numbers.

        Raises:
            Diverged: a trained parameter is not finite.
        """
        assert self.model is not None
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                raise self._diverged(f"{name} at step {self.state.global_step}")

    def _diverged(self, what: str) -> Diverged:
        kept = trainer_checkpoints(self._run)
        return Diverged.because(what, kept[0] if kept else None)

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, UNFINISHED) if self._is_saving else folder

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.check_finite()
        folder = self._run / UNFINISHED / f"checkpoint-{self.state.global_step}"
        if self.is_world_process_zero():
            shutil.rmtree(folder.parent, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        self._is_saving = True
        try:
            super()._save_checkpoint(model, trial)
        except Exception as error:
            reason = refused_write(error)
            if reason is None or isinstance(error, OSError):
                raise
            raise OSError(errno.ENOSPC, reason, str(folder)) from error
        finally:
            self.args.save_total_limit, self._is_saving = limit, False
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            self._complete(folder)

    def _complete(self, folder: Path) -> None:
        best = self.state.best_global_step
        if best:  # Trainer's own best, whose folder it has looked for beside this one
            at = folder if best == self.state.global_step else self._run / f"checkpoint-{best}"
            found = str(self._run / at.name) if at.is_dir() else None
            self.state.best_model_checkpoint = found
            self.state.save_to_json(str(folder / "trainer_state.json"))
        since = self._globalstep_last_logged
        if since < self.state.global_step:
            write_json(folder / UNLOGGED, {"loss": self._tr_loss.item(), "since": since})
        manifest.seal(folder, self.identity, self.state.global_step)
        target = self._run / folder.name
        if target.is_dir() and manifest.fault(target, self.identity):
            manifest.set_aside(target)
        if not target.is_dir():  # else it is of the same step already
            os.replace(folder, target)
        shutil.rmtree(folder.parent, ignore_errors=True)
        self._rotate(target)

    def _rotate(self, newest: Path) -> None:
        limit, best = self.args.save_total_limit, str(self.state.best_model_checkpoint)
        if not limit or limit < 0:
            return
        others = [p for p in trainer_checkpoints(self._run) if p != newest]
        others.sort(key=lambda p: -p.stat().st_mtime_ns)
        if best in map(str, others):
            others.sort(key=lambda p: str(p) != best)
        for old in others[max(limit - 1, int(best in map(str, others))) :]:
            shutil.rmtree(old, ignore_errors=True)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        try:
            super()._load_rng_state(checkpoint)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise _unusable(checkpoint, error) from error

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:  # killed after its last checkpoint
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)


class _LogWithEveryCheckpoint(TrainerCallback):
    """A resumed run logs the same losses as an uninterrupted one only if none is half collected."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        control.should_log = control.should_log or control.should_save
        return control

    on_epoch_end = on_step_end


class _Stopping(TrainerCallback):
    """Ends training behind the step in which that was asked for, with a checkpoint.

    A checkpoint at the end of an epoch, of whatever cause, waits for the evaluation of the epoch,
    which a run that goes on from it would not make up for.
    """

    def __init__(self, trainer: SafeTrainer) -> None:
        self.trainer = trainer
        self.is_waiting = False

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        self.trainer.has_begun = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._is_asked():
            control.should_save = control.should_training_stop = True
        assert state.epoch is not None
        if control.should_save and float(state.epoch).is_integer():
            control.should_save, self.is_waiting = False, True

    def on_epoch_end(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        if self.is_waiting:
            control.should_save, self.is_waiting = True, False
        elif self.trainer.stop.signal is not None and control.should_training_stop:
            # The epoch is not over: no evaluation, which a run without a stop would not have.
            control.should_evaluate = control.should_save = control.should_log = False

    def _is_asked(self) -> bool:
        """Whether any process was asked to stop: all have to stop at the same step."""
        trainer = self.trainer
        asked = trainer.stop.signal or 0
        if trainer.args.world_size > 1:
            mine = torch.tensor(asked, device=trainer.args.device)
            asked = int(trainer.accelerator.gather(mine.reshape(1)).max())
            trainer.stop.signal = asked or None
        return asked > 0


def train(trainer: SafeTrainer, folder: RunFolder, checkpoint: Path | None) -> TrainOutput:
    """Train, or go on from a checkpoint.

    Raises:
        UserError: training diverged, or the checkpoint does not fit.
        KeyboardInterrupt, Terminated: after the signal, and a checkpoint.
    """
    trainer.identity = folder.identity()
    if trainer.is_world_process_zero():
        shutil.rmtree(folder.path / UNFINISHED, ignore_errors=True)
    if checkpoint is not None and (checkpoint / UNLOGGED).is_file():
        unlogged = read_json_object(checkpoint / UNLOGGED)
        trainer.add_callback(_GoOnAddingUp(trainer, unlogged))
    with stopping() as stop:
        trainer.stop = stop
        try:
            result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            if checkpoint is None or trainer.has_begun or isinstance(error, UserError):
                raise
            if lacks_memory(error):
                raise
            raise _unusable(str(checkpoint), error) from error
    stop.end()
    trainer.check_finite()
    return result


class _GoOnAddingUp(TrainerCallback):
    """A run that was stopped between two logs averages its loss over all steps between them."""

    def __init__(self, trainer: SafeTrainer, unlogged: dict[str, Any]) -> None:
        self.trainer, self.unlogged = trainer, unlogged

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        self.trainer._tr_loss += self.unlogged["loss"]
        self.trainer._globalstep_last_logged = self.unlogged["since"]


def _unusable(checkpoint: str | None, error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(
        f"{checkpoint} does not fit this run or is damaged ({reason}): copy it again, or move it "
        "away to go on from an older one"
    )
