"""What training shows while it runs: a bar on a terminal, some twenty lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

LINES = 20
FEW = 100
"""Updates below which a prefix is hardly trained."""


def duration(seconds: float) -> str:
    """``75`` is "1:15"; hours are shown where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress(TrainerCallback):
    """Shows step, loss and time left, the first loss after the first step.

    Args:
        loss: the loss of the last step, as a text.
        value: the same as a number, to see at the end whether it fell.
    """

    def __init__(self, loss: Callable[[], str], value: Callable[[], float]) -> None:
        self.loss = loss
        self.value = value
        self.values: list[float] = []
        self.bar: tqdm[Any] | None = None
        self.begun_at, self.begun = 0, 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin; say so where the steps are few."""
        if not state.is_world_process_zero:
            return
        self.begun_at, self.begun = state.global_step, time.monotonic()
        if state.max_steps < FEW:
            print(
                f"note: {state.max_steps} updates are few; a prefix needs {FEW} or more "
                "(--max_steps, or more epochs)",
                flush=True,
            )
        if sys.stderr.isatty():
            done = state.global_step
            self.bar = tqdm(total=state.max_steps, initial=done, desc="training", unit="step")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the step, if it is one of those shown."""
        if not state.is_world_process_zero:
            return
        step, every = state.global_step, max(1, state.max_steps // LINES)
        first = step == self.begun_at + 1
        shown = first or step % every == 0 or step == state.max_steps
        if shown:
            self.values.append(self.value())
        if self.bar is not None:
            self.bar.update()
            if shown:
                self.bar.set_postfix_str(f"loss {self.loss()}")
        elif shown:
            per_step = (time.monotonic() - self.begun) / (step - self.begun_at)
            left = duration(per_step * (state.max_steps - step))
            print(f"step {step}/{state.max_steps}  loss {self.loss()}  {left} left", flush=True)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End; say so where the loss did not fall."""
        if self.bar is not None:
            self.bar.close()
        if len(self.values) < 4:
            return
        before, after = self.values[0], sum(self.values[-3:]) / 3
        if after >= before:
            print(
                f"note: the loss did not fall ({before:.3g} at first, {after:.3g} at the end): try "
                "a larger or smaller --learning_rate, or more steps",
                flush=True,
            )
