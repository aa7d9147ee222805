"""The files that tables are made of, checked when they are read: results, failures, papers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object

Check = Callable[[Any], bool]
LARGEST = 10**18
"""No time, size or score is as large."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < LARGEST  # not a number is not smaller either


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST


def _is_duration(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _all(check: Check) -> Check:
    """An object whose values all pass."""
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _has(fields: dict[str, Check]) -> Check:
    """An object with these fields at least."""
    return lambda value: (
        isinstance(value, dict)
        and all(name in value and check(value[name]) for name, check in fields.items())
    )


def _list(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


Field = tuple[Check, str]
_SCORES: Field = (_all(_all(_or_none(_is_number))), "finite numbers, or null, of every split")
_COUNT: Field = (_or_none(_is_count), "a count, or null")
_TEXT: Field = (_is_text, "a text")
_OBJECT = _all(lambda value: True)

RESULT: dict[str, Field] = {
    "settings": (
        lambda value: _has({"flags": _OBJECT})(value) and _OBJECT(value.get("decoding", {})),
        "an object with flags, and any decoding an object",
    ),
    "scores": _SCORES,
    "missing": (_all(_all(_is_text)), "reasons of every split"),
    "seconds": (_all(_is_duration), "finite numbers by step, from 0"),
    "resumed": (lambda value: isinstance(value, bool), "true or false"),
    "steps": _COUNT,
    "n_inputs": _COUNT,
    "device": _TEXT,
    "versions": (_has({"torch": _is_text}), "an object with the version of torch"),
}
"""What every result has at least."""
MORE: dict[str, Field] = {
    "model": _TEXT,
    "parameters": (_all(_is_count), "counts"),
    "disk_mb": (_is_duration, "a finite number from 0"),
    "level": _COUNT,
}
"""What it may have besides."""
_LOCAL_PATH = re.compile(r"""(^|[\s=:"'])(/|~/|[A-Za-z]:\\)\w""")


def _shows_no_path(value: Any) -> bool:
    """Whether no text in it has a path of one machine."""
    if isinstance(value, dict):
        return all(map(_shows_no_path, [*value, *value.values()]))
    if isinstance(value, list):
        return all(map(_shows_no_path, value))
    return not isinstance(value, str) or not _LOCAL_PATH.search(value)


def _matches(pattern: str) -> Check:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


_DIGEST = _matches("[0-9a-f]{64}")
_OPTIONAL = ("parameters", "disk_mb", "peak_memory", "outputs")
PUBLISHED: dict[str, Field] = {
    **RESULT,
    **MORE,
    "table": _TEXT,
    "row": _TEXT,
    "scale": _TEXT,
    "seed": (_is_count, "a count"),
    "subset": _COUNT,
    "command": (_matches(r"\./scripts/reproduce\.sh .+"), "./scripts/reproduce.sh and its words"),
    "machine": (_matches(r"\S.*"), "a kind of processor, and how many cores"),
    "commit": (_matches("[0-9a-f]{40}(-dirty)?|unknown"), "40 hexadecimal digits, or unknown"),
    "data_sha256": (_all(_DIGEST), "a SHA-256 of every file or folder of data"),
    "scorer_sha256": (_DIGEST, "a SHA-256"),
    "scorer_versions": (_all(_is_text), "versions of packages"),
    "peak_memory": (_all(_is_duration), "finite numbers from 0"),
    "outputs": (_all(_list(_is_text)), "texts of every split"),
}
"""What a published run says: a result, and all that somebody else needs to get it again."""
_VALUES = _all(_or_none(_is_number))
_ENTRY = _has({"row": _is_text, "model": _is_text, "source": _is_text, "values": _VALUES})
PAPER: dict[str, Field] = {
    "title": _TEXT,
    "columns": (_list(_has({"name": _is_text, "decimals": _is_count})), "names and decimals"),
    "entries": (_list(_ENTRY), "objects with row, model, source and finite values"),
}


def _check(path: Path, found: dict[str, Any], fields: dict[str, Field], mend: str) -> None:
    for name, (check, expected) in fields.items():
        if not check(found[name]):
            raise UserError(f"{path}, field {name}: expected {expected}: {mend}")


def read_result(path: Path) -> dict[str, Any]:
    """What a finished run left.

    Raises:
        UserError: the file is damaged, or a score is not a finite number.
    """
    result = read_json_object(path)
    mend = "remove it, and reproduce.sh makes it again"
    if absent := RESULT.keys() - result.keys():
        raise UserError(f"{path} has no {min(absent)}: {mend}")
    _check(path, result, RESULT | {k: v for k, v in MORE.items() if k in result}, mend)
    return result


def check_published(path: Path, run: dict[str, Any]) -> dict[str, Any]:
    """The content of ``path``, as ``results/published/README.md`` describes it.

    Raises:
        UserError: a field is missing, unknown, of another kind, or shows a path of a machine.
    """
    mend = "see results/published/README.md"
    for name in (*PUBLISHED, *run):
        if name not in run and name not in _OPTIONAL:
            raise UserError(f"{path} has no {name}: {mend}")
        if name not in PUBLISHED:
            raise UserError(f"{path}, field {name}: there is no such field: {mend}")
        if name != "outputs" and not _shows_no_path(run.get(name)):
            raise UserError(f"{path}, field {name}: holds a path of your machine: take it out")
    _check(path, run, {name: field for name, field in PUBLISHED.items() if name in run}, mend)
    return run


def read_failure(path: Path) -> str:
    """Why a run failed.

    Raises:
        UserError: the file is damaged.
    """
    why = read_json_object(path).get("reason")
    if not isinstance(why, str):
        raise UserError(f"{path} says no reason: remove it, and reproduce.sh tries the run again")
    return why


def read_paper(path: Path) -> dict[str, Any]:
    """A table of a paper, as ``data/paper_results/README.md`` describes it.

    Raises:
        UserError: the file has another shape.
    """
    paper = read_json_object(path)
    mend = "see data/paper_results/README.md"
    if absent := PAPER.keys() - paper.keys():
        raise UserError(f"{path} has no {min(absent)}: {mend}")
    _check(path, paper, PAPER, mend)
    return paper


def check_named(table: str, rows: Mapping[str, Mapping[str, str] | None], paper: Any) -> None:
    """Refuse rows that are held against a row that a paper's numbers do not have.

    Args:
        rows: row of ours -> ``row`` and ``model`` of theirs; None where it has none.

    Raises:
        UserError: one does; the message names those that there are.
    """
    found = [(e.get("of", e["row"]), e["model"]) for e in paper["entries"]]
    for name, theirs in rows.items():
        if theirs and found and (theirs["row"], theirs["model"]) not in found:
            known = "; ".join(dict.fromkeys(f"{row}, {model}" for row, model in found))
            raise UserError(
                f"{table}.yaml, row {name}, field paper_row: the paper has no {theirs['row']}, "
                f"{theirs['model']}; it has {known}"
            )
