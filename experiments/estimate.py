"""What runs will take: from finished ones where there are any, else from assumptions, said so."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.checked_yaml import shown
from experiments.results import LARGEST, read_result
from experiments.scales import sizes
from experiments.spec import Run
from prefix_tuning.errors import UserError

WHOLE = ("finetune", "finetune-top", "bothtune")
"""Tuning modes whose runs keep the whole model."""


def n_steps(run: Run) -> int | None:
    """Training steps of a run; None where the size of its data set is not known."""
    flags = run.settings["flags"]
    if flags.get("do_train") == "no":
        return 0
    if "max_steps" in flags:
        return int(_flag(run, "max_steps", 0))
    pairs = sizes().get(run.experiment.launcher.dataset(flags), {}).get("pairs")
    if pairs is None:
        return None
    pairs = pairs * run.level // 100 if run.level else pairs
    launcher = run.experiment.launcher
    batch = _flag(run, launcher.batch_flag, 10) * _flag(run, "gradient_accumulation_steps", 1)
    return ceil(ceil(pairs / max(batch, 1)) * _flag(run, launcher.epoch_flag, 5))


def _flag(run: Run, name: str, default: int) -> float:
    value = run.settings["flags"].get(name, default)
    if isinstance(value, str | bool) or not abs(value) < LARGEST:
        where = f"{run.experiment.name}.yaml, row {run.row.name}"
        raise UserError(f"{where}, flag {name}: expected a number, found {shown(value)}")
    return value


def n_inputs(run: Run) -> int | None:
    """Texts that are decoded, or evaluated on, in all splits together."""
    limit, flags = run.settings["inputs"], run.settings["flags"]
    if "eval_fraction" in flags and "train_size" in flags:
        return round(_flag(run, "eval_fraction", 0) * _flag(run, "train_size", 0))
    name = run.experiment.launcher.dataset(flags)
    known = sizes().get(name, {}).get("inputs", limit)
    if known is None:
        return None
    return len(run.experiment.splits) * min(known, known if limit is None else limit)


def finished(results: Path) -> list[dict[str, Any]]:
    """All results of a scale that were not interrupted, whatever their table."""
    paths = results.glob("*/*/seed*.json")
    found = [read_result(path) for path in paths if not path.name.endswith(".failed.json")]
    return [result for result in found if not result["resumed"]]


class Estimate:
    """Seconds and megabytes of runs.

    Args:
        results: the folder of the scale's results.
    """

    def __init__(self, results: Path) -> None:
        self.finished = finished(results)
        self.sources: dict[str, None] = {}

    def _per(self, run: Run, what: str, part: str) -> float:
        """Mean over finished runs of the same launcher and tuning mode, or what is assumed."""
        values = [v for result in self.finished if (v := self._measured(run, result, part))]
        launcher = run.experiment.launcher.name
        if values:
            self.sources[f"{what} of {launcher} as measured in finished runs"] = None
            return mean(values)
        keeps_model = run.settings["flags"].get("tuning_mode") in WHOLE
        part = "whole" if part == "mb" and keeps_model else part
        value = run.scale.launchers[launcher]["assumed"][part]
        self.sources[f"{value} {what} of {launcher} assumed, not measured"] = None
        return value

    @staticmethod
    def _measured(run: Run, result: dict[str, Any], part: str) -> float | None:
        flags, mine = result["settings"]["flags"], run.settings["flags"]
        same = ("mode", "task_name", "tuning_mode")
        if any(flags.get(name) != mine.get(name) for name in same):
            return None
        if part == "mb":
            return result.get("disk_mb")
        if part == "step":
            return (
                result["seconds"].get("train", 0.0) / result["steps"] if result["steps"] else None
            )
        decoding = [s for name, s in result["seconds"].items() if name != "train"]
        return sum(decoding) / result["n_inputs"] if decoding and result["n_inputs"] else None

    def seconds(self, run: Run) -> float | None:
        """Seconds of a whole run; None where its size is not known."""
        steps, texts = n_steps(run), n_inputs(run)
        if steps is None or texts is None:
            return None
        result = steps * self._per(run, "s a step", "step")
        if run.experiment.launcher.decodes_apart:  # the others decode in the same step
            result += texts * self._per(run, "s a text", "text")
        elif steps == 0:
            result = texts * run.scale.launchers[run.experiment.launcher.name]["assumed"]["text"]
        return result

    def lines(self, runs: Sequence[Run], jobs: int) -> list[str]:
        """The sum over ``runs``, ``jobs`` at a time, and what it rests on."""
        times = [self.seconds(run) for run in runs]
        known = [seconds for seconds in times if seconds is not None]
        disk = sum(self._per(run, "MB a run", "mb") for run in runs)
        result = [f"about {duration(sum(known) / jobs)} and {disk / 1000:.1f} GB"]
        if len(known) < len(times):
            result[0] += f", and {len(times) - len(known)} runs on data of unknown size"
        return result + [f"  {source}" for source in self.sources]


def duration(seconds: float) -> str:
    """``90 -> "2 minutes"``."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{0 if unit == 'minutes' else 1}f} {unit}"
    return f"{seconds:.0f} seconds"
