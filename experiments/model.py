"""What a table of results consists of, whatever the format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from statistics import mean, stdev


@dataclass(frozen=True)
class RunOf:
    """One of the runs behind a number, and the command that makes it."""

    name: str
    value: float
    command: str


@dataclass
class Cell:
    """A number, or why there is none.

    ``n`` is how many runs of ours the mean is over; None for numbers of others and differences.
    ``interval`` is half the 95 % interval of the mean by Student's t; None of a single run.
    """

    value: float | None = None
    spread: float | None = None
    n: int | None = None
    why: str = ""
    interval: float | None = None
    runs: list[RunOf] = field(default_factory=list)

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Cell:
        """Mean, sample standard deviation and interval of runs that are independent.

        Args:
            numbers: at least one.
        """
        n = len(numbers)
        if n == 1:
            return cls(numbers[0], n=1)
        from scipy.special import stdtrit

        spread = stdev(numbers)
        return cls(mean(numbers), spread, n, interval=stdtrit(n - 1, 0.975) * spread / sqrt(n))


@dataclass
class Line:
    """Cells by column. ``source`` is ``ours``, ``difference`` or where others published them."""

    row: str
    model: str
    source: str
    cells: dict[str, Cell]


@dataclass
class Table:
    """What all formats show; ``decimals`` by column."""

    name: str
    title: str
    columns: list[str]
    decimals: dict[str, int]
    lines: list[Line]
    notes: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    folder: Path | None = None
    """Where the pictures are."""
