"""The figures of an experiment's file, drawn from its results as the paper draws them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.model import Cell
from experiments.scales import Scale
from experiments.spec import AXES, Experiment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Results = dict[str, list[dict[str, Any]]]
"""Row -> results of its runs."""
Point = tuple[float, float, float]
"""x, the mean of the scores there, and half its 95 % interval (0 of a single run)."""

METHODS = {
    "prefixtune": "prefix-tuning",
    "finetune": "fine-tuning",
    "finetune-top": "top layers",
    "adaptertune": "adapters",
}


def x_of(axis: str, result: dict[str, Any]) -> float | None:
    """Where a result stands on one of :data:`AXES`; None if it does not say."""
    flags = result["settings"]["flags"]
    if axis == "size":
        found = re.fullmatch(r"lowdata_\d+_(\d+)", str(flags.get("notes")))
        return float(found[1]) if found else None
    if axis in ("trained", "stored"):  # of a baseline, all that is trained is kept
        sizes = result.get("parameters", {})
        size = sizes.get(axis, sizes.get("trained"))
        return None if size is None else float(size)
    value = result.get("level") if axis == "level" else flags.get(axis)
    return float(value) if isinstance(value, int | float) else None


def points(axis: str, column: str, split: str, results: Sequence[dict[str, Any]]) -> list[Point]:
    """Mean and interval of a column at every place of the axis, in order."""
    at: dict[float, list[float]] = {}
    for result in results:
        value = result["scores"].get(split, {}).get(column)
        x = x_of(axis, result)
        if value is not None and x is not None:
            at.setdefault(x, []).append(value)
    return [(x, *_mean(values)) for x, values in sorted(at.items())]


def _mean(values: Sequence[float]) -> tuple[float, float]:
    cell = Cell.of(values)
    assert cell.value is not None
    return cell.value, cell.interval or 0.0


def series(figure: dict[str, Any], results: Results) -> Results:
    """The results that a figure shows, one series for each tuning mode."""
    grouped: Results = {}
    for row in figure["rows"]:
        for result in results[row]:
            mode = str(result["settings"]["flags"].get("tuning_mode"))
            grouped.setdefault(METHODS.get(mode, mode), []).append(result)
    return grouped


def _apart(places: Sequence[float]) -> list[float]:
    """Those of ``places`` whose numbers do not overlap on the axis."""
    apart: list[float] = []
    for x in places:
        if not apart or x - apart[-1] >= (places[-1] - places[0]) / 20:
            apart.append(x)
    return apart


def _line(axes: Axes, figure: dict[str, Any], column: str, split: str, results: Results) -> bool:
    places: set[float] = set()
    for label, of_series in series(figure, results).items():
        if found := points(figure["x"], column, split, of_series):
            x, y, interval = zip(*found, strict=True)
            axes.errorbar(x, y, yerr=interval, marker="o", capsize=3, label=label)
            places.update(x)
    if figure["x"] == "size":
        axes.set_xscale("log")
    if places:
        ticks = _apart(sorted(places))
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
        axes.legend()
    return bool(places)


def _points(axes: Axes, figure: dict[str, Any], column: str, split: str, results: Results) -> bool:
    from matplotlib.ticker import EngFormatter, LogLocator

    drawn = False
    for row in figure["rows"]:
        known = [result for result in results[row] if "trained" in result.get("parameters", {})]
        for x, y, interval in points(figure["x"], column, split, known):
            axes.errorbar([x], [y], yerr=[interval], fmt="o", capsize=3, label=row)
            drawn = True
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.minorticks_off()
    if drawn:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return drawn


def _bars(axes: Axes, figure: dict[str, Any], column: str, split: str, results: Results) -> bool:
    bars = {}
    for row in figure["rows"]:
        values = [r["scores"].get(split, {}).get(column) for r in results[row]]
        numbers = [value for value in values if value is not None]
        if numbers:
            bars[row] = _mean(numbers)
    if bars:
        heights, intervals = zip(*bars.values(), strict=True)
        axes.bar(list(bars), heights, yerr=intervals, capsize=3)  # from 0: their lengths compare
        axes.tick_params(axis="x", rotation=60)
    return bool(bars)


DRAW: dict[str, Callable[[Axes, dict[str, Any], str, str, Results], bool]] = {
    "line": _line,
    "points": _points,
    "bars": _bars,
}


def draw(
    experiment: Experiment, figure: dict[str, Any], scale: Scale, results: Results, path: Path
) -> bool:
    """Draw a figure, one panel for each of its columns; return whether there was anything to draw.

    Args:
        figure: of the experiment's file.
        results: row -> results.
        path: of the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = figure["y"]
    size = (4.6 * max(len(columns), 1) + 0.6, 4)
    drawing, panels = pyplot.subplots(1, len(columns), figsize=size, layout="constrained")
    drawn = False
    for axes, column in zip([panels] if len(columns) == 1 else panels, columns, strict=True):
        drawn |= DRAW[figure["kind"]](axes, figure, column, experiment.splits[0], results)
        axes.set_ylabel(column)
        if figure["x"]:
            axes.set_xlabel(AXES[figure["x"]])
    title = f"{experiment.title}\n{scale.title}\nmean and its 95 % interval"
    drawing.suptitle(title, fontsize=9)
    if drawn:
        drawing.savefig(path, dpi=120)
    pyplot.close(drawing)
    return drawn


def draw_all(experiment: Experiment, scale: Scale, results: Results, folder: Path) -> list[str]:
    """Draw all figures of an experiment into ``folder``; return their file names."""
    names = []
    for figure in experiment.figures:
        path = folder / f"{figure['name']}.png"
        if draw(experiment, figure, scale, results, path):
            names.append(path.name)
    return names
