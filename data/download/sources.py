"""``data/sources.json`` or a file like it: its shape, checked before anything is fetched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

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


def _name_files(value: Any) -> bool:
    """Addresses, of which the first ends in a file's name."""
    try:
        return _are_texts(value) and _is_inside(PurePosixPath(urlsplit(value[0]).path).name)
    except ValueError:
        return False


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
MAY_HAVE: Rules = {
    "note": _is_text,
    "mb": lambda value: isinstance(value, int | float),
    "archives": lambda value: True,  # looked at below
    "hub": lambda value: True,
}
_CHECKSUMS: Rules = dict.fromkeys(("sha256", "sha256_lf", "git_blob"), _is_text)
FILE: Rules = {
    "lines": _lines,
    "urls": _are_texts,
    "made_from": _are_inside,
    "made_by": lambda value: value in CONVERSIONS if isinstance(value, str) else False,
    **_CHECKSUMS,
}
ARCHIVE: Rules = {"urls": _name_files, "gives": _are_inside}
MAY_ARCHIVE: Rules = {**_CHECKSUMS, "root": lambda value: isinstance(value, str)}
HUB: Rules = {"splits": _splits, "records": _counts}
HUB["config"] = lambda value: value is None or _is_text(value)
HUB |= dict.fromkeys(("name", "source", "target"), _is_text)


def _check(where: str, value: Any, needed: Rules, optional: Rules | None = None) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object, as in data/sources.json")
    for name in needed:
        if name not in value:
            raise UserError(f"{where}: {name} is missing")
    rules = needed | (optional or {})
    if unknown := value.keys() - rules.keys():
        raise UserError(f"{where}: {min(unknown)} is no field here; there are {', '.join(rules)}")
    for name, check in rules.items():
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
        _check(where, dataset, DATASET, MAY_HAVE)
        for file, rule in dataset["files"].items():
            if not _is_inside(file):
                raise UserError(f"{where}: the file {file} is not inside its folder")
            _check(f"{where}, {file}", rule, {}, FILE)
            _check_originals(f"{where}, {file}", rule, dataset["files"])
        _check_origins(where, dataset)
    return sources


def _check_originals(where: str, rule: dict[str, Any], files: dict[str, Any]) -> None:
    originals = rule.get("made_from", [])
    if unknown := {*originals} - files.keys():
        raise UserError(f"{where}: made_from has no file {min(unknown)}")
    if ("made_from" in rule) != ("made_by" in rule):
        raise UserError(f"{where}: made_from and made_by go together")
    if originals and len(originals) != (needed := CONVERSIONS[rule["made_by"]][0]):
        raise UserError(f"{where}: {rule['made_by']} makes it from {needed}, not {len(originals)}")
    if made := [name for name in originals if "made_from" in files[name]]:
        raise UserError(f"{where}: made_from has {made[0]}, which is made itself: name its own")


def _check_origins(where: str, dataset: dict[str, Any]) -> None:
    archives = dataset.get("archives", [])
    if not isinstance(archives, list):
        raise UserError(f"{where}: archives is no list")
    for archive in archives:
        _check(f"{where}, archives", archive, ARCHIVE, MAY_ARCHIVE)
        if unknown := {*archive["gives"]} - dataset["files"].keys():
            raise UserError(f"{where}, archives: gives a file {min(unknown)} that files has not")
    if "hub" in dataset:
        hub = dataset["hub"]
        _check(f"{where}, hub", hub, HUB)
        if unknown := {*hub["splits"].values()} - hub["records"].keys():
            raise UserError(f"{where}, hub: records has no {min(unknown)}")
