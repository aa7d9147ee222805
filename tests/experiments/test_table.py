"""Tables and figures against arithmetic by hand, from results written by hand."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from experiments import figures, formats, scales, spec, table
from prefix_tuning.errors import UserError

SCALES = scales.read()
E2E = spec.read("e2e")


def write_result(
    folder: Path, run: str, scores: dict[str, float | None], split: str = "test", **more: Any
) -> None:
    """A result as a finished run leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "model": "gpt2-medium",
        "settings": {"flags": {"tuning_mode": "prefixtune"}},
        "scores": {split: scores},
        "missing": {split: {"METEOR": "METEOR: needs Java"}},
        "parameters": {"trained": 1000},
        "seconds": {"train": 1800.0, "test": 2700.0},
        "steps": 300,
        "n_inputs": 100,
        "device": "1 CPU thread",
        "versions": {"torch": "2.13"},
        "resumed": False,
        "level": None,
        **more,
    }
    (folder / f"{run}.json").write_text(json.dumps(result), encoding="utf-8")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three runs of prefix, one of fine-tuning, a failed one of adapters."""
    folder = tmp_path / "paper" / "e2e"
    for seed, bleu in ((101, 70.0), (22, 71.0), (9, 69.0)):
        scores = {"BLEU": bleu, "NIST": 8.8, "METEOR": None}
        write_result(folder / "prefix", f"seed{seed}", scores)
    write_result(folder / "finetune", "seed101", {"BLEU": 68.0, "NIST": 8.5, "METEOR": None})
    (folder / "adapter-3").mkdir()
    failure = {"reason": "out of memory | 5 > 4 & 3", "status": 1, "log": "log.txt"}
    path = folder / "adapter-3" / "seed101.failed.json"
    path.write_text(json.dumps(failure), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "row", "column", "file", "document", "why"),
    [
        (
            "e2e",
            "prefix",
            "CIDEr",
            "texts/run_test_beam_eval.json",
            {"E2E": {"values": {"BLEU -p": 0.5, "CIDEr": None}, "missing": {"CIDEr": "unread"}}},
            "unread",
        ),
        (
            "xsum",
            "prefix-2",
            "ROUGE-1",
            "run/test_beam_1_eval.json",
            {"scores": {"rouge1": None, "rouge2": None, "rougeL": None}, "note": "unread text"},
            "unread text",
        ),
        (
            "ptuning_superglue",
            "rte_bert",
            "RTE",
            "run/best_results.json",
            {"best_eval_accuracy": None},
            "undefined on the evaluation set",
        ),
    ],
)
def test_an_undefined_score_is_an_empty_cell_with_its_reason(
    tmp_path: Path, name: str, row: str, column: str, file: str, document: Any, why: str
) -> None:
    experiment = spec.read(name)
    (path := tmp_path / "job" / file).parent.mkdir(parents=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    columns = next(r for r in experiment.rows if r.name == row).columns
    scored = experiment.launcher.scores(experiment.scorer, columns, "test", tmp_path / "job")
    assert scored[0][column] is None
    run = spec.expand(experiment, SCALES["paper"], rows=[row])[0]
    split = experiment.splits[0]
    write_result(
        (tmp_path / run.folder).parent, run.name, scored[0], split, missing={split: scored[1]}
    )
    made = table.build(experiment, SCALES["paper"], tmp_path)
    cells = [line.cells[column] for line in made.lines if line.source == "ours"]
    assert (None, why) in [(cell.value, cell.why) for cell in cells]
    assert why in formats.markdown(made)


def lines_of(made: table.Table, row: str) -> list[table.Line]:
    """Ours of a row, and the lines below it up to the next of ours."""
    start = next(i for i, line in enumerate(made.lines) if line.row == row)
    rest = made.lines[start + 1 :]
    end = next((i for i, line in enumerate(rest) if line.source == "ours"), len(rest))
    return [made.lines[start], *rest[:end]]


def test_mean_spread_and_difference(results: Path) -> None:
    """69, 70 and 71: mean 70, squares of deviations 2 over 2. The paper has 70.3."""
    made = table.build(E2E, SCALES["paper"], results)
    ours, paper, difference, other, *_others = lines_of(made, "prefix")
    bleu = ours.cells["BLEU"]
    assert (bleu.value, bleu.spread, bleu.n) == (70, 1, 3)
    assert paper.source == "ACL 2021, table 2"
    assert paper.cells["BLEU"].value == 70.3
    assert difference.cells["BLEU"].value == pytest.approx(-0.3)
    assert (other.source, other.cells["BLEU"].value) == ("arXiv v1", 69.7)
    one = lines_of(made, "finetune")[0].cells["BLEU"]
    assert (one.value, one.spread, one.n) == (68, None, 1)
    assert made.notes[0].startswith(
        "4 runs, 5.0 hours one after the other: 300 steps and 100 texts"
    )


def test_every_number_is_that_of_its_own_run(results: Path) -> None:
    """An undefined score is no run's; what was finished in the end has not failed."""
    folder = results / "paper" / "e2e" / "prefix"
    write_result(folder, "seed101", {"BLEU": None}, command="make 101")
    write_result(folder, "seed22", {"BLEU": 71.0}, command="make 22")
    failure = json.dumps({"reason": "the disk was full", "status": 1, "log": "log.txt"})
    (folder / "seed22.failed.json").write_text(failure, encoding="utf-8")
    made = table.build(E2E, SCALES["paper"], results)
    runs = lines_of(made, "prefix")[0].cells["BLEU"].runs
    assert [(run.name, run.value, run.command) for run in runs] == [
        ("seed22", 71.0, "make 22"),
        ("seed9", 69.0, ""),
    ]
    assert not any("the disk was full" in note for note in made.notes)
    theirs = [
        (x.row, x.model, x.source) for x in made.lines if x.source not in ("ours", "difference")
    ]
    assert len(theirs) == len({*theirs})


def test_why_there_is_no_number(results: Path) -> None:
    made = table.build(E2E, SCALES["paper"], results)
    assert lines_of(made, "prefix")[0].cells["METEOR"].why == "METEOR: needs Java"
    assert lines_of(made, "top2")[0].cells["BLEU"].why == "not run yet"
    failed = lines_of(made, "adapter-3")[0].cells["BLEU"].why
    assert failed == "failed: out of memory | 5 > 4 & 3"
    assert "finetune: not run: seed22, seed9" in made.notes
    assert "adapter-3, seed101: failed: out of memory | 5 > 4 & 3" in made.notes
    rerun = next(line for line in made.lines if "sedrickkeh" in line.source)
    assert rerun.cells["BLEU"].why == "not reported"
    small = table.build(E2E, SCALES["small"], results)
    why = lines_of(small, "prefix-large")[0].cells["BLEU"].why
    assert why == "left out at this scale: the row's model is gpt2-large"


def test_a_row_that_the_paper_does_not_have(tmp_path: Path) -> None:
    row = replace(E2E.rows[0], paper_row={"row": "prefixes", "model": "gpt2-medium"})
    message = f"e2e.yaml, row {row.name}, field paper_row: the paper has no prefixes, gpt2-medium"
    with pytest.raises(UserError, match=message):
        table.build(replace(E2E, rows=(row,)), SCALES["paper"], tmp_path)


def test_rows_of_one_line_of_the_paper(tmp_path: Path) -> None:
    """Two data sets are two experiments, and two columns of one line."""
    folder = tmp_path / "paper" / "ptuning_superglue"
    write_result(folder / "boolq_bert", "seed11", {"BoolQ": 75.0})
    write_result(folder / "rte_bert", "seed11", {"RTE": 78.0})
    experiment = spec.read("ptuning_superglue")
    made = table.build(experiment, SCALES["paper"], tmp_path)
    ours = [line for line in made.lines if line.source == "ours"]
    assert len(ours) == 2  # BERT and RoBERTa
    assert ours[0].cells["BoolQ"].value == 75
    assert ours[0].cells["RTE"].value == 78
    assert ours[0].cells["CB"].why == "no experiment of ours"
    assert ours[0].cells["WiC"].why == "not run yet"


def test_runs_on_data_of_unknown_size(tmp_path: Path) -> None:
    folder = tmp_path / "paper" / "ptuning_srl" / "conll05_roberta"
    write_result(folder, "seed11", {"CoNLL05 WSJ": 89.0}, steps=None, n_inputs=None)
    made = table.build(spec.read("ptuning_srl"), SCALES["paper"], tmp_path)
    assert "an unknown number of steps and an unknown number of texts" in made.notes[0]


def test_other_seeds_than_the_experiments(tmp_path: Path) -> None:
    write_result(tmp_path / "paper" / "e2e" / "prefix", "seed7", {"BLEU": 70.0})
    made = table.build(E2E, SCALES["paper"], tmp_path)
    assert lines_of(made, "prefix")[0].cells["BLEU"].n == 1
    assert not any(note.startswith("prefix: not run") for note in made.notes)


def test_development_set(tmp_path: Path) -> None:
    """The ACL paper's table 9 has BLEU 74.8."""
    folder = tmp_path / "paper" / "e2e" / "prefix"
    write_result(folder, "seed101", {"BLEU": 75.0}, split="valid")
    made = table.build(E2E, SCALES["paper"], tmp_path, validation=True)
    _, paper, difference, *_ = lines_of(made, "prefix")
    assert paper.cells["BLEU"].value == 74.8
    assert difference.cells["BLEU"].value == pytest.approx(0.2)
    assert made.title.startswith("E2E, development set — paper scale")


def low_data(folder: Path) -> None:
    """Prefix above fine-tuning by 4, 3, 2 and 1 BLEU."""
    for size, gain in ((50, 4.0), (100, 3.0), (200, 2.0), (500, 1.0)):
        for method, bleu in (("prefix", 50 + gain), ("finetune", 50.0)):
            flags = {"notes": f"lowdata_0_{size}", "tuning_mode": method.replace("fix", "fixtune")}
            path = folder / "paper" / "low_data" / f"{method}-{size}"
            for run, delta in (("seed9_subset0", -1), ("seed9_subset1", 1)):
                scores = {"BLEU": bleu + delta, "ROUGE-L": 60.0}
                write_result(path, run, scores, "valid", settings={"flags": flags})


def test_what_the_paper_says_of_low_data(tmp_path: Path) -> None:
    experiment = spec.read("low_data")
    made = table.build(experiment, SCALES["paper"], tmp_path)
    assert any("not all sizes are run" in note for note in made.notes)
    low_data(tmp_path)
    made = table.build(experiment, SCALES["paper"], tmp_path)
    assert made.columns == ["BLEU", "ROUGE-L"]
    wanted = "BLEU, prefix minus fine-tuning, mean over sizes: ours 2.5; ACL 2021: 2.9"
    assert wanted in made.notes


def test_the_best_prefix_length(tmp_path: Path) -> None:
    experiment = spec.read("prefix_length")
    for length, bleu in ((1, 40.0), (5, 45.0), (10, 46.0), (20, 45.5), (40, 44.0)):
        folder = tmp_path / "paper" / "prefix_length" / f"P={length}"
        write_result(folder, "seed101", {"BLEU": bleu})
    made = table.build(experiment, SCALES["paper"], tmp_path)
    assert "best prefix length by BLEU: ours 10; ACL 2021: 10" in made.notes


# --- formats --------------------------------------------------------------------------------------


def test_markdown(results: Path) -> None:
    text = formats.markdown(table.build(E2E, SCALES["paper"], results))
    assert text.startswith("## E2E, test set — paper scale: ")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3 + 5 + 1}
    assert len({len(row) for row in rows}) == 1
    assert "70.0 ± 1.0 (3)" in text
    assert re.search(r"difference +\| +-0\.3 ", text)


def test_latex(results: Path) -> None:
    text = formats.latex(table.build(E2E, SCALES["paper"], results))
    opened = re.findall(r"\\begin\{(\w+)\}", text)
    assert sorted(opened) == sorted(re.findall(r"\\end\{(\w+)\}", text))
    body = re.search(r"\\hline\n(.*)\\hline", text, re.S)
    assert body
    rows = [line for line in body[1].splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {3 + 5 - 1}
    assert r"prefix 0.1\%" in text
    assert r"70.0 $\pm$ 1.0 (3)" in text
    assert r"out of memory $|$ 5 $>$ 4 \& 3" in text
    # LaTeX takes a bracket or star behind two backslashes, on the next line too, for an option.
    assert not re.search(r"\\\\\s*[\[*]", text)
    assert re.search(r"^\[1\] METEOR: needs Java", text, re.M)


def test_csv(results: Path) -> None:
    made = table.build(E2E, SCALES["paper"], results)
    rows = list(csv.DictReader(formats.csv_text(made).splitlines()))
    assert len(rows) == len(made.lines) * len(made.columns)
    [bleu] = [r for r in rows if (r["row"], r["column"]) == ("prefix", "BLEU")]
    assert (float(bleu["value"]), float(bleu["standard_deviation"])) == (70, 1)
    assert bleu["runs"] == "3"
    assert {r["why_missing"] for r in rows if r["row"] == "top2"} == {"not run yet"}


class Page(HTMLParser):
    """Counts what stands open, and collects rows of cells."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in ("meta", "img", "br"):
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


def test_html(results: Path) -> None:
    made = table.build(E2E, SCALES["paper"], results)
    page = Page()
    page.feed(formats.html(made))
    assert page.open == []
    assert len(page.rows) == 1 + len(made.lines)
    assert page.rows[1][:4] == ["prefix", "gpt2-medium", "ours", "70.0 ± 1.0 (3)"]
    assert "out of memory | 5 &gt; 4 &amp; 3" in formats.html(made)
    # 4.303 / root of 3
    assert 'data-value="70.0">70.0 ± 1.0 (3)<details><summary>67.5 to 72.5<' in formats.html(made)


@pytest.mark.parametrize("name", spec.names())
def test_every_table_without_any_result(name: str, tmp_path: Path) -> None:
    """All cells of ours say why they are empty; all files are written, no figure is."""
    scale = SCALES["tiny"]
    for made in table.make(spec.read(name), scale, tmp_path):
        ours = [line for line in made.lines if line.source == "ours"]
        assert ours
        assert all(cell.why for line in ours for cell in line.cells.values())
        assert scale.title in made.title
    folder = tmp_path / "tiny" / name
    assert {f"table.{suffix}" for suffix in formats.FORMATS} <= {
        path.name for path in folder.iterdir()
    }
    assert not list(folder.glob("*.png"))


# --- figures --------------------------------------------------------------------------------------


def test_points_of_a_curve() -> None:
    """Two runs at 10 with 40 and 44, one at 5: Student's t of one degree of freedom is 12.706."""
    runs: list[dict[str, Any]] = [
        {"settings": {"flags": {"preseqlen": length}}, "scores": {"test": {"BLEU": bleu}}}
        for length, bleu in ((10, 40.0), (5, 30.0), (10, 44.0), (1, None))
    ]
    found = figures.points("preseqlen", "BLEU", "test", runs)
    assert found == [(5, 30, 0), (10, 42, pytest.approx(2 * 12.706, abs=1e-3))]


@pytest.mark.parametrize("name", ["prefix_length", "prefix_length_xsum"])
def test_numbers_on_an_axis_do_not_overlap(name: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    experiment = spec.read(name)
    figure, column = experiment.figures[0], experiment.figures[0]["y"][0]
    results = {}
    for row in experiment.rows:
        flags = {"tuning_mode": "prefixtune", **row.flags}
        results[row.name] = [{"settings": {"flags": flags}, "scores": {"test": {column: 1.0}}}]
    drawing, axes = pyplot.subplots(figsize=(4.6, 4), layout="constrained")
    assert figures.DRAW["line"](axes, figure, column, "test", results)
    drawing.canvas.draw()
    labels = axes.get_xticklabels()
    places = [label.get_window_extent() for label in labels]
    pyplot.close(drawing)
    assert len(labels) >= 5
    assert all(a.x1 + 2 < b.x0 for a, b in pairwise(places))


def test_sizes_of_a_point() -> None:
    """A baseline keeps all that it trains, a prefix does not keep its MLP."""
    prefix = {"settings": {"flags": {}}, "parameters": {"trained": 900, "stored": 30}}
    adapter = {"settings": {"flags": {}}, "parameters": {"trained": 40}}
    assert [figures.x_of("trained", result) for result in (prefix, adapter)] == [900, 40]
    assert [figures.x_of("stored", result) for result in (prefix, adapter)] == [30, 40]


def test_low_data_has_a_curve_for_each_method(tmp_path: Path) -> None:
    low_data(tmp_path)
    experiment = spec.read("low_data")
    runs = table.read_runs(experiment, SCALES["paper"], tmp_path)
    results = {name: of_row.results for name, of_row in runs.items()}
    curves = figures.series(experiment.figures[0], results)
    assert curves.keys() == {"prefix-tuning", "fine-tuning"}
    found = figures.points("size", "BLEU", "valid", curves["prefix-tuning"])
    assert [(x, y) for x, y, _ in found] == [(50, 54), (100, 53), (200, 52), (500, 51)]
    made = table.make(experiment, SCALES["paper"], tmp_path)[0]
    assert made.pictures == ["low_data.png"]
    folder = tmp_path / "paper" / "low_data"
    assert (folder / "low_data.png").read_bytes().startswith(b"\x89PNG")
    assert "![low_data.png](low_data.png)" in (folder / "table.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["small_e2e", "initialisation"])
def test_other_figures(name: str, tmp_path: Path) -> None:
    experiment = spec.read(name)
    for number, row in enumerate(experiment.rows):
        flags = {"tuning_mode": "prefixtune", **row.flags}
        scores = {"BLEU": 40.0 + number, "ROUGE-L": 50.0}
        folder = tmp_path / "tiny" / name / spec.UNSAFE.sub("_", row.name)
        split = experiment.splits[0]
        write_result(folder, "seed101", scores, split, settings={"flags": flags})
    made = table.make(experiment, SCALES["tiny"], tmp_path)[0]
    assert made.pictures == [f"{figure['name']}.png" for figure in experiment.figures]


def test_command(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.main(["e2e", "--scale", "paper", "--results_dir", str(results)])
    assert "70.0 ± 1.0 (3)" in capsys.readouterr().out
    names = {path.name for path in (results / "paper" / "e2e").iterdir() if path.is_file()}
    assert {"table.md", "validation.tex", "parameters.png"} <= names
    with pytest.raises(UserError, match="--scale big"):
        table.main(["e2e", "--scale", "big"])
    with pytest.raises(UserError, match="TABLE nothing"):
        table.main(["nothing"])


def test_re_runs_by_others_stand_under_the_papers_row(tmp_path: Path) -> None:
    lines = table.build(E2E, SCALES["paper"], tmp_path).lines
    rows = [(line.row, line.model, line.source.split(":")[0]) for line in lines]
    at = rows.index(("prefix 0.1%", "gpt2-medium", "arXiv v1"))
    assert rows[at + 1 : at + 4] == [
        (row, "gpt2-medium", "re-run by others")
        for row in ("prefix P=10", "prefix P=5", "prefix, own code")
    ]
    assert all(rows.count(row) == 1 for row in rows[at + 1 : at + 4])
