"""The card beside a prefix: what is known is there, and what is private is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import ROOT, tiny_model
from huggingface_hub import ModelCard

from prefix_tuning import Facts, MLPPrefix, export, model_card, save_prefix, saving
from prefix_tuning.attention import enable_prefix

RUNS = ROOT / "tests" / "fixtures" / "older_runs"


@pytest.mark.parametrize(
    ("system", "lines"),
    [
        ("gpt2", ["- task: data2text", "| eval_loss | 585.983 |"]),
        ("seq2seq", ["- task: summarization", "| val_avg_rouge1 | 2.08333 |"]),
        ("ptuning_v2", ["- task: glue, sst2", "| best_eval_accuracy | 0.5 |"]),
    ],
)
def test_a_run_tells_its_task_scores_and_command(
    system: str, lines: list[str], tmp_path: Path
) -> None:
    run = shutil.copytree(RUNS / system / "finished", tmp_path / "run")
    command = "/opt/there/python3 train.py --train /home/me/train.txt --cache_dir=/home/me --lr 1"
    (tmp_path / "run.sh").write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / saving.HEAD).touch()  # of another prefix, which was here
    export.main([str(run), "--license", "mit", "--output", str(tmp_path / "out")])
    heads = [path.stat().st_size > 0 for path in (tmp_path / "out").glob(saving.HEAD)]
    assert heads == ([True] if system == "ptuning_v2" else [])
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for line in [*lines, "python train.py --train train.txt --cache_dir=me --lr 1"]:
        assert line in text.split("\n")
    for private in ("/home", "/opt", str(tmp_path)):
        assert private not in text
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "mit"
    assert card.data.library_name == "prefix-tuning"


def test_facts_given_once_stay_with_the_prefix(tmp_path: Path) -> None:
    model = enable_prefix(tiny_model("gpt2"))
    model.name_or_path = "openai-community/gpt2"
    facts = Facts(task="describes restaurants", metrics={"BLEU": 68.1}, license="mit")
    save_prefix(tmp_path, MLPPrefix(model.config, 3), model, facts=facts)
    export.main([str(tmp_path), "--format", "peft"])
    for folder, library in ((tmp_path, "prefix-tuning"), (tmp_path / "peft", "peft")):
        card = ModelCard.load(folder / "README.md")
        assert card.data.base_model == "openai-community/gpt2"
        assert (card.data.license, card.data.library_name) == ("mit", library)
        assert "- task: describes restaurants" in card.text
        assert "| BLEU | 68.1 |" in card.text


def test_nothing_is_claimed_of_what_is_not_known(tmp_path: Path) -> None:
    meta = {
        "parametrization": "flat",
        "options": {"length": 3},
        "base_model": {"name_or_path": str(tmp_path), "model_type": "gpt2"},
    }
    model_card.write(tmp_path, meta)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "licence: see that of the base model" in text
    assert "metric" not in text
    assert "base_model:" not in text
    assert str(tmp_path.parent) not in text
