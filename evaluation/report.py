"""What every scorer returns, and the one place that prints it or writes it to a file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefix_tuning.errors import UserError


class Unavailable(Exception):
    """A column cannot be computed on this machine; the message says why and what to install."""


@dataclass
class Scores:
    """The scores of one set of outputs.

    Attributes:
        values: column -> score, in printing order; None where there is none.
        missing: column -> why there is none.
        segments: column -> one score per instance, where they were asked for.
        note: what the reader has to know to compare the numbers, such as the test set meant.
        full: column -> the score of faultless outputs, 1 or 100 as the official script prints it;
            scores on scales of their own, and rates of errors, are not in it.
    """

    values: dict[str, float | None] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    segments: dict[str, list[float | None]] = field(default_factory=dict)
    note: str = ""
    full: dict[str, int] = field(default_factory=dict)

    def __getitem__(self, column: str) -> float | None:
        return self.values[column]

    def add_missing(self, column: str, reason: object) -> None:
        self.values[column] = None
        self.missing[column] = str(reason)

    def add_note(self, text: str) -> None:
        self.note = "; ".join(filter(None, (self.note, text)))

    def undefine(self, reason: str, instances: Iterable[int]) -> None:
        """Take every column back, and the scores of these instances, numbered from 0.

        The reason is a note: it is printed once and not per column.
        """
        self.add_note(reason)
        for column in self.values:
            self.add_missing(column, reason)
        for values in self.segments.values():
            for number in instances:
                values[number] = None


def percent(row: Mapping[str, Any], column: str) -> float | None:
    """A score from 0 to 100, of a row of scores as it is written to a file.

    A row without ``full`` is of before that field; its scores end at 1.
    """
    value = row["values"].get(column)
    return None if value is None else 100 / row.get("full", {}).get(column, 1) * value


def format_table(rows: Mapping[str, Scores], digits: int = 4) -> str:
    """Lay out a line per row with ``digits`` decimals, the notes, and why columns are missing."""
    columns = list(dict.fromkeys(column for scores in rows.values() for column in scores.values))
    cells = [["", *columns]]
    for name, scores in rows.items():
        values = (scores.values.get(column) for column in columns)
        cells.append([name, *("-" if value is None else f"{value:.{digits}f}" for value in values)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in cells]
    remarks = [scores.note for scores in rows.values() if scores.note]
    said = "\n".join(remarks)
    missing = [pair for scores in rows.values() for pair in scores.missing.items()]
    remarks += [f"{column}: {why}" for column, why in missing if why not in said]
    return "\n".join([*lines, *dict.fromkeys(remarks)])


def argument_parser(
    description: str | None, references: str, hypotheses: str, segments: bool = True
) -> argparse.ArgumentParser:
    """The arguments that all scorers share; the two texts say which file formats they read."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("references", metavar="REFERENCES", type=Path, help=references)
    parser.add_argument("hypotheses", metavar="HYPOTHESES", type=Path, help=hypotheses)
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="write the scores with all digits"
    )
    if segments:
        parser.add_argument(
            "--segments", action="store_true", help="also score each instance alone"
        )
    return parser


@contextmanager
def naming_files(args: argparse.Namespace) -> Iterator[None]:
    """Say in a mistake found while scoring, which counts lines, which files they are lines of."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{args.hypotheses} against {args.references}: {error}") from error


def publish(rows: Mapping[str, Scores], args: argparse.Namespace) -> None:
    """Print the table of ``rows`` and write ``args.json`` if it was asked for.

    Raises:
        UserError: it is one of the files that were scored, or cannot be written.
    """
    print(format_table(rows))
    if args.json is None:
        return
    if args.json.resolve() in (args.references.resolve(), args.hypotheses.resolve()):
        raise UserError(f"--json {args.json} is a file that was scored: give another")
    document = {
        "references": str(args.references),
        "hypotheses": str(args.hypotheses),
        "scores": {name: vars(scores) for name, scores in rows.items()},
    }
    try:
        args.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise UserError(f"cannot write {args.json}: {error.strerror}") from error
