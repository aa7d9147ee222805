"""The files in ``experiments/tables/``: read, checked strictly, and spread out into single runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from experiments import scales
from experiments.checked_yaml import Checker, check_flags, load
from experiments.launchers import LAUNCHERS, Launcher
from experiments.launchers.base import SPLITS
from experiments.scales import Scale
from prefix_tuning.errors import UserError

FOLDER = Path(__file__).resolve().parent / "tables"
KINDS = ("line", "bars", "points")
AXES = {
    "preseqlen": "prefix length",
    "size": "training examples",
    "level": "training data (%)",
    "trained": "trained parameters",
    "stored": "parameters kept for the task",
}
"""What a figure may have from left to right -> what is written below it."""
UNSAFE = re.compile(r"[^\w.=+-]")
NO_FOLDER = ("", ".", "..")

Flags = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A row of a table: what is trained, and the row of the paper it is held against."""

    name: str
    flags: Flags
    paper_row: dict[str, str] | None = None
    """``row``, ``model`` and perhaps ``columns``, the words its columns begin with."""
    seeds: tuple[int, ...] | None = None
    assumed: str = ""
    decoding: Flags = field(default_factory=dict)

    @property
    def columns(self) -> str:
        return (self.paper_row or {}).get("columns", "")

    @property
    def model(self) -> str | None:
        """The model in the paper's table."""
        return (self.paper_row or {}).get("model")


@dataclass(frozen=True)
class Experiment:
    """One file; ``name`` is the file's, ``table`` that of the paper's numbers."""

    name: str
    table: str
    title: str
    launcher: Launcher
    scorer: str
    common: Flags
    rows: tuple[Row, ...]
    validation: str | None = None
    seeds: tuple[int, ...] = ()
    subsets: tuple[int | None, ...] = (None,)
    levels: tuple[int | None, ...] = (None,)
    decoding: Flags = field(default_factory=dict)
    figures: tuple[dict[str, Any], ...] = ()
    scales: tuple[str, ...] | None = None
    assumed: str = ""

    def suits(self, scale: Scale) -> bool:
        """Whether the file is meant for the scale."""
        return scale.name in self.scales if self.scales else not scale.only_named

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are decoded and scored; the table's own is the first."""
        split = self.decoding.get("split", "test")
        return (split, "valid") if self.validation else (split,)


def run_name(seed: int, subset: int | None, level: int | None) -> str:
    """The name of a run among those of its row."""
    parts = {"seed": seed, "subset": subset, "level": level}
    return "_".join(f"{key}{value}" for key, value in parts.items() if value is not None)


@dataclass(frozen=True)
class Run:
    """One training: a row with one seed, of one subset or level."""

    experiment: Experiment
    row: Row
    scale: Scale
    seed: int
    settings: dict[str, Any]
    """What decides the scores: ``flags``, ``decoding``, ``inputs``, ``model``, ``data``."""
    subset: int | None = None
    level: int | None = None

    @property
    def name(self) -> str:
        return run_name(self.seed, self.subset, self.level)

    @property
    def folder(self) -> Path:
        """Below ``results/``; the run's files are in it, its result beside it."""
        row = UNSAFE.sub("_", self.row.name)
        return Path(self.scale.name, self.experiment.name, row, self.name)


_FIELDS = (
    "table title launcher scorer common rows validation seeds subsets levels decoding figures "
    "scales assumed"
).split()


def read(name: str, folder: Path = FOLDER) -> Experiment:
    """Read ``<folder>/<name>.yaml``.

    Raises:
        UserError: there is none, or it is not as ``experiments/README.md`` says; names file, row
            and field.
    """
    path = folder / f"{name}.yaml"
    if name not in names(folder):
        raise UserError(f"TABLE {name}: there are {', '.join(names(folder))}, and all")
    data = Checker(path.name, load(path), _FIELDS)
    launcher = LAUNCHERS[data.one_of("launcher", list(LAUNCHERS))]
    switches = launcher.has_switches
    scorer = data.one_of("scorer", launcher.scorers)
    common = check_flags(f"{path.name}, common", data.take("common", dict), switches)
    rows = tuple(_row(path.name, row, switches) for row in data.take("rows", list))
    experiment = Experiment(
        name=name,
        table=data.take("table", str),
        title=data.take("title", str),
        launcher=launcher,
        scorer=scorer,
        common=common,
        rows=rows,
        validation=data.take("validation", str, None),
        seeds=data.many("seeds", int) or (),
        subsets=data.many("subsets", int) or (None,),
        levels=data.many("levels", int) or (None,),
        decoding=check_flags(f"{path.name}, decoding", data.take("decoding", dict, {}), switches),
        figures=tuple(_figure(path.name, f, rows) for f in data.take("figures", list, [])),
        scales=data.many("scales", str),
        assumed=data.take("assumed", str, ""),
    )
    _check(path.name, experiment)
    return experiment


def _row(file: str, value: Any, switches: bool) -> Row:
    name = value.get("name") if isinstance(value, dict) else None
    where = f"{file}, row {name}" if isinstance(name, str) else f"{file}, a row"
    data = Checker(where, value, ("name", "flags", "paper_row", "seeds", "assumed", "decoding"))
    paper_row = data.take("paper_row", dict, None)
    if paper_row is not None:
        paper = Checker(f"{where}, paper_row", paper_row, ("row", "model", "columns"))
        for field_name in ("row", "model"):
            paper.take(field_name, str)
        paper.take("columns", str, "")
    return Row(
        name=data.take("name", str),
        flags=check_flags(where, data.take("flags", dict), switches),
        paper_row=paper_row,
        seeds=data.many("seeds", int),
        assumed=data.take("assumed", str, ""),
        decoding=check_flags(f"{where}, decoding", data.take("decoding", dict, {}), switches),
    )


def _figure(file: str, value: Any, rows: Sequence[Row]) -> dict[str, Any]:
    name = " ".join(str(value.get("name")).split()) if isinstance(value, dict) else None
    data = Checker(f"{file}, figure {name}", value, ("name", "kind", "x", "y", "rows"))
    kind = data.one_of("kind", KINDS)
    if UNSAFE.search(data.take("name", str)) or name in NO_FOLDER:
        raise UserError(f"{data.where}, field name: no name of a file")
    chosen = data.many("rows", str) or tuple(row.name for row in rows)
    if unknown := {*chosen} - {row.name for row in rows}:
        raise UserError(f"{data.where}, field rows: no row {', '.join(sorted(unknown))}")
    return {
        "name": data.take("name", str),
        "kind": kind,
        "x": None if kind == "bars" else data.one_of("x", [*AXES]),
        "y": data.many("y", str) or ("BLEU",),
        "rows": chosen,
    }


def _check(file: str, experiment: Experiment) -> None:
    if not experiment.rows:
        raise UserError(f"{file}, field rows: there is none")
    folders: dict[str, str] = {}
    for row in experiment.rows:
        where = f"{file}, row {row.name}"
        folder = UNSAFE.sub("_", row.name)
        if folder in NO_FOLDER:
            raise UserError(f"{where}: a name that no folder can have; give it another")
        if folder in folders:
            raise UserError(f"{where}: another row has that name ({folders[folder]})")
        folders[folder] = row.name
        seeds, flags = row.seeds or experiment.seeds, experiment.common | row.flags
        if bool(seeds) == ("seed" in flags):
            raise UserError(f"{where}: give either seeds or the flag seed")
        for key in ("subset", "level"):
            has = any(isinstance(v, str) and f"{{{key}}}" in v for v in flags.values())
            if has != (getattr(experiment, f"{key}s") != (None,)):
                raise UserError(f"{where}: the field {key}s and {{{key}}} in the notes go together")
        experiment.launcher.check_dataset(where, flags)
        if "split" in row.decoding:
            raise UserError(f"{where}, field decoding: the split is the table's; give it there")
    if experiment.splits[0] not in SPLITS:
        raise UserError(f"{file}, field decoding: split is one of {', '.join(SPLITS)}")
    if {*(experiment.scales or ())} - {*scales.read()}:
        raise UserError(f"{file}, field scales: there are {', '.join(scales.read())}")


def names(folder: Path = FOLDER) -> list[str]:
    """All tables that there are files of."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def chosen(table: str, scale: Scale) -> list[Experiment]:
    """The experiments that TABLE names with commas, or all that are meant for the scale."""
    if table != "all":
        return [read(name) for name in dict.fromkeys(table.split(","))]
    return [e for e in map(read, names()) if e.suits(scale)]


@dataclass(frozen=True)
class Overrides:
    """What the command line says about all runs; None keeps what the files say."""

    model: str | None = None
    data_dir: str | None = None
    steps: int | None = None
    inputs: int | None = None
    seeds: tuple[int, ...] | None = None


def expand(
    experiment: Experiment,
    scale: Scale,
    overrides: Overrides | None = None,
    rows: Sequence[str] = (),
) -> list[Run]:
    """All runs of an experiment at a scale, or of some of its rows.

    Raises:
        UserError: a row is not in the file, or it or the experiment is not meant for the scale.
    """
    overrides = overrides or Overrides()
    if unknown := [name for name in rows if name not in {row.name for row in experiment.rows}]:
        has = ", ".join(row.name for row in experiment.rows)
        raise UserError(f"ROW {unknown[0]}: {experiment.name}.yaml has {has}")
    for row in experiment.rows:
        if row.name in rows and row.model in scale.skip_models:
            raise UserError(
                f"ROW {row.name}: left out at --scale {scale.name}, it is of {row.model}"
            )
    if not experiment.suits(scale):
        of_all = [name for name, other in scales.read().items() if not other.only_named]
        wanted = " or ".join(experiment.scales or of_all)
        raise UserError(f"--scale {scale.name}: {experiment.name}.yaml is meant for {wanted}")
    runs = []
    for row in experiment.rows:
        if (rows and row.name not in rows) or row.model in scale.skip_models:
            continue
        fixed = (experiment.common | row.flags).get("seed")
        own = row.seeds or experiment.seeds
        seeds = (fixed,) if fixed is not None else overrides.seeds or own[: scale.repeats]
        runs += [
            _make_run(Run(experiment, row, scale, seed, {}, subset, level), overrides)
            for seed in seeds
            for subset in experiment.subsets[: scale.repeats]
            for level in experiment.levels
        ]
    return runs


def _make_run(run: Run, overrides: Overrides) -> Run:
    changes = run.scale.launchers.get(run.experiment.launcher.name, {})
    places = {"{subset}": run.subset, "{level}": run.level}
    flags: Flags = {"seed": run.seed, **run.experiment.common, **run.row.flags}
    for name in changes.get("drop", ()):
        flags.pop(name, None)
    flags |= changes.get("flags", {})
    flags |= changes.get("modes", {}).get(flags.get("tuning_mode"), {})
    if overrides.steps is not None:
        flags["max_steps"] = overrides.steps
    for name, value in flags.items():
        for place, number in places.items():
            if isinstance(value, str) and place in value:
                flags[name] = value = value.replace(place, str(number))
    settings = {
        "flags": flags,
        "decoding": run.experiment.decoding | run.row.decoding | changes.get("decoding", {}),
        "inputs": changes.get("inputs") if overrides.inputs is None else overrides.inputs,
        "model": overrides.model or changes.get("model"),
        "data": overrides.data_dir or changes.get("data"),
    }
    return replace(run, settings=settings)
