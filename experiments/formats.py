"""A table of results as Markdown, LaTeX, CSV and HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from html import escape

from experiments.model import Cell, Line, Table

HEAD = ("row", "model", "source")
LEGEND = (
    "ours: mean ± standard deviation of the sample (number of runs); difference: ours minus the "
    "line above it"
)


class _Notes:
    """Numbers of reasons, in the order of their first use."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def mark(self, why: str) -> str:
        return f"[{self.numbers.setdefault(why, len(self.numbers) + 1)}]"

    def lines(self) -> list[str]:
        return [f"[{number}] {why}" for why, number in self.numbers.items()]


def cell_text(cell: Cell, decimals: int, signed: bool, notes: _Notes) -> str:
    """``68.2 ± 0.4 (3)``, ``-0.5`` where it is a difference, or a dash and the number of a note."""
    if cell.value is None:
        return f"– {notes.mark(cell.why)}"
    text = f"{cell.value:+.{decimals}f}" if signed else f"{cell.value:.{decimals}f}"
    if cell.spread is not None:
        text += f" ± {cell.spread:.{decimals}f}"
    return text if cell.n is None else f"{text} ({cell.n})"


def _cells(table: Table, line: Line, notes: _Notes) -> list[str]:
    signed = line.source == "difference"
    texts = [
        cell_text(line.cells[column], table.decimals[column], signed, notes)
        for column in table.columns
    ]
    return [line.row, line.model, line.source, *texts]


def _rows(table: Table) -> tuple[list[list[str]], list[str]]:
    """All lines as texts, and the notes below them."""
    notes = _Notes()
    rows = [_cells(table, line, notes) for line in table.lines]
    return rows, [LEGEND, *notes.lines(), *table.notes]


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown, padded so that it can be read as it is."""
    rows, notes = _rows(table)
    rows = [[cell.replace("|", "\\|") for cell in row] for row in [[*HEAD, *table.columns], *rows]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = (
            cell.ljust(w) if i < len(HEAD) else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    ruler = ["-" * w if i < len(HEAD) else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = [f"## {table.title}", "", line(rows[0]), line(ruler), *map(line, rows[1:]), ""]
    lines += [f"- {note}" for note in notes]
    lines += ["", *(f"![{name}]({name})" for name in table.pictures)] if table.pictures else []
    return "\n".join(lines) + "\n"


_TEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "—": "---",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
}


def tex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_TEX.get(character, character) for character in text)


def latex(table: Table) -> str:
    """A floating table that needs no packages."""
    rows, notes = _rows(table)
    columns = "l" * len(HEAD) + "r" * len(table.columns)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{tex(table.title)}}}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\hline"]
    for number, row in enumerate([[*HEAD, *table.columns], *rows]):
        lines.append(" & ".join(map(tex, row)) + r" \\")
        if number == 0:
            lines.append(r"\hline")
    lines += [r"\hline", r"\end{tabular}", r"\par\small", r"\begin{flushleft}"]
    # After \\, the bracket of a numbered note would begin the length of a gap.
    lines += [tex(note) + r"\par" for note in notes]
    return "\n".join([*lines, r"\end{flushleft}", r"\end{table}"]) + "\n"


def csv_text(table: Table) -> str:
    """One number a line, with all digits, for programs."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["table", "title", *HEAD, "column", "value", "standard_deviation", "runs", "why_missing"]
    )
    for line in table.lines:
        for column in table.columns:
            cell = line.cells[column]
            numbers = [cell.value, cell.spread, cell.n]
            shown = ["" if number is None else repr(number) for number in numbers]
            place = [table.name, table.title, line.row, line.model, line.source, column]
            writer.writerow([*place, *shown, cell.why])
    return file.getvalue()


def html(table: Table) -> str:
    """A page of its own."""
    rows, notes = _rows(table)
    style = "body{font-family:sans-serif}td,th{padding:.2em .7em;text-align:left}"
    style += "table{border-collapse:collapse}tr{border-top:1px solid #ccc}"
    title = escape(table.title)
    lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8">']
    lines += [f"<title>{title}</title>", f"<style>{style}</style>", "</head>", "<body>"]
    lines += [f"<h1>{title}</h1>", "<table>"]
    for number, row in enumerate([[*HEAD, *table.columns], *rows]):
        tag = "th" if number == 0 else "td"
        cells = "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    lines += ["</table>", "<ul>", *(f"<li>{escape(note)}</li>" for note in notes), "</ul>"]
    lines += [f'<p><img src="{escape(n)}" alt="{escape(n)}"></p>' for n in table.pictures]
    return "\n".join([*lines, "</body>", "</html>"]) + "\n"


FORMATS: dict[str, Callable[[Table], str]] = {
    "md": markdown,
    "tex": latex,
    "csv": csv_text,
    "html": html,
}
"""File suffix -> the table in that format."""
