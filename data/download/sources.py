"""``data/sources.json`` or a file like it: its shape, checked before anything is fetched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from data.download.convert import CONVERSIONS
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_inside(value: Any) -> bool:
    """A relative path that stays where it begins."""
    if not _is_text(value) or "\\" in value or "\0" in value:
        return False
    path = PurePosixPath(value)
    return not path.is_absolute() and ".." not in path.parts and bool(path.parts)


def _are_inside(value: Any) -> bool:
    return _are_texts(value) and all(map(_is_inside, value))


def _lines(value: Any) -> bool:
    return _is_count(value) or (
        isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))
    )


def _counts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_count, value.values()))


def _splits(value: Any) -> bool:
    names = value.items() if isinstance(value, dict) else [(None, None)]
    return all(_is_inside(ours) and _is_text(theirs) for ours, theirs in names)


Rules = dict[str, Callable[[Any], bool]]
DATASET: Rules = {
    "title": _is_text,
    "licence": _is_text,
    "folder": _is_inside,
    "files": lambda value: isinstance(value, dict) and bool(value),
}
FILE: Rules = {
    "lines": _lines,
    "urls": _are_texts,
    "made_from": _are_inside,
    "made_by": lambda value: value in CONVERSIONS if isinstance(value, str) else False,
    **dict.fromkeys(("sha256", "sha256_lf", "git_blob"), _is_text),
}
ARCHIVE: Rules = {"urls": _are_texts, "gives": _are_inside}
HUB: Rules = {"splits": _splits, "records": _counts}
HUB |= dict.fromkeys(("name", "source", "target"), _is_text)


def _check(where: str, value: Any, needed: Rules, optional: Rules | None = None) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object, as in data/sources.json")
    for name in needed:
        if name not in value:
            raise UserError(f"{where}: {name} is missing")
    for name, check in (needed | (optional or {})).items():
        if name in value and not check(value[name]):
            inside = ", inside its folder" if check in (_is_inside, _are_inside) else ""
            raise UserError(f"{where}: {name} has another form than in data/sources.json{inside}")


def read_sources(path: Path) -> dict[str, Any]:
    """The table of data sets: name -> title, licence, folder, files, where they come from.

    Raises:
        UserError: it cannot be read, is of another shape, or names a file outside of its folder.
    """
    try:
        sources = read_json_object(path)
    except UserError as error:
        raise UserError(f"--sources {path}: not readable JSON ({error})") from error
    for name, dataset in sources.items():
        where = f"--sources {path}, {name}"
        _check(where, dataset, DATASET, {"note": _is_text})
        if not isinstance(dataset.get("mb", 0), int | float):
            raise UserError(f"{where}: mb is no number")
        for file, rule in dataset["files"].items():
            if not _is_inside(file):
                raise UserError(f"{where}: the file {file} is not inside its folder")
            _check(f"{where}, {file}", rule, {}, FILE)
            if unknown := {*rule.get("made_from", [])} - dataset["files"].keys():
                raise UserError(f"{where}, {file}: made_from has no file {min(unknown)}")
            if ("made_from" in rule) != ("made_by" in rule):
                raise UserError(f"{where}, {file}: made_from and made_by go together")
        _check_origins(where, dataset)
    return sources


def _check_origins(where: str, dataset: dict[str, Any]) -> None:
    archives = dataset.get("archives", [])
    if not isinstance(archives, list):
        raise UserError(f"{where}: archives is no list")
    for archive in archives:
        _check(
            f"{where}, archives", archive, ARCHIVE, {**FILE, "root": lambda v: isinstance(v, str)}
        )
        if unknown := {*archive["gives"]} - dataset["files"].keys():
            raise UserError(f"{where}, archives: gives a file {min(unknown)} that files has not")
    if "hub" in dataset:
        hub = dataset["hub"]
        _check(f"{where}, hub", hub, HUB)
        if unknown := {*hub["splits"].values()} - hub["records"].keys():
            raise UserError(f"{where}, hub: records has no {min(unknown)}")
