"""A task that is one reader and one row has its table by one YAML and one JSON of the paper's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from evaluation import scorers
from evaluation.report import Scores
from experiments import scales, spec, table, worker
from experiments.pool import Job
from gpt2.readers import Record, checked, lines
from gpt2.tasks import TASKS, Task
from prefix_tuning.files import write_json

YAML = {
    "table": "weather",
    "title": "Weather",
    "launcher": "gpt2/train_e2e.py",
    "scorer": "evaluation.letters",
    "seeds": [1],
    "common": {"mode": "weather"},
    "rows": [
        {
            "name": "prefix",
            "paper_row": {"row": "prefix", "model": "gpt2"},
            "flags": {"tuning_mode": "prefixtune", "preseqlen": 2, "mid_dim": 8},
        }
    ],
}
PAPER = {
    "title": "Weather",
    "columns": [{"name": "letters (%)", "decimals": 1}],
    "entries": [
        {"row": "prefix", "model": "gpt2", "source": "a paper", "values": {"letters (%)": 50.0}}
    ],
}


def read_weather(path: Path) -> Iterator[Record]:
    """``PLACE;SENTENCE`` lines."""
    for line, where in lines(path):
        place, text = line.split(";")
        yield Record(place, (checked(text, "the sentence", where),), where)


def count_letters(texts: scorers.Texts) -> dict[str, Scores]:
    return {"letters": Scores({"n": sum(map(len, texts.outputs)) / len(texts.outputs)})}


def test_table_of_a_task_of_ones_own(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {name: tmp_path / name for name in ("data", "tables", "papers", "results")}
    for folder in folders.values():
        folder.mkdir()
    files = {split: folders["data"] / f"{split}.csv" for split in ("train", "valid", "test")}
    for path in files.values():
        path.write_text("".join(f"town {i};in town {i} it rains\n" for i in range(9)), "utf-8")
    column = scorers.Column("letters", "n", 100)
    scorer = scorers.Scorer(count_letters, {"letters (%)": column})
    monkeypatch.setitem(scorers.SCORERS, "letters", scorer)
    row = Task(read_weather, files, runs="weather_models", results="weather", scorer=scorer)
    monkeypatch.setitem(TASKS, "weather", row)
    (folders["tables"] / "weather.yaml").write_text(yaml.safe_dump(YAML), "utf-8")
    write_json(folders["papers"] / "weather.json", PAPER)
    monkeypatch.setattr(table, "PAPERS", folders["papers"])

    experiment, scale = spec.read("weather", folders["tables"]), scales.read()["tiny"]
    overrides = spec.Overrides(str(tiny_folder), str(folders["data"]))
    [run] = spec.expand(experiment, scale, overrides)
    job = Job(run, folders["results"] / run.folder)
    job.folder.mkdir(parents=True)
    write_json(job.folder / "job.json", job.describe(tmp_path / "work", True))
    worker.main([str(job.folder)])

    [texts] = job.folder.rglob("run_test_beam")
    outputs = texts.read_text("utf-8").splitlines()
    assert len(outputs) == 6  # of the 9 inputs, as the scale says
    ours, paper, difference = table.build(experiment, scale, folders["results"]).lines
    wanted = 100 * sum(map(len, outputs)) / 6
    assert ours.cells["letters (%)"].value == pytest.approx(wanted)
    assert paper.cells["letters (%)"].value == 50
    assert difference.cells["letters (%)"].value == pytest.approx(wanted - 50)
    assert json.loads(job.result.read_text("utf-8"))["parameters"]["stored"] == 2 * 2 * 2 * 32
