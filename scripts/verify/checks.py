"""What a check is, and what comes out of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


class LeftOut(Exception):
    """Why a check cannot run here: data or a program is missing."""


@dataclass(frozen=True)
class Difference:
    """How far one quantity is from where it should be.

    Attributes:
        what: the quantity.
        found: the largest absolute difference, or how many outputs differ.
        bound: what is still the same; 0 where only equality is.
    """

    what: str
    found: float
    bound: float

    @property
    def share(self) -> float:
        """``found`` in bounds: at most 1 if all is well, infinite for what is not a number."""
        if not math.isfinite(self.found):
            return math.inf
        if self.bound == 0:
            return 0.0 if self.found == 0 else math.inf
        return self.found / self.bound


Run = Callable[[], Iterable[Difference]]


@dataclass(frozen=True)
class Check:
    """One row of the certificate.

    Attributes:
        name: under which it is reported.
        against: what it is held against.
        run: compares.
    """

    name: str
    against: str
    run: Run


@dataclass(frozen=True)
class Outcome:
    """What came out of a check.

    Attributes:
        differences: of every quantity; none where it was left out.
        reason: why it was left out, or how it failed without a number.
    """

    check: Check
    differences: Sequence[Difference] = ()
    left_out: bool = False
    reason: str = ""
    seconds: float = 0.0

    @property
    def worst(self) -> Difference | None:
        """The quantity that is nearest to its bound, or beyond it."""
        return max(self.differences, key=lambda d: d.share, default=None)

    @property
    def passed(self) -> bool:
        """Whether everything that was compared is within its bound."""
        return bool(self.differences) and all(d.share <= 1 for d in self.differences)

    @property
    def result(self) -> str:
        """In a word."""
        return "left out" if self.left_out else "passed" if self.passed else "OFF"


def perform(check: Check) -> Outcome:
    """Run a check; whatever it raises is a result, and the others run all the same."""
    start = time.perf_counter()
    try:
        differences = list(check.run())
    except LeftOut as missing:
        return Outcome(check, left_out=True, reason=str(missing))
    except Exception as error:
        return Outcome(check, reason=f"{type(error).__name__}: {error}".splitlines()[0])
    reason = "" if differences else "nothing was compared"
    return Outcome(check, differences, reason=reason, seconds=time.perf_counter() - start)
