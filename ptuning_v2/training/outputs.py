"""Scores and predictions on the disk: beside those of other weights or data, not over them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, write_json

SCORES = "_results.json"
_NO_SCORES = ("time", "_per_second", "epoch")
"""Ends of names of what stands beside the scores."""


@contextmanager
def drafts(folder: Path) -> Iterator[Path]:
    """A folder within ``folder`` for files that :func:`place` moves; what is left there goes."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".") as name:
        yield Path(name)


def place(drafted: Path, folder: Path, kind: str, overwrite: bool) -> Path:
    """Move files into ``folder``, or all to ``<kind>-2`` there and so on if one differs from its.

    Scores differ if a number does, other than those of time.

    Args:
        drafted: the folder of the files, from :func:`drafts`.
        kind: what they are, in the plural.
        overwrite: whether those that differ give way.

    Returns:
        where they are now.
    """
    files, target, numbers = sorted(drafted.iterdir()), folder, count(2)
    other: list[Path] = []
    while not overwrite and (found := [f for f in files if _differs(f, target / f.name)]):
        other = other or found
        target = folder / f"{kind}-{next(numbers)}"
    target.mkdir(exist_ok=True)
    for file in files:
        os.replace(file, target / file.name)
    if other:
        print(
            f"{folder / other[0].name} holds other {kind}: these go to {target.name} beside it "
            "(--overwrite_output_dir replaces them)",
            flush=True,
        )
    return target


def _differs(file: Path, other: Path) -> bool:
    if not other.is_file():
        return False
    if not file.name.endswith(SCORES):
        return other.read_bytes() != file.read_bytes()
    try:
        before, now = _scores(read_json_object(other)), _scores(read_json_object(file))
    except UserError:  # damaged, or edited: it is kept
        return True
    return before.keys() != now.keys() or not all(_equal(before[k], now[k]) for k in now)


def _scores(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v for name, v in values.items() if not name.endswith(_NO_SCORES)}


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are the same, whatever the number of threads."""
    if type(one) is not float or type(other) is not float:
        return bool(one == other)
    both_undefined = math.isnan(one) and math.isnan(other)
    return both_undefined or math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-9)


def write_scores(folder: Path, name: str, scores: Mapping[str, Any]) -> None:
    """Write ``<name>_results.json``, by the names of the scores."""
    write_json(folder / f"{name}{SCORES}", dict(sorted(scores.items())))


def add_to_all(folder: Path, scores: Mapping[str, Any]) -> None:
    """Put scores into ``all_results.json``, which repeats those of the other files."""
    known: dict[str, Any] = {}
    with suppress(UserError, OSError):  # what cannot be read is written anew
        known = read_json_object(folder / f"all{SCORES}")
    write_scores(folder, "all", {**known, **scores})
