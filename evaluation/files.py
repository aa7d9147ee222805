"""Reading what people score, with a sentence instead of a traceback when it is not as expected."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefix_tuning.errors import UserError


def read_text(path: Path) -> str:
    """Read a UTF-8 file, without byte order mark and with line ends turned into ``\\n``."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8 (line {line}, byte 0x{data[error.start]:02x}): "
            f"convert it, for example with iconv -f LATIN1 -t UTF-8"
        ) from error
    if not text.strip():
        raise UserError(f"{path} is empty")
    return text.replace("\r\n", "\n")


def read_lines(path: Path) -> list[str]:
    """Read one text per line, stripped.

    Only ``\\n`` ends a line: ``str.splitlines`` would also cut at U+2028 and seven other
    characters, which occur inside web text.
    """
    return [line.strip() for line in read_text(path).removesuffix("\n").split("\n")]


def read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error.msg} in line {error.lineno}") from error


def read_json_lines(path: Path) -> list[Any]:
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number} is not JSON: {error.msg}") from error
    return rows


def read_xml(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(read_text(path).encode())
    except ElementTree.ParseError as error:
        raise UserError(f"{path} is not XML: {error}") from error


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Read a ``.csv`` or ``.tsv`` file with a header: its column names and its rows."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        rows = [row for row in csv.reader(io.StringIO(read_text(path)), delimiter=delimiter) if row]
    except csv.Error as error:
        raise UserError(f"{path} is not a table: {error}") from error
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise UserError(
                f"{path}, row {number} has {len(row)} columns, the header has {len(rows[0])}"
            )
    return [name.strip().lower() for name in rows[0]], rows[1:]


def check_texts(references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> None:
    """Refuse what cannot be scored: unequal counts, empty outputs, instances without references.

    Raises:
        UserError: naming both counts, or the first instance at fault (counted from 1).
    """
    check_counts(len(references), len(hypotheses))
    for number, texts in enumerate(references, 1):
        if not any(text.strip() for text in texts):
            raise UserError(f"instance {number} has no reference")
    for number, text in enumerate(hypotheses, 1):
        if not text.strip():
            raise UserError(
                f"hypothesis {number} is empty: write a word such as Error for an output that "
                f"came out empty, as the paper's authors did"
            )


def check_counts(references: int, hypotheses: int, unit: str = "instances") -> None:
    """Refuse unequal or zero counts, naming both."""
    if references != hypotheses:
        raise UserError(f"the references have {references} {unit}, the hypotheses {hypotheses}")
    if references == 0:
        raise UserError(f"nothing to score: 0 {unit}")
