"""Trainer's steps and evaluations, shown as progress.py shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from typing import Any

from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
)

from harness.progress import PATIENCE, Shown, TrainingShown, show_scores


def show(trainer: Trainer, text: Callable[[], str], value: Callable[[], float]) -> None:
    """Show a trainer's steps and evaluations, instead of what it shows by itself.

    Args:
        text, value: the loss of the last step (:meth:`TrainingShown.at`).
    """
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Progress(text, value))


class _Progress(TrainerCallback):
    def __init__(self, text: Callable[[], str], value: Callable[[], float]) -> None:
        self.text, self.value = text, value
        self.training: TrainingShown | None = None
        self.evaluation: Shown | None = None

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.training = TrainingShown(state.max_steps, state.global_step)

    def on_step_end(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        if self.training is not None:
            self.training.at(state.global_step, self.text, self.value)

    def on_train_end(self, *_: Any, **kwargs: Any) -> None:
        if self.training is not None:
            self.training.end()
            self.training = None

    def on_prediction_step(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        batches = kwargs.get("eval_dataloader")
        if not state.is_world_process_zero or not isinstance(batches, Sized):
            return
        if self.evaluation is None:
            self.evaluation = Shown("evaluated batches", len(batches), patience=PATIENCE)
        self.evaluation.at(self.evaluation.done + 1)

    def on_evaluate(self, *_: Any, **kwargs: Any) -> None:
        if self.evaluation is not None:
            self.evaluation.close()
            self.evaluation = None

    on_predict = on_evaluate

    def on_log(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        logs: Mapping[str, float] = kwargs.get("logs") or {}
        scores = {n.removeprefix("eval_"): v for n, v in logs.items() if n.startswith("eval_")}
        if self.training is not None and scores:
            show_scores(state.global_step, scores)
