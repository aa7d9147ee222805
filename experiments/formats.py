"""A table of results as Markdown, LaTeX, CSV and HTML."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from string import Template

from experiments.model import Cell, Line, Table

HEAD = ("row", "model", "source")
LEGEND = (
    "ours: mean ± standard deviation of the sample (number of runs), and the 95 % interval of the "
    "mean by Student's t, which takes the runs as independent; difference: ours minus the line "
    "above it"
)


Escape = Callable[[str], str]
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\s]+")


def one_line(text: str) -> str:
    """Text without line breaks and control characters, which would end a row or a cell."""
    return _CONTROL.sub(" ", text).strip()


class _Notes:
    """Numbers of reasons, in the order of their first use."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def mark(self, why: str) -> str:
        return f"[{self.numbers.setdefault(why, len(self.numbers) + 1)}]"

    def lines(self, escape: Escape) -> list[str]:
        return [f"[{number}] {escape(why)}" for why, number in self.numbers.items()]


def cell_text(cell: Cell, decimals: int, signed: bool, notes: _Notes) -> str:
    """``68.2 ± 0.4 (3), 67.2 to 69.2``, a difference as ``-0.5``, or a dash and a note's number."""
    if cell.value is None:
        return f"– {notes.mark(cell.why)}"
    text = _number(cell, decimals, signed)
    return text if cell.interval is None else f"{text}, {_ends(cell, decimals)}"


def _number(cell: Cell, decimals: int, signed: bool) -> str:
    """``68.2 ± 0.4 (3)``."""
    text = f"{cell.value:+.{decimals}f}" if signed else f"{cell.value:.{decimals}f}"
    if cell.spread is not None:
        text += f" ± {cell.spread:.{decimals}f}"
    return text if cell.n is None else f"{text} ({cell.n})"


def _ends(cell: Cell, decimals: int) -> str:
    """``67.2 to 69.2``: where the mean lies, with a probability of 95 %."""
    assert cell.value is not None
    assert cell.interval is not None
    ends = (cell.value - cell.interval, cell.value + cell.interval)
    return " to ".join(f"{end:.{decimals}f}" for end in ends)


def _cells(table: Table, line: Line, notes: _Notes, escape: Escape) -> list[str]:
    signed = line.source == "difference"
    texts = [
        cell_text(line.cells[column], table.decimals[column], signed, notes)
        for column in table.columns
    ]
    return [*map(escape, (line.row, line.model, line.source)), *texts]


def _rows(table: Table, escape: Escape) -> tuple[list[list[str]], list[str]]:
    """Head and lines as texts, and the notes below them.

    Args:
        escape: what stands for a text of others, of which no character may mean anything.
    """
    notes = _Notes()
    rows = [_cells(table, line, notes, escape) for line in table.lines]
    head = [*HEAD, *map(escape, table.columns)]
    return [head, *rows], [escape(LEGEND), *notes.lines(escape), *map(escape, table.notes)]


_MARKDOWN = re.compile(r"[\\`*\[\]<|~]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|^[#>+-]|^\d+(?=[.)])")


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, also in a table or at the beginning of an item."""
    return _MARKDOWN.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", one_line(text))


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown, padded so that it can be read as it is."""
    rows, notes = _rows(table, escape_markdown)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = (
            cell.ljust(w) if i < len(HEAD) else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    ruler = ["-" * w if i < len(HEAD) else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = [
        f"## {escape_markdown(table.title)}",
        "",
        line(rows[0]),
        line(ruler),
        *map(line, rows[1:]),
        "",
    ]
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
    # Behind the two backslashes of a row, these would be options.
    **{c: f"{{{c}}}" for c in "[]*"},
}


def tex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_TEX.get(character, character) for character in one_line(text))


def _tex_number(cell: str) -> str:
    """The signs of :func:`cell_text`; other cells are escaped already and have none of them."""
    return cell.replace("±", _TEX["±"]).replace("–", _TEX["–"])


def latex(table: Table) -> str:
    """A floating table that needs no packages."""
    rows, notes = _rows(table, tex)
    columns = "l" * len(HEAD) + "r" * len(table.columns)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{tex(table.title)}}}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\hline"]
    for number, row in enumerate(rows):
        lines.append(" & ".join(map(_tex_number, row)) + r" \\")
        if number == 0:
            lines.append(r"\hline")
    lines += [r"\hline", r"\end{tabular}", r"\par\small", r"\begin{flushleft}"]
    # After \\, the bracket of a numbered note would begin the length of a gap.
    lines += [note + r"\par" for note in notes]
    return "\n".join([*lines, r"\end{flushleft}", r"\end{table}"]) + "\n"


_FORMULA = tuple("=+-@＝＋－＠")


def _no_formula(text: str) -> str:
    """Text that a spreadsheet does not compute: a quote stands before what could begin one."""
    text = one_line(text)
    return f"'{text}" if text[:1] in _FORMULA else text


def csv_text(table: Table) -> str:
    """One number a line, with all digits, for programs."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        "table title row model source column value standard_deviation runs".split()
        + ["half_of_95_percent_interval", "why_missing"]
    )
    for line in table.lines:
        for column in table.columns:
            cell = line.cells[column]
            numbers = [cell.value, cell.spread, cell.n, cell.interval]
            shown = ["" if number is None else repr(number) for number in numbers]
            place = [table.name, table.title, line.row, line.model, line.source, column]
            texts = [_no_formula(text) for text in (*place, cell.why)]
            writer.writerow([*texts[:-1], *shown, texts[-1]])
    return file.getvalue()


_PAGE = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


def _html(text: str) -> str:
    return escape(one_line(text))


def _html_cell(table: Table, column: str, cell: Cell, signed: bool) -> str:
    """A number with its interval, its runs and their commands one click away, or why it is none."""
    decimals = table.decimals[column]
    start = f'<td data-column="{_html(column)}" data-value='
    if cell.value is None:
        return f'{start}"">–<details><summary>why</summary>{_html(cell.why)}</details></td>'
    text = _number(cell, decimals, signed)
    if not cell.runs:
        return f'{start}"{cell.value!r}">{text}</td>'
    summary = "the run" if cell.interval is None else _ends(cell, decimals)
    runs = "".join(
        f"<li>{_html(run.name)}: {run.value:.{decimals}f}<br><code>{_html(run.command)}</code></li>"
        for run in cell.runs
    )
    more = f"<details><summary>{summary}</summary><ul>{runs}</ul></details>"
    return f'{start}"{cell.value!r}">{text}{more}</td>'


def _html_line(table: Table, line: Line) -> str:
    texts = zip(HEAD, (line.row, line.model, line.source), strict=True)
    names = (f'<td data-column="{h}" data-value="{_html(t)}">{_html(t)}</td>' for h, t in texts)
    signed = line.source == "difference"
    cells = (_html_cell(table, column, line.cells[column], signed) for column in table.columns)
    return f"<tr>{''.join((*names, *cells))}</tr>"


def _picture(table: Table, name: str) -> str:
    """A picture inside the page, so that the file can be sent alone."""
    source = _html(name)
    if table.folder is not None:
        coded = base64.b64encode((table.folder / name).read_bytes()).decode()
        source = f"data:image/png;base64,{coded}"
    return f'<figure><img src="{source}" alt="{_html(name)}"></figure>'


def html(table: Table) -> str:
    """A page of its own, which sorts by a click on a head and needs nothing from elsewhere."""
    lines = [f"<li>{_html(note)}</li>" for note in (LEGEND, *table.notes)]
    return _PAGE.substitute(
        title=_html(table.title),
        head="".join(f'<th tabindex="0">{_html(name)}</th>' for name in (*HEAD, *table.columns)),
        lines="".join(f"{_html_line(table, line)}\n" for line in table.lines),
        pictures="".join(f"{_picture(table, name)}\n" for name in table.pictures),
        notes="\n".join([*lines, ""]),
    )


FORMATS: dict[str, Callable[[Table], str]] = {
    "md": markdown,
    "tex": latex,
    "csv": csv_text,
    "html": html,
}
"""File suffix -> the table in that format."""
