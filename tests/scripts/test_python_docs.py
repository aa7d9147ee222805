"""The blocks of docs/python.md, in their order, with a tiny model in the place of the one named."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from datasets import Dataset
from transformers import AutoTokenizer

from prefix_tuning import export

TEXT = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|sh)\n(.*?)```", TEXT, flags=re.S)
TASK = """
task: restaurants
dataset_path: json
dataset_kwargs: {{data_files: {data}}}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: label
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc}}]
"""


def task_manager(folder: Path) -> Any:
    from lm_eval.tasks import TaskManager

    row = {"question": "The Mill is", "choices": ["a pub", "tea"], "label": 0}
    (folder / "data.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (folder / "tasks").mkdir()
    task = TASK.format(data=folder / "data.jsonl")
    (folder / "tasks" / "restaurants.yaml").write_text(task, encoding="utf-8")
    return TaskManager(include_path=str(folder / "tasks"), include_defaults=False)


def test_every_block_runs(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("peft", "trl", "lm_eval"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    _set(base / "tokenizer_config.json", "pad_token", "<|endoftext|>")
    _set(base / "config.json", "pad_token_id", 0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = tokenizer("The Mill is a cheap pub.").input_ids
    names: dict[str, Any] = {
        "dataset": [{"input_ids": ids, "labels": ids}] * 8,
        "texts": Dataset.from_dict({"text": ["The Mill is a cheap pub."] * 8}),
        "tasks": task_manager(tmp_path),
    }
    for kind, block in BLOCKS:
        if kind == "sh":
            for line in block.strip().split("\n"):
                assert line.startswith("python -m prefix_tuning.export ")
                export.main(shlex.split(line)[3:])
            continue
        block = block.replace('"Qwen/Qwen3-0.6B"', repr(str(base)))
        for config in ('TrainingArguments("run"', 'SFTConfig("sft"'):
            block = block.replace(config, config + ", max_steps=2, use_cpu=True")
        exec(block, names)
    assert not torch.equal(names["bare"], names["logits"])
    assert names["scores"]["results"]["restaurants"]["acc,none"] in (0, 1)
    assert (tmp_path / "my-classifier" / "head.safetensors").is_file()
    theirs, ours = names["theirs"].eval(), names["ours"]
    with torch.no_grad():
        found = theirs(input_ids=torch.tensor([ids])).logits
        assert torch.equal(found, ours(torch.tensor([ids])).logits)


def _set(path: Path, name: str, value: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, name: value}), encoding="utf-8")
