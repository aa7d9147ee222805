"""A task is a reader and a row, a scorer a function and a row: both are added here and used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation import scorers
from evaluation.report import Scores
from gpt2 import gen, train_e2e
from gpt2.readers import Record, checked, lines
from gpt2.tasks import TASKS, Task


def read_weather(path: Path) -> Iterator[Record]:
    """``PLACE;DEGREES;SENTENCE`` lines."""
    for line, where in lines(path):
        place, degrees, text = line.split(";")
        yield Record(f"{place} at {degrees}", (checked(text, "the sentence", where),), where)


def count_letters(texts: scorers.Texts) -> dict[str, Scores]:
    n_output, n_reference = (
        sum(map(len, x)) for x in (texts.outputs, map("".join, texts.references))
    )
    return {texts.task: Scores({"letters": n_output / n_reference})}


@pytest.fixture
def weather(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lines = [f"town {i};{i} degrees;in town {i} it is {i} degrees" for i in range(4)]
    lines.append("town 1;1 degrees;cold")
    data = {split: tmp_path / f"{split}.csv" for split in ("train", "valid", "test")}
    for path in data.values():
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    column = scorers.Column("weather", "letters", 100)
    monkeypatch.setitem(scorers.SCORERS, "letters", scorers.Scorer(count_letters, {"L": column}))
    scorer = scorers.SCORERS["letters"]
    row = Task(read_weather, data, runs="weather_models", results="weather", scorer=scorer)
    monkeypatch.setitem(TASKS, "weather", row)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_trains_and_decodes_and_is_scored(tiny_folder: Path, weather: Path) -> None:
    train_e2e.main(
        ["--mode", "weather", "--model_name_or_path", str(tiny_folder), "--use_cpu"]
        + ["--preseqlen", "2", "--mid_dim", "8", "--bsz", "2", "--max_steps", "2"]
        + ["--report_to", "none", "--generate", "no"]
    )
    (run,) = (weather / "weather_models").glob("weatherprefixtune_y_2_*_o=1_o=1")
    gen.main(["weather", "yes", "test", str(run), "no", "--length", "6"])
    results = weather / "weather"
    outputs = (results / f"{run.name}_test_beam").read_text("utf-8").split("\n")[:-1]
    assert len(outputs) == 4, "the two sentences about town 1 are one input"
    prompts = (results / f"{run.name}_test_src").read_text("utf-8")
    assert prompts.startswith(" town 0 at 0 degrees <|endoftext|>\n")
    scores = json.loads((results / f"{run.name}_test_beam_eval.json").read_text("utf-8"))
    letters = 4 * len("in town 1 it is 1 degrees") + len("cold")
    assert scores["weather"]["values"] == {"letters": sum(map(len, outputs)) / letters}
