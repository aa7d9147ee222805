"""Print a table of results beside the papers' numbers, and write it in four formats.

    ./scripts/table.sh e2e --scale paper

writes ``table.md``, ``.tex``, ``.csv`` and ``.html`` into ``results/<scale>/<table>/``, the same of
the development set as ``validation.*`` where the papers have one, and the figures of the table.
Nothing is trained or decoded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import figures, formats, published, scales, spec
from experiments.estimate import duration
from experiments.model import Cell, Line, RunOf, Table
from experiments.results import check_named, read_failure, read_paper, read_result
from experiments.scales import Scale
from experiments.spec import UNSAFE, Experiment, Row
from prefix_tuning.errors import run_command
from prefix_tuning.files import write_text

PAPERS = ROOT / "data" / "paper_results"


@dataclass
class Runs:
    """What there is of a row: results, reasons of failed runs, names of those never finished."""

    results: list[dict[str, Any]]
    names: list[str]
    failed: dict[str, str]
    missing: list[str]
    notes: list[str] = field(default_factory=list)
    """Which results are published ones, and which of these have other settings."""


def read_runs(experiment: Experiment, scale: Scale, results: Path) -> dict[str, Runs]:
    """Row -> its runs, from the files below ``results``, published ones included."""
    others = published.read(experiment, scale.name, results)
    expected: dict[str, list[str]] = {row.name: [] for row in experiment.rows}
    for run in spec.expand(experiment, scale):
        expected[run.row.name].append(run.name)
    found = {}
    for row in experiment.rows:
        folder = results / scale.name / experiment.name / UNSAFE.sub("_", row.name)
        paths = sorted(folder.glob("seed*.json"))
        failures = [path for path in paths if path.name.endswith(".failed.json")]
        done = [path for path in paths if path not in failures]
        own = {path.stem: read_result(path) for path in done}
        all_runs, notes = published.join(own, others[row.name])
        failed = {p.name.removesuffix(".failed.json"): read_failure(p) for p in failures}
        failed = {name: why for name, why in failed.items() if name not in all_runs}
        finished = {*all_runs}
        # Seeds of the command line's choice stand for the experiment's.
        other = (finished | {*failed}) - {*expected[row.name]}
        missing = [n for n in expected[row.name] if n not in finished and n not in failed]
        if other and not finished & {*expected[row.name]}:
            missing = []
        found[row.name] = Runs([*all_runs.values()], [*all_runs], failed, missing, notes)
    return found


def our_cell(runs: Runs, split: str, column: str) -> Cell:
    """Mean, spread and interval of a column over the runs of a row."""
    values = [r["scores"].get(split, {}).get(column) for r in runs.results]
    numbers = [value for value in values if value is not None]
    if numbers:
        cell = Cell.of(numbers)
        cell.runs = [
            RunOf(name, value, result.get("command", ""))
            for name, result, value in zip(runs.names, runs.results, values, strict=True)
            if value is not None
        ]
        return cell
    for result in runs.results:
        reasons = result["missing"].get(split, {})
        return Cell(why=reasons.get(column) or reasons.get("") or "not among this row's scores")
    if runs.failed:
        return Cell(why="failed: " + next(iter(runs.failed.values())))
    return Cell(why="not run yet")


def difference(ours: Cell, theirs: Cell) -> Cell:
    """Ours minus the paper's."""
    if ours.value is None or theirs.value is None:
        return Cell(why=ours.why or theirs.why)
    return Cell(ours.value - theirs.value)


def paper_cells(entry: dict[str, Any], columns: Sequence[str]) -> dict[str, Cell]:
    values = {column: entry["values"].get(column) for column in columns}
    return {c: Cell(v, why="" if v is not None else "not reported") for c, v in values.items()}


def _groups(experiment: Experiment) -> dict[tuple[str, str], list[Row]]:
    """Rows that are one line: of the same row of the paper, each with columns of its own."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in experiment.rows:
        paper = row.paper_row
        key = (paper["row"], paper["model"]) if paper and row.columns else (row.name, "")
        groups.setdefault(key, []).append(row)
    return groups


def build(experiment: Experiment, scale: Scale, results: Path, validation: bool = False) -> Table:
    """Our results below ``results`` beside the papers', of the development set if asked for."""
    name = experiment.validation if validation else experiment.table
    split = "valid" if validation else experiment.splits[0]
    paper = read_paper(PAPERS / f"{name}.json")
    if not validation:
        check_named(experiment.name, {r.name: r.paper_row for r in experiment.rows}, paper)
    runs = read_runs(experiment, scale, results)
    columns = [c["name"] for c in paper["columns"] if c["name"] not in DERIVED]
    seen = [c for r in runs.values() for each in r.results for c in each["scores"].get(split, {})]
    if not columns or not paper["entries"]:
        columns = list(dict.fromkeys([*columns, *seen]))
    decimals = dict.fromkeys(columns, 2) | {"BLEU": 1, "METEOR": 1, "ROUGE-L": 1}
    decimals |= {column["name"]: column["decimals"] for column in paper["columns"]}
    title = paper["title"] if validation else experiment.title
    table = Table(experiment.name, f"{title} — {scale.title}", columns, decimals, [])
    used = set()
    for (label, model), rows in _groups(experiment).items():
        used |= _add_group(table, label, model, rows, runs, scale, split, paper["entries"])
    for entry in paper["entries"]:
        if (entry["row"], entry["model"]) not in used:
            cells = paper_cells(entry, columns)
            if any(cell.value is not None for cell in cells.values()):
                table.lines.append(Line(entry["row"], entry["model"], entry["source"], cells))
    table.notes += _costs(runs) + _run_notes(runs)
    if experiment.table in DERIVED_NOTES:
        table.notes += DERIVED_NOTES[experiment.table](experiment, runs, paper)
    table.notes += paper.get("notes", [])
    return table


def _add_group(
    table: Table,
    label: str,
    model: str,
    rows: Sequence[Row],
    runs: dict[str, Runs],
    scale: Scale,
    split: str,
    entries: Sequence[dict[str, Any]],
) -> set[tuple[str, str]]:
    """Add a line of ours, and under it the papers'; return which rows of theirs these are."""
    ours: dict[str, Cell] = {}
    for column in table.columns:
        row = next((r for r in rows if column.startswith(r.columns)), None)
        if row is None:
            ours[column] = Cell(why="no experiment of ours")
        elif row.model in scale.skip_models:
            ours[column] = Cell(why=f"left out at this scale: the row's model is {row.model}")
        else:
            ours[column] = our_cell(runs[row.name], split, column)
    models = {r["model"] for row in rows for r in runs[row.name].results if "model" in r}
    table.lines.append(Line(label, " / ".join(sorted(models)) or model, "ours", ours))
    paper_row = rows[0].paper_row
    if paper_row is None:
        return set()
    key = (paper_row["row"], paper_row["model"])
    theirs = [e for e in entries if (e.get("of", e["row"]), e["model"]) == key]
    for number, entry in enumerate(theirs):
        cells = paper_cells(entry, table.columns)
        table.lines.append(Line(entry["row"], entry["model"], entry["source"], cells))
        if number == 0:
            minus = {c: difference(ours[c], cells[c]) for c in table.columns}
            table.lines.append(Line("", "", "difference", minus))
    return {key, *((entry["row"], entry["model"]) for entry in theirs)}


def _costs(runs: dict[str, Runs]) -> list[str]:
    """What the numbers took, and on what: a line, or none without results."""
    results = [result for of_row in runs.values() for result in of_row.results]
    if not results:
        return []

    def each(values: Iterable[Any]) -> str:
        known = ("an unknown number of" if value is None else str(value) for value in values)
        return " or ".join(dict.fromkeys(known))

    seconds = sum(sum(result["seconds"].values()) for result in results)
    return [
        f"{len(results)} runs, {duration(seconds)} one after the other: "
        f"{each(r['steps'] for r in results)} steps and {each(r['n_inputs'] for r in results)} "
        f"texts decoded in each; {each(r['device'] for r in results)}; torch "
        f"{each(r['versions']['torch'] for r in results)}"
    ]


def _run_notes(runs: dict[str, Runs]) -> list[str]:
    notes = []
    for row, of_row in runs.items():
        notes += [f"{row}: {note}" for note in of_row.notes]
        notes += [f"{row}, {run}: failed: {why}" for run, why in of_row.failed.items()]
        if of_row.results and of_row.missing:
            notes.append(f"{row}: not run: {', '.join(of_row.missing)}")
    return notes


DERIVED = ("BLEU, prefix minus fine-tuning", "best prefix length")
"""Columns of the papers that are computed from several rows."""


def _published(paper: dict[str, Any], row: str, column: str) -> str:
    entry = next(e for e in paper["entries"] if e["row"] == row)
    return f"{entry['source']}: {entry['values'][column]}"


def _low_data(experiment: Experiment, runs: dict[str, Runs], paper: dict[str, Any]) -> list[str]:
    """Mean over the sizes of prefix minus fine-tuning."""
    gains = []
    for row in experiment.rows:
        method, _, size = row.name.rpartition("-")
        if method == "prefix" and f"finetune-{size}" in runs:
            pair = [
                our_cell(runs[n], experiment.splits[0], "BLEU")
                for n in (row.name, f"finetune-{size}")
            ]
            gains.append(difference(*pair).value)
    if not gains:  # rows of something else than sizes
        return []
    known = [gain for gain in gains if gain is not None]
    ours = f"{mean(known):.1f}" if known and len(known) == len(gains) else "not all sizes are run"
    theirs = _published(paper, "mean over sizes", DERIVED[0])
    return [f"{DERIVED[0]}, mean over sizes: ours {ours}; {theirs}"]


def _best_length(experiment: Experiment, runs: dict[str, Runs], paper: dict[str, Any]) -> list[str]:
    """The length with the best BLEU, or of summaries ROUGE-2."""
    column = experiment.launcher.main_column
    scores = {
        row.flags["preseqlen"]: our_cell(runs[row.name], "test", column).value
        for row in experiment.rows
    }
    known = {length: value for length, value in scores.items() if value is not None}
    ours = (
        str(max(known, key=known.__getitem__)) if len(known) == len(scores) else "not all are run"
    )
    theirs = _published(paper, {"BLEU": "DART", "ROUGE-2": "XSum"}[column], DERIVED[1])
    return [f"{DERIVED[1]} by {column}: ours {ours}; {theirs}"]


DERIVED_NOTES: dict[str, Callable[[Experiment, dict[str, Runs], dict[str, Any]], list[str]]] = {
    "low_data": _low_data,
    "prefix_length": _best_length,
}


def write(table: Table, folder: Path, stem: str) -> None:
    """Write all formats."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, render in formats.FORMATS.items():
        write_text(folder / f"{stem}.{suffix}", render(table))


def make(experiment: Experiment, scale: Scale, results: Path) -> list[Table]:
    """Build and write the tables and figures of an experiment."""
    folder = results / scale.name / experiment.name
    tables = [build(experiment, scale, results)]
    folder.mkdir(parents=True, exist_ok=True)
    runs = {name: of.results for name, of in read_runs(experiment, scale, results).items()}
    tables[0].folder = folder
    tables[0].pictures = figures.draw_all(experiment, scale, runs, folder)
    write(tables[0], folder, "table")
    if experiment.validation:
        tables.append(build(experiment, scale, results, validation=True))
        write(tables[1], folder, "validation")
    return tables


def main(argv: Sequence[str] | None = None) -> None:
    """Print and write what ``argv`` names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("table", metavar="TABLE", help=f"{', '.join(spec.names())}, or all")
    add("--scale", default="small", help="tiny, small (default), study or paper")
    add("--results_dir", type=Path, default=ROOT / "results", help="where results are kept")
    args = parser.parse_args(argv)
    scale = scales.named(args.scale)
    for experiment in spec.chosen(args.table, scale):
        for table in make(experiment, scale, args.results_dir):
            print(formats.markdown(table))
        print(f"written to {args.results_dir / args.scale / experiment.name}\n")


if __name__ == "__main__":
    run_command(main)
