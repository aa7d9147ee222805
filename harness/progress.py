"""What a run shows on its way: a bar on a terminal, some twenty lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

LINES = 20
FEW = 100
"""Updates below which a prefix is hardly trained."""
PATIENCE = 20.0
"""Seconds without a line before what is often short (one evaluation of many) has some."""
COSTS = ("runtime", "per_second", "compilation_time")
"""What an evaluation took, as the names of its values end."""


def duration(seconds: float) -> str:
    """``75`` is "1:15"; hours are shown where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Shown:
    """How far something is, and the time left.

    Args:
        name: what is counted, at the beginning of a line.
        total: the count at the end.
        done: how much of it an earlier run has done.
        to_stderr: lines do not go to stdout, where the results are.
        patience: seconds between two lines at least.
    """

    def __init__(
        self,
        name: str,
        total: int,
        done: int = 0,
        to_stderr: bool = False,
        patience: float = 0.0,
    ) -> None:
        self.name, self.total, self.done, self.before = name, total, done, done
        self.file = sys.stderr if to_stderr else sys.stdout
        self.patience = patience
        self.begun = self.last = time.monotonic()
        self.bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=done, desc=name, leave=not patience)

    def is_due(self, done: int) -> bool:
        """Whether ``done`` is one of the counts that are shown: the first, some twenty, the end."""
        every = max(1, self.total // LINES)
        if self.patience and time.monotonic() - self.last < self.patience:
            return False
        return done > self.done and (
            self.done == self.before or done // every > self.done // every or done >= self.total
        )

    def at(self, done: int, text: str = "") -> None:
        """``done`` are done; shows it, with ``text``, if that is due."""
        if done <= self.done:
            return
        is_due = self.is_due(done)
        if self.bar is not None:
            self.bar.update(done - self.done)
            if is_due and text:
                self.bar.set_postfix_str(text)
        elif is_due:
            self.last = time.monotonic()
            left = (self.last - self.begun) / (done - self.before) * (self.total - done)
            parts = [f"{self.name} {done}/{self.total}", *([text] if text else [])]
            print("  ".join([*parts, f"{duration(left)} left"]), file=self.file, flush=True)
        self.done = done

    def close(self) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.close()


def through(items: Sequence[T], name: str) -> Iterator[T]:
    """``items``; what takes long has a bar on a terminal and some lines in a log."""
    shown = Shown(name, len(items), to_stderr=True, patience=PATIENCE)
    for done, item in enumerate(items, 1):
        yield item
        shown.at(done)
    shown.close()


class TrainingShown:
    """Steps of training with their loss, and a sentence where they are few or do not help.

    Args:
        total: steps of the whole run.
        done: steps of an earlier part of it.
    """

    def __init__(self, total: int, done: int) -> None:
        self.values: list[float] = []
        if total < FEW:
            print(
                f"note: {total} updates are few; a prefix needs {FEW} or more "
                "(--max_steps, or more epochs)",
                flush=True,
            )
        self.shown = Shown("step", total, done)

    def at(self, step: int, text: Callable[[], str], value: Callable[[], float]) -> None:
        """``step`` is done.

        Args:
            text: the loss as it is shown.
            value: the same as a number. Both are asked for when they are due: a GPU would have to
                be waited for.
        """
        if not self.shown.is_due(step):
            self.shown.at(step)
            return
        self.values.append(value())
        self.shown.at(step, f"loss {text()}")

    def end(self) -> None:
        """Say so where the loss did not fall."""
        self.shown.close()
        if len(self.values) < 4:
            return
        before, after = self.values[0], sum(self.values[-3:]) / 3
        if after >= before:
            print(
                f"note: the loss did not fall ({before:.3g} at first, {after:.3g} at the end): try "
                "a larger or smaller --learning_rate, or more steps",
                flush=True,
            )


def show_scores(step: int, scores: Mapping[str, float]) -> None:
    """A line for an evaluation, without what it took."""
    kept = {n: v for n, v in scores.items() if not n.endswith(COSTS) and v is not None}
    values = "  ".join(f"{name} {value:.4g}" for name, value in kept.items())
    tqdm.write(f"evaluation at step {step}  {values}", file=sys.stdout)
    sys.stdout.flush()
