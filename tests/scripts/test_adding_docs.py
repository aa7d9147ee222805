"""The Python blocks of docs/adding.md, each run with what its file has imported already."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from sacrebleu import corpus_chrf

from evaluation.scorers import SCORERS, Texts
from gpt2.readers import Record
from gpt2.tasks import TASKS, Task, files
from gpt2.tuning import TuningMode
from harness.models import load_causal_lm
from prefix_tuning.files import read_json_lines
from prefix_tuning.parametrizations import PARAMETRIZATIONS
from prefix_tuning.prefix import Prefix
from prefix_tuning.shape import PrefixShape

TEXT = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
TASK, BASELINE, PARAMETRISATION, SCORE = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)


def test_a_task(tmp_path: Path) -> None:
    names: dict[str, Any] = {"Record": Record, "Task": Task, "files": files}
    names |= {"read_json_lines": read_json_lines, "TASKS": {**TASKS}}
    exec(TASK, names)
    path = tmp_path / "train.jsonl"
    entry = {"city": "Oslo", "sky": "grey", "report": "It rains."}
    path.write_text(json.dumps(entry), encoding="utf-8")
    row = names["TASKS"]["weather"]
    (record,) = row.read(path)
    assert (record.source, record.targets) == ("Oslo : grey", ("It rains.",))
    assert row.files["valid"] == ROOT / "data" / "weather" / "dev.jsonl"
    assert "weather" not in TASKS


def test_a_baseline(tiny_folder: Path) -> None:
    names: dict[str, Any] = {"dataclass": dataclass, "TuningMode": TuningMode}
    exec(BASELINE, names)
    model = names["Biases"]().prepare(load_causal_lm(str(tiny_folder)))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if name.endswith("bias")}
    assert trained


def test_a_parametrisation() -> None:
    names: dict[str, Any] = {"Prefix": Prefix, "nn": torch.nn, "torch": torch}
    exec(PARAMETRISATION, names)
    shape = PrefixShape(n_layer=2, n_head=3, head_dim=4, width=12)
    prefix = names["LowRankPrefix"](shape, 5, rank=2)
    assert "low_rank" not in PARAMETRIZATIONS, "which only a line in the table adds"
    assert [pair.shape for pair in prefix.key_values()] == [(2, 1, 3, 5, 4)] * 2
    slots = prefix.left_self @ prefix.right_self  # [P, 2LHd]
    by_hand = slots.view(5, 2, 2, 3, 4).permute(1, 2, 3, 0, 4)  # [L, 2, H, P, d]
    for layer, pair in enumerate(prefix.key_values()):
        torch.testing.assert_close(pair[:, 0], by_hand[layer])
    assert prefix.options()["rank"] == 2


def test_a_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("evaluation.scorers.SCORERS", {**SCORERS})
    names: dict[str, Any] = {}
    exec(SCORE, names)
    references, outputs = [["a grey day", "rain"], ["clear sky"]], ["a gray day", "a clear sky"]
    scorer = names["SCORERS"]["chrf"]
    streams: list[Any] = [["a grey day", "clear sky"], ["rain", None]]
    expected = corpus_chrf(outputs, streams).score
    column = scorer.columns["chrF"]
    assert scorer.score(Texts(outputs, references))[column.row][column.key] == expected
    paths = [tmp_path / "references.txt", tmp_path / "outputs.txt"]
    paths[0].write_text("a grey day\nclear sky\n", encoding="utf-8")
    paths[1].write_text("a gray day\na clear sky\n", encoding="utf-8")
    names["main"]([*map(str, paths)])
    assert f"{corpus_chrf(outputs, streams[:1]).score:.4f}" in capsys.readouterr().out
