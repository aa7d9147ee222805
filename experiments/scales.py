"""``experiments/scales.yaml``: how large the runs of a table are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from experiments.checked_yaml import Checker, check_flags, load
from experiments.launchers import LAUNCHERS
from prefix_tuning.errors import UserError

SCALES = Path(__file__).resolve().parent / "scales.yaml"
ASSUMED = ("step", "text", "mb", "whole")
_FIELDS = ("title", "launchers", "skip_models", "repeats", "only_named")
_CHANGES = ("model", "data", "inputs", "flags", "modes", "drop", "decoding", "assumed")


@dataclass(frozen=True)
class Scale:
    """How large the runs are; ``launchers`` has the changes for each launcher."""

    name: str
    title: str
    launchers: dict[str, dict[str, Any]]
    skip_models: tuple[str, ...] = ()
    repeats: int | None = None
    """The most seeds, and the most subsets, of a row."""
    only_named: bool = False
    """Whether a table has to name the scale to be meant for it."""


def read() -> dict[str, Scale]:
    """Name -> scale, of ``experiments/scales.yaml``."""
    file = SCALES.name
    data = Checker(file, load(SCALES), ("scales", "sizes"))
    result = {}
    for name, value in data.take("scales", dict).items():
        where = f"{file}, {name}"
        scale = Checker(where, value, _FIELDS)
        launchers = scale.take("launchers", dict)
        for launcher, changes in launchers.items():
            if launcher not in LAUNCHERS:
                raise UserError(f"{where}, field launchers: no launcher {launcher}")
            switches = LAUNCHERS[launcher].has_switches
            each = Checker(f"{where}, {launcher}", changes, _CHANGES)
            each.take("inputs", int, None)
            for flags in (each.take("flags", dict, {}), *each.take("modes", dict, {}).values()):
                check_flags(f"{where}, {launcher}", flags, switches)
            assumed = Checker(f"{where}, {launcher}, assumed", each.take("assumed", dict), ASSUMED)
            for key in ASSUMED:
                assumed.take(key, (int, float))
        skipped = scale.many("skip_models", str) or ()
        repeats = scale.take("repeats", int, None)
        only_named = scale.take("only_named", bool, False)
        title = scale.take("title", str)
        result[name] = Scale(name, title, launchers, skipped, repeats, only_named)
    return result


def named(name: str) -> Scale:
    """The scale that ``--scale`` names.

    Raises:
        UserError: there is none of that name.
    """
    known = read()
    if name not in known:
        raise UserError(f"--scale {name}: there are {', '.join(known)}")
    return known[name]


@cache
def sizes() -> dict[str, dict[str, int]]:
    """Training ``pairs`` and test ``inputs`` of the data sets whose sizes are known."""
    return load(SCALES)["sizes"]
