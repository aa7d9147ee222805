"""Files of one's own data -> rows: CSV, TSV, JSON, JSONL, parquet, a folder, a data set of the hub.

Nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prefix_tuning.errors import UserError
from prefix_tuning.files import numbered_lines, read_csv, read_json, read_json_lines

Row = tuple[Mapping[str, Any], str]
"""Values by column, and where they stand."""
SPLITS = {
    "train": ("train",),
    "valid": ("valid", "validation", "val", "dev", "eval"),
    "test": ("test",),
}
"""What a folder or the hub calls a split."""


def _table(delimiter: str) -> Callable[[Path], Iterator[Row]]:
    def rows(path: Path) -> Iterator[Row]:
        table = read_csv(path, delimiter)
        header, _ = next(table, ([], ""))
        yield from ((dict(zip(header, row, strict=True)), where) for row, where in table)

    return rows


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise UserError(f'{where}: expected an object {{"source": ..., "target": ...}}')
    return row, where


def _jsonl_rows(path: Path) -> Iterator[Row]:
    return (_object(row, where) for row, where in read_json_lines(path))


def _json_rows(path: Path) -> Iterator[Row]:
    value = read_json(path)
    if isinstance(value, dict):  # one list, under whatever name
        lists = [inner for inner in value.values() if isinstance(inner, list)]
        value = lists[0] if len(lists) == 1 else value
    if not isinstance(value, list):
        raise UserError(f"{path}: expected a list of objects, or one object with such a list")
    return (_object(row, f"{path}, record {i}") for i, row in enumerate(value, start=1))


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: parquet needs the package pyarrow; install it") from error
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; README.md says where data goes")
    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: no parquet file ({reason}); copy it again") from error
    return ((_filled(row), f"{path}, row {number}") for number, row in enumerate(rows, start=1))


def _filled(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table, where an empty cell is null, as CSV would have it."""
    return {name: "" if value is None else value for name, value in row.items()}


def e2e_rows(path: Path) -> Iterator[Row]:
    """E2E's ``SOURCE||TARGET`` lines."""
    for line, where in numbered_lines(path):
        if not line.strip():
            continue
        if line.count("||") != 1:
            raise UserError(
                f"{where}: expected SOURCE||TARGET, found {line.count('||')} times '||'"
            )
        yield dict(zip(("source", "target"), line.split("||"), strict=True)), where


FORMATS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _table(","),
    ".tsv": _table("\t"),
    ".json": _json_rows,
    ".jsonl": _jsonl_rows,
    ".parquet": _parquet_rows,
}
"""Readers by the ending of a file's name."""


def is_own(data: str | Path) -> bool:
    """Whether this is a file of one of :data:`FORMATS`, a folder, or the name of a data set."""
    path = Path(data)
    return path.suffix in FORMATS or path.is_dir() or is_hub_name(data)


def is_hub_name(data: str | Path) -> bool:
    """Whether this reads like ``owner/name`` or ``owner/name:config`` and is nothing here."""
    name = str(data)
    return bool(re.fullmatch(r"[\w.-]+/[\w-]+(:[\w.-]+)?", name)) and not Path(name).exists()


def _split_file(folder: Path, split: str) -> Path | None:
    names = [f"{name}{end}" for name in SPLITS[split] for end in FORMATS]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def has_split(data: str | Path, split: str) -> bool:
    """Whether a folder or a data set of the hub has rows of this split; a file has none.

    Args:
        split: of :data:`SPLITS`.
    """
    path = Path(data)
    if path.is_dir() and any(_split_file(path, name) for name in SPLITS):
        return _split_file(path, split) is not None
    if not (path.is_dir() or is_hub_name(data)):
        return False
    try:
        return next(read_rows(data, split), None) is not None
    except UserError:
        return False


def read_rows(data: str | Path, split: str = "train") -> Iterator[Row]:
    """The rows of a file, of a folder's file of this split, or of a data set.

    Args:
        split: of :data:`SPLITS`.

    Raises:
        UserError: there is nothing that can be read.
    """
    path = Path(data)
    if path.is_dir():
        file = _split_file(path, split)
        if file is None:
            return _folder_rows(path, split)
        path = file
    elif is_hub_name(data):
        name, _, config = str(data).partition(":")
        return hub_rows(name, config or None, split)
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: give a folder, or a file ending in one of {', '.join(FORMATS)}")
    return FORMATS[path.suffix](path)


def _folder_rows(path: Path, split: str) -> Iterator[Row]:
    if not any(path.iterdir()):
        raise UserError(f"{path} is a directory: it is empty; give a file")
    import datasets  # seconds to import, and files need none of it

    saved = any((path / name).is_file() for name in ("dataset_dict.json", "dataset_info.json"))
    try:
        found = datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(str(path))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"{path} is a directory: it holds no {split}.csv, .jsonl, ..., and nothing that the "
            f"package datasets loads ({reason})"
        ) from error
    return _split_rows(found, str(path), split)


def hub_rows(name: str, config: str | None, split: str) -> Iterator[Row]:
    """One split of a data set of the hub.

    Raises:
        UserError: it cannot be had, or has no such split.
    """
    return _split_rows(from_hub(name, config), name, split)


def from_hub(name: str, config: str | None, split: str | None = None) -> Any:
    """A data set of the hub, or one split of it.

    Raises:
        UserError: it cannot be had.
    """
    import datasets  # seconds to import, and files need none of it

    try:
        return datasets.load_dataset(name, config, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"{name} is neither a file or folder here nor to be had from the hub ({reason})"
        ) from error


def _split_rows(found: Any, name: str, split: str) -> Iterator[Row]:
    if isinstance(found, dict):
        key = next((key for key in SPLITS[split] if key in found), None)
        if key is None:
            raise UserError(f"{name} has no split {split}: it has {', '.join(found)}")
        found, name = found[key], f"{name}, {key}"
    return ((_filled(row), f"{name} row {number}") for number, row in enumerate(found, start=1))
