"""Reading what people score, with a sentence instead of a traceback when it is not as expected."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from prefix_tuning import files
from prefix_tuning.errors import UserError


def read_text(path: Path) -> str:
    """:func:`prefix_tuning.files.read_text` of a file that must have something in it."""
    text = files.read_text(path)
    if not text.strip():
        raise UserError(f"{path} is empty")
    return text


def read_lines(path: Path) -> list[str]:
    """Read one text per line, stripped.

    Only ``\\n`` ends a line: ``str.splitlines`` would also cut at U+2028 and seven other
    characters, which occur inside web text.
    """
    return [line.strip() for line in read_text(path).removesuffix("\n").split("\n")]


def read_json(path: Path) -> Any:
    """The value of a JSON file that must have something in it."""
    return files.parse_json(read_text(path), str(path))


def read_json_lines(path: Path) -> list[Any]:
    """The values of a JSONL file, one a line."""
    return [value for value, _ in files.read_json_lines(path)]


def read_xml(path: Path) -> ElementTree.Element:
    try:
        # As text: bytes would be decoded a second time, as the declaration in them says.
        return ElementTree.fromstring(read_text(path))
    except ElementTree.ParseError as error:
        raise UserError(f"{path} is not XML: {error}") from error


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Read a ``.csv`` or ``.tsv`` file with a header: its column names and its rows.

    Raises:
        UserError: a row is not as wide as the header, a quotation mark is not closed, or a cell of
            a ``.tsv`` holds a tab or line break: then one is not closed where it should be, and
            rows are merged.
    """
    read_text(path)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    header, *rows = files.read_csv(path, delimiter)
    if delimiter == "\t":
        for row, where in rows:
            if any("\t" in cell or "\n" in cell or "\r" in cell for cell in row):
                raise UserError(
                    f"{where}: a tab or line break inside a cell: a quotation mark that begins a "
                    "cell is not closed in it; write it twice and the cell in quotation marks"
                )
    return [name.strip().lower() for name in header[0]], [row for row, _ in rows]
