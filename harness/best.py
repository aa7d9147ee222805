"""Evaluations whose score decides nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Ties:
    """Whether a score was the same, or undefined, at every evaluation so far.

    Such a score does not choose the best evaluation: the one with the least loss is best then.
    """

    is_always_equal: bool = True
    step: int | None = None
    """That of the least loss while the score was always equal."""
    score: float | None = None
    loss: float = math.inf
    n_evaluation: int = 0

    def least(self, step: int, score: float | None, loss: float | None) -> bool:
        """Whether this evaluation, which counts from now on, has the least loss of equal ones."""
        value = score if score is not None and math.isfinite(score) else None
        self.is_always_equal = self.is_always_equal and (
            self.n_evaluation == 0 or value == self.score
        )
        self.score = value
        self.n_evaluation += 1
        if not self.is_always_equal or loss is None or not loss < self.loss:
            return False
        self.step, self.loss = step, loss
        return True
