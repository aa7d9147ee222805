"""Files of sources and targets.

The original keeps a split in ``<split>.source`` and ``<split>.target``, one example a line. What
:mod:`harness.own_files` reads, data sets of the hub and E2E's ``SOURCE||TARGET`` lines are read
too. A line break inside a text becomes a blank, since it could not stand in the original's files
either. A source may be empty here: :func:`harness.sources.with_sources` refuses it, or leaves it
out.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness.own_data import CHATS, Columns, chat_pairs, columns_found, source_text
from harness.own_files import FORMATS, Row, e2e_rows, from_hub
from harness.progress import through
from prefix_tuning.errors import UserError
from prefix_tuning.files import numbered_lines

HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Record:
    """One example; an input with several references makes several."""

    source: str
    target: str | None
    """None where there is nothing to train on or to compare with."""
    where: str
    """File and line, for messages."""
    prefix: object = None
    """The name of its prefix: see :mod:`harness.banked`."""
    source_name: ClassVar[str] = "the source"


def _text(value: Any, what: str, where: str, may_be_empty: bool = False) -> str:
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise UserError(f"{where}: the {what} is missing or empty")
    text = value.strip("\r\n")
    if "\n" not in text and "\r" not in text:  # an expression alone takes ten times as long
        return text
    return " ".join(line.strip() for line in re.split(r"[\r\n]+", text) if line.strip())


def read_pairs(folder: Path, split: str, training: bool) -> Iterator[Record]:
    """``<split>.source`` and, unless there is no training, ``<split>.target``, line by line."""
    sources = list(numbered_lines(folder / f"{split}.source"))
    path = folder / f"{split}.target"
    if not path.is_file():
        if training:
            raise UserError(f"{path}: there is no such file, and nothing to train on without it")
        yield from (
            Record(_text(text, "source", where, True), None, where) for text, where in sources
        )
        return
    targets = list(numbered_lines(path))
    if len(sources) != len(targets):
        raise UserError(
            f"{folder / split}.source has {len(sources)} lines and {path.name} {len(targets)}: "
            "line n of one belongs to line n of the other"
        )
    for (source, where), (target, target_where) in zip(sources, targets, strict=True):
        source = _text(source, "source", where, may_be_empty=True)
        target = _text(target, "target", target_where, may_be_empty=not source.strip())
        yield Record(source, target, where)


def read_rows(rows: Iterable[Row], columns: Columns, training: bool) -> Iterator[Record]:
    """The records of rows; a list of targets makes a record of each.

    Of a chat the last turn of the assistant is the target, and what stands before it the source.
    Prints what was taken for source and target, where their columns are not called so.
    """
    said = False
    for row, where in rows:
        chat = next((name for name in CHATS if name in row), None)
        if chat is not None and columns == Columns():
            if not said:
                print(f"{where}: {chat!r} is a chat, its last answer the target", flush=True)
                said = True
            last = chat_pairs(row[chat], training, where, row.get("targets"))[-1]
            source = _text(last.source, "source", where)
            for answer in last.targets or (None,):
                target = None if answer is None else _text(answer, "target", where)
                yield Record(source, target, where, row.get("prefix"))
            continue
        source_name, target_name = columns.find(row.keys(), training, where)
        if columns == Columns() and source_name != "source" and not said:
            print(f"{where}: {columns_found(row, source_name, target_name)}", flush=True)
            said = True
        source = _text(source_text(row, source_name), "source", where, may_be_empty=True)
        if not source.strip():
            yield Record("", None, where)
            continue
        targets = [] if target_name is None else row[target_name]
        prefix = row.get("prefix")
        for target in targets if isinstance(targets, list) else [targets]:
            yield Record(source, _text(target, "target", where), where, prefix)
        if targets == []:
            if training:
                raise UserError(f"{where}: the target is missing or empty")
            yield Record(source, None, where, prefix)


def hub_rows(name: str, config: str | None, split: str) -> Iterator[Row]:
    """One split of a data set of the hub; its name for "val" is "validation"."""
    rows = from_hub(name, config, HUB_SPLITS[split])
    for number, row in enumerate(through(rows, f"rows of {name}"), 1):
        yield row, f"{name}, {HUB_SPLITS[split]} row {number}"


ROWS: dict[str, Callable[[Path], Iterator[Row]]] = {**FORMATS, ".txt": e2e_rows}
"""Readers by the ending of a file's name."""


def write_splits(
    folder: Path,
    splits: Mapping[str, Sequence[Record]],
    further: Mapping[str, str] | None = None,
) -> None:
    """Write a new folder of ``<split>.source`` and ``<split>.target``: all of it, or nothing.

    Args:
        splits: records by split; without a ``.target`` where one of them has none.
        further: texts of other files to write there, by name.

    Raises:
        UserError: ``folder`` exists.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already: remove it or give another --out")
    texts = dict(further or {})
    for split, records in splits.items():
        texts[f"{split}.source"] = "".join(f"{record.source}\n" for record in records)
        if all(record.target is not None for record in records):
            texts[f"{split}.target"] = "".join(f"{record.target}\n" for record in records)
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, text in texts.items():
        (temporary / name).write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, folder)
