"""What a table of results consists of, whatever the format."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Cell:
    """A number, or why there is none.

    ``n`` is how many runs of ours the mean is over; None for numbers of others and differences.
    """

    value: float | None = None
    spread: float | None = None
    n: int | None = None
    why: str = ""


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
