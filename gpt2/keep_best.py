"""The weights of the best evaluation of a run, kept in a folder of their own."""

from __future__ import annotations

import glob
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, write_json

EVALUATION = "evaluation.json"
"""In the folder of the best evaluation, written last: its step and its loss."""


class KeepBest(TrainerCallback):
    """Keep the weights of the best evaluation in ``<run>/<run>-checkpoint-<step>``.

    The original calls this early stopping; it never stops. The folder's name is the original's. A
    run that begins or goes on keeps what is there until it finds a better one.
    """

    def __init__(self, save: Callable[[Path], None]) -> None:
        self.save = save
        self.best: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look up what is kept already."""
        logged = {
            int(log["step"]): log["eval_loss"] for log in state.log_history if "eval_loss" in log
        }
        found = [_loss_of(folder, logged) for folder in best_checkpoints(_run(args))]
        self.best = min((loss for loss in found if loss is not None), default=None)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the weights if their loss is less than any before."""
        loss = kwargs["metrics"].get("eval_loss")
        if loss is None or not math.isfinite(loss) or not state.is_world_process_zero:
            return
        if self.best is not None and loss >= self.best:
            return
        self.best, run = loss, _run(args)
        older = best_checkpoints(run)
        best = run / f"{run.name}-checkpoint-{state.global_step}"
        (best / EVALUATION).unlink(missing_ok=True)
        self.save(best)
        write_json(best / EVALUATION, {"step": state.global_step, "eval_loss": loss})
        for folder in older:
            if folder != best:
                shutil.rmtree(folder)


def _run(args: TrainingArguments) -> Path:
    assert args.output_dir is not None
    return Path(args.output_dir)


def _loss_of(best: Path, logged: Mapping[int, float]) -> float | None:
    """The loss that a folder was kept for; None if that is unknown, as when it is not complete."""
    try:
        loss = read_json_object(best / EVALUATION)["eval_loss"]
    except (UserError, KeyError):
        step = best.name.rpartition("-")[2]
        loss = logged.get(int(step)) if step.isdecimal() else None
    return loss if isinstance(loss, float) and math.isfinite(loss) else None


def best_checkpoints(run: Path) -> list[Path]:
    """The folders of the best evaluation in a run (one, or none yet)."""
    return sorted(run.glob(f"{glob.escape(run.name)}-checkpoint-*"))
