"""Parametrisations other than the original's in front of BART's three attentions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from low_rank import LowRankPrefix
from safetensors.torch import load_file

from prefix_tuning import checkpoint
from prefix_tuning.errors import UserError
from prefix_tuning.names import SITES
from prefix_tuning.parametrizations import PARAMETRIZATIONS, FlatPrefix
from prefix_tuning.prefix import Prefix
from seq2seq import finetune

LOW_RANK = ("--parametrization", "low_rank", "--prefix_options", "rank=2,scale=0.5")
SHORT = "--eval_beams 2 --eval_min_gen_length 2 --eval_max_gen_length 8 --accelerator cpu"


@pytest.fixture(autouse=True)
def _low_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARAMETRIZATIONS, "low_rank", LowRankPrefix)


def train(base: Path, data: Path, output: Path, *flags: str) -> None:
    more = f"--do_train --model_name_or_path {base} --data_dir {data} --output_dir {output}"
    more += " --preseqlen 3 --max_steps 2 --num_workers 0 --logger_name none --learning_rate 0.1"
    finetune.main([*more.split(), "--max_source_length", "24", *SHORT.split(), *flags])


def texts(data: Path, folder: Path) -> str:
    flags = ["--do_predict", "--data_dir", str(data), *SHORT.split()]
    finetune.main([*flags, "--prefixModel_name_or_path", str(folder)])
    return (folder / "test_beam_0.8").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "kind"), [(LOW_RANK, LowRankPrefix), (("--parametrization", "flat"), FlatPrefix)]
)
def test_any_parametrisation_trains_exports_and_decodes(
    flags: tuple[str, ...], kind: type[Prefix], bart_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(bart_folder, pairs, run, *flags, "--do_predict")
    prefix, meta = checkpoint.load(run)
    assert type(prefix) is kind
    assert prefix.sites == SITES
    if kind is LowRankPrefix:
        assert (meta["options"]["rank"], meta["options"]["scale"]) == (2, 0.5)
        wanted = 0.5 * prefix.left_enc @ prefix.right_enc
        assert torch.equal(prefix.slots("encoder"), wanted)
    found = texts(pairs, run)
    assert len(set(found.split("\n"))) > 2
    assert texts(pairs, run / "export") == found
    # As from any checkpoint, training can go on from it.
    train(bart_folder, pairs, tmp_path / "more", "--prefixModel_name_or_path", str(run))
    assert load_file(tmp_path / "more" / "model.safetensors").keys() == prefix.state_dict().keys()


def test_what_is_impossible_is_refused_before_the_model_is_loaded(
    bart_folder: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seq2seq.loading.load_base", pytest.fail)
    for flags, message in (
        ("--parametrization infix", "infix: the frozen model takes part"),
        ("--parametrization lora", "--parametrization lora: use one of mlp"),
        ("--parametrization low_rank --prefix_options rnk=2", "its options are rank, scale, ones"),
        ("--prefix_options depth=2", "depth: not of the parametrisation mlp; its options are mid"),
        (
            "--parametrization low_rank --prefix_options rank=2 --use_lowdata_token yes",
            "a prefix of the parametrisation low_rank can only start random",
        ),
    ):
        with pytest.raises(UserError, match=message):
            train(bart_folder, pairs, tmp_path / "run", *flags.split())


def test_a_flat_prefix_starts_from_words_as_they_are(
    bart_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    flags = "--parametrization flat --use_lowdata_token yes --lowdata_token food"
    train(bart_folder, pairs, tmp_path / "run", *flags.split(), "--learning_rate", "1e-9")
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from prefix_tuning.attention import enable_prefix
    from prefix_tuning.initialization import activations

    model = enable_prefix(AutoModelForSeq2SeqLM.from_pretrained(bart_folder).eval())
    ids = AutoTokenizer.from_pretrained(bart_folder)(" food", return_tensors="pt").input_ids
    prefix, _ = checkpoint.load(tmp_path / "run")
    for site, slots in activations(model, ids).items():
        assert torch.allclose(prefix.slots(site), slots, atol=1e-6)
