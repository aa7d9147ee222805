"""Files of sources and targets.

The original keeps a split in ``<split>.source`` and ``<split>.target``, one example a line. CSV,
JSONL, data sets of the hub and E2E's ``SOURCE||TARGET`` lines are read too. A line break inside a
text becomes a blank, since it could not stand in the original's files either.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from prefix_tuning.errors import UserError
from prefix_tuning.files import numbered_lines, read_csv, read_json_lines

HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}
COLUMNS = (
    ("source", "target"),
    ("source", "targets"),
    ("document", "summary"),
    ("article", "highlights"),
    ("article", "summary"),
    ("text", "summary"),
)
"""Names of source and target that are tried, as pairs: some files call another column "source"."""


Row = tuple[Mapping[str, Any], str]
"""Values by column, and where they stand."""


@dataclass(frozen=True)
class Record:
    """One example; an input with several references makes several."""

    source: str
    target: str | None
    """None where there is nothing to train on or to compare with."""
    where: str
    """File and line, for messages."""


@dataclass(frozen=True)
class Columns:
    """Which columns to read; those that are None are guessed."""

    source: str | None = None
    target: str | None = None

    def find(self, names: Iterable[str], training: bool, where: str) -> tuple[str, str | None]:
        """The columns of source and target among ``names``.

        The target may be missing where there is no training, and then only if it was not named.
        """
        names = list(names)
        for source, target in COLUMNS:
            pair = self.source or source, self.target or target
            if pair[0] in names and pair[1] in names:
                return pair
        if not training and self.target is None:
            for source, _ in COLUMNS:
                if (self.source or source) in names:
                    return self.source or source, None
        raise UserError(
            f"{where}: which of {', '.join(map(str, names))} are source and target is not clear; "
            "name them with --source_column and --target_column"
        )


def _text(value: Any, what: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
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
        yield from (Record(_text(text, "source", where), None, where) for text, where in sources)
        return
    targets = list(numbered_lines(path))
    if len(sources) != len(targets):
        raise UserError(
            f"{folder / split}.source has {len(sources)} lines and {path.name} {len(targets)}: "
            "line n of one belongs to line n of the other"
        )
    for (source, where), (target, target_where) in zip(sources, targets, strict=True):
        yield Record(_text(source, "source", where), _text(target, "target", target_where), where)


def read_rows(rows: Iterable[Row], columns: Columns, training: bool) -> Iterator[Record]:
    """The records of rows; a list of targets makes a record of each."""
    for row, where in rows:
        source_name, target_name = columns.find(row.keys(), training, where)
        source = _text(row[source_name], "source", where)
        targets = [] if target_name is None else row[target_name]
        for target in targets if isinstance(targets, list) else [targets]:
            yield Record(source, _text(target, "target", where), where)
        if targets == []:
            if training:
                raise UserError(f"{where}: the target is missing or empty")
            yield Record(source, None, where)


def _csv_rows(path: Path) -> Iterator[Row]:
    rows = read_csv(path)
    header, _ = next(rows, ([], ""))
    yield from ((dict(zip(header, row, strict=True)), where) for row, where in rows)


def _json_rows(path: Path) -> Iterator[Row]:
    for row, where in read_json_lines(path):
        if not isinstance(row, dict):
            raise UserError(f'{where}: expected an object {{"source": ..., "target": ...}}')
        yield row, where


def _e2e_rows(path: Path) -> Iterator[Row]:
    for line, where in numbered_lines(path):
        if not line.strip():
            continue
        if line.count("||") != 1:
            raise UserError(
                f"{where}: expected SOURCE||TARGET, found {line.count('||')} times '||'"
            )
        yield dict(zip(("source", "target"), line.split("||"), strict=True)), where


def hub_rows(name: str, config: str | None, split: str) -> Iterator[Row]:
    """One split of a data set of the hub; its name for "val" is "validation"."""
    import datasets  # seconds to import, and files need none of it

    try:
        rows = datasets.load_dataset(name, config, split=HUB_SPLITS[split])
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"{name} is neither a file or folder here nor to be had from the hub ({reason})"
        ) from error
    for number, row in enumerate(tqdm(rows, name, leave=False, disable=None), 1):
        yield row, f"{name}, {HUB_SPLITS[split]} row {number}"


ROWS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _csv_rows,
    ".jsonl": _json_rows,
    ".txt": _e2e_rows,
}
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
