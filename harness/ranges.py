"""The numbers that a flag takes, declared beside it: ``flag(5, "beams", within=COUNT)``.

What is not a number is in no range. Only the standard library is imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefix_tuning.errors import UserError


@dataclass(frozen=True)
class Range:
    """An interval, both ends of which belong to it.

    Args:
        low, high: the ends.
        says: what is wrong with a number outside it: "must be ...".
        also: a number outside it that has a meaning of its own.
    """

    low: float
    high: float
    says: str
    also: float | None = None

    def check(self, name: str, value: float | None) -> None:
        """Raise :class:`UserError` for a number outside; None, a flag not given, passes."""
        if value is None or self.low <= value <= self.high or value == self.also:
            return
        finite = isinstance(value, int) or math.isfinite(value)  # an int may exceed all floats
        says = self.says if finite else f"{self.says}, and a finite number"
        if finite and value > self.high == LARGEST_COUNT:
            says = f"must be at most {LARGEST_COUNT}"
        raise UserError(f"--{name} {value}: {says}")


LARGEST_COUNT = 2**31 - 1
"""The most rows, steps or tokens: what lies above overflows somewhere in a library."""
_TINY, _HUGE = math.ulp(0.0), math.nextafter(math.inf, 0.0)

COUNT = Range(1, LARGEST_COUNT, "must be at least 1")
COUNT_OR_NONE = Range(0, LARGEST_COUNT, "must not be negative")
WIDTH = Range(1, 2**20, f"must be at least 1, and at most {2**20}")
POSITIVE = Range(_TINY, _HUGE, "must be positive")
NOT_NEGATIVE = Range(0, _HUGE, "must not be negative")
FINITE = Range(-_HUGE, _HUGE, "must be a finite number")
_NOTHING = "nothing to train"
STEPS = Range(1, LARGEST_COUNT, f"{_NOTHING}: use at least 1, or -1 for epochs", also=-1)
EPOCHS = Range(_TINY, 1e6, f"{_NOTHING}: use more than 0, at most 1000000")
PROBABILITY = Range(_TINY, 1, "must be above 0, and at most 1")
SHARE = Range(0, 1, "must be from 0 to 1")
FRACTION = Range(0, math.nextafter(1.0, 0.0), "must be in [0, 1)")
SEED = Range(0, 2**32 - 1, f"must be from 0 to {2**32 - 1}")
EXPONENT = Range(-100, 100, "must be from -100 to 100")
"""Exponents of a length: a power of a hundred tokens is still a number of fp64."""


def check_all(ranges: Mapping[str, Range], values: Mapping[str, Any]) -> None:
    """Hold values to the ranges of their names.

    Raises:
        UserError: naming the first flag outside.
    """
    for name, allowed in ranges.items():
        value = values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            allowed.check(name, value)
