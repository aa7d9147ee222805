"""Parametrisations other than the original's in front of an encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from low_rank import LowRankPrefix
from safetensors.torch import load_file
from transformers import AutoModel, BertConfig, BertTokenizer

from prefix_tuning.errors import UserError
from prefix_tuning.parametrizations import PARAMETRIZATIONS
from ptuning_v2 import run
from ptuning_v2.model.prefix_encoder import PrefixEncoder


@pytest.fixture(autouse=True)
def _low_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARAMETRIZATIONS, "low_rank", LowRankPrefix)


@pytest.fixture
def bert(bert_tokenizer: BertTokenizer, tmp_path: Path) -> Path:
    config = BertConfig(
        vocab_size=len(bert_tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    AutoModel.from_config(config).save_pretrained(tmp_path / "bert")
    bert_tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def start(model: Path, output: Path, *flags: str) -> Any:
    data = output.parent / "sst2"
    data.mkdir(exist_ok=True)
    for split in ("train", "dev"):
        rows = [f"{text}\t{i % 2}\n" for i, text in enumerate(("a cat sat", "the dog sat") * 4)]
        (data / f"{split}.tsv").write_text("sentence\tlabel\n" + "".join(rows), encoding="utf-8")
    common = "--task_name glue --dataset_name sst2 --pre_seq_len 3 --learning_rate 0.03"
    common += " --max_steps 2 --per_device_train_batch_size 4 --max_seq_length 20 --do_eval"
    common += " --disable_tqdm True --report_to none --eval_strategy epoch"
    where = [f"--model_name_or_path={model}", f"--data_dir={data}", f"--output_dir={output}"]
    run.main([*where, *common.split(), *flags])
    return json.loads((output / "eval_results.json").read_text(encoding="utf-8"))


def test_the_table_has_the_originals(bert: Path) -> None:
    assert PARAMETRIZATIONS["ptuning_v2"] is PrefixEncoder


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ("--parametrization low_rank --prefix_options rank=2,scale=0.5", {"left", "right"}),
        ("--parametrization flat", {"control_trans"}),
        ("--parametrization mlp --prefix_options mid_dim=6", {"wte.weight"}),
    ],
)
def test_any_parametrisation_trains_and_evaluates(
    flags: str, names: set[str], bert: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    trained = start(bert, folder, "--prefix", "--do_train", *flags.split())
    state = load_file(folder / "best" / "model.safetensors")
    assert {f"prefix_encoder.{name}" for name in names} <= state.keys()
    for kind in ("best", "export"):  # the checkpoint knows its parametrisation and options
        again = start(bert, tmp_path / kind, "--prefix_checkpoint", str(folder / kind))
        assert again["eval_loss"] == pytest.approx(trained["eval_loss"], abs=1e-5)
    if "low_rank" in flags:
        table = load_file(folder / "export" / "prefix.safetensors")["past_key_values"]
        slots = 0.5 * state["prefix_encoder.left"] @ state["prefix_encoder.right"]
        by_hand = slots.view(3, 2, 2, 4, 8).permute(1, 2, 3, 0, 4)  # [P, L, 2, H, d]
        assert torch.allclose(table, by_hand, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--prefix --parametrization infix", "infix: the frozen model takes part"),
        ("--prefix --parametrization lora", "--parametrization lora: use one of mlp"),
        ("--prefix --parametrization low_rank --prefix_options rnk=2", "its options are rank"),
        ("--prefix --parametrization low_rank", "low_rank: add --prefix_options rank="),
        ("--parametrization flat", "--parametrization flat: only with --prefix"),
        ("--prompt --prefix_options a=1", "--prefix_options a=1: only with --prefix"),
        ("--prefix --prefix_projection --parametrization flat", "only with --parametrization pt"),
    ],
)
def test_mistakes_are_one_sentence(flags: str, message: str, bert: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        start(bert, tmp_path / "run", "--do_train", *flags.split())
