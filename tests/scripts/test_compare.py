"""The comparison of tuning modes, on a tiny Llama."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gpt2 import gen, train_e2e
from gpt2.trainer_prefix import Trainer_Prefix
from prefix_tuning.errors import UserError
from scripts import compare

STARTS = {"train_e2e.py": train_e2e.main, "gen.py": gen.main}


@pytest.fixture(scope="module")
def tiny_llama(
    tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny-llama"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=320,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def arguments(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], Path]:
    """Flags, and the folder of the results; no Java, no process for each mode, little data."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(compare, "_run", lambda script, args: STARTS[script](args))
    data = tmp_path / "data" / "restaurants"
    data.mkdir(parents=True)
    for split in ("train", "valid"):
        lines = (ROOT / "data" / "restaurants" / f"src1_{split}.txt").read_text("utf-8").split("\n")
        (data / f"src1_{split}.txt").write_text("\n".join([*lines[:40], ""]), encoding="utf-8")
    flags = ["--model_name_or_path", str(tiny_llama), "--output_dir", str(tmp_path)]
    flags += ["--data_dir", str(data)]
    return [*flags, "--steps", "2", "--inputs", "2"], tmp_path / "restaurants-tiny-llama"


def test_every_mode_has_its_line(
    arguments: tuple[list[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags, work = arguments
    compare.main([*flags, "--modes", ",".join(compare.MODES)])
    rows = json.loads((work / "comparison.json").read_text("utf-8"))["rows"]
    assert rows.keys() == compare.MODES.keys()

    # By hand, of 3 layers of width 32 with 2 key/value heads of size 8.
    slot, mlp, block = 2 * 3 * 2 * 8, 512 * 33, 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32
    every = 3 * block + 2 * 300 * 32 + 32
    prefix = 10 * 32 + mlp + slot * 513
    expected = {
        "prefix": prefix,
        "deep": prefix + 512 * 513,
        "shallow": 10 * slot,
        "infix": prefix + 10 * 32,
        "embedding": 10 * 32 + mlp + 32 * 513,
        "finetune": every,
        "finetune-top": 2 * block + 32,
        "adapter": 3 * (2 * 32 * 32 + 32 + 3 * 32),
        "lora": 3 * 4 * ((32 + 32) + (32 + 16)),  # peft's for Llama: queries and values
        "bothtune": every + prefix,
    }
    assert {mode: row["trained"] for mode, row in rows.items()} == expected
    stored = {
        **expected,
        **dict.fromkeys(("prefix", "deep", "shallow", "embedding"), 10 * slot),
        "finetune-top": every,
    }
    for mode, count in stored.items():  # and a header that names the tensors
        assert 4e-6 * count < rows[mode]["stored_mb"] < 4e-6 * count + 0.01, mode
    for row in rows.values():
        assert row["seconds_per_step"] > 0
        assert 50 < row["peak_mb"] < 100_000
    output = capsys.readouterr().out
    table = (work / "comparison.md").read_text("utf-8").partition("\n\n")[2]
    assert table in output
    assert table.count("\n") == 2 + len(rows)
    assert (work / "comparison.png").stat().st_size > 5000

    monkeypatch.setattr(compare, "_run", pytest.fail)  # all is finished
    compare.main([*flags, "--modes", "lora, prefix"])
    again = json.loads((work / "comparison.json").read_text("utf-8"))["rows"]
    assert again == {mode: rows[mode] for mode in ("lora", "prefix")}


def test_an_interrupted_mode_goes_on(
    arguments: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is that of the steps since: none is counted twice, none is missing."""
    flags, work = arguments
    flags += ["--modes", "shallow", "--steps", "3"]
    original = Trainer_Prefix.training_step

    def stop_in_step_3(self: Trainer_Prefix, *args: object) -> torch.Tensor:
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer_Prefix, "training_step", stop_in_step_3)
        with pytest.raises(KeyboardInterrupt):
            compare.main(flags)
    compare.main(flags)
    costs = json.loads((work / "shallow-3" / "train_results.json").read_text("utf-8"))
    row = json.loads((work / "comparison.json").read_text("utf-8"))["rows"]["shallow"]
    assert costs["steps"] == 1
    assert row["seconds_per_step"] == costs["seconds"]


def test_other_data_of_the_same_name(
    arguments: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is finished is not of these files."""
    flags, _ = arguments
    compare.main([*flags, "--modes", "shallow"])
    monkeypatch.setattr(compare, "_run", pytest.fail)
    other = shutil.copytree(tmp_path / "data" / "restaurants", tmp_path / "b" / "restaurants")
    with pytest.raises(UserError, match=r"is of --data_dir .*/data/restaurants, now it is .*/b/"):
        compare.main([*flags, "--modes", "shallow", "--data_dir", str(other)])


def test_a_time_nobody_measured() -> None:
    row = dict.fromkeys(compare.COLUMNS, 2.0) | {"seconds_per_step": None, "trained": 1234}
    lines = compare.table({"prefix": row}).split("\n")
    assert [cell.strip() for cell in lines[2].split("|")[1:5]] == ["prefix", "1,234", "2.00", "-"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--modes prefix,magic", "--modes magic: choose from prefix, deep"),
        ("--modes prefix --steps 0", "--steps 0"),
        ("--modes prefix --data_dir nowhere", "holds no src1_train.txt"),
    ],
)
def test_mistakes(flags: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare.main(flags.split())


def test_lora_without_peft_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt2.tuning.lora.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install peft"):
        compare.chosen_modes("prefix,lora")


def test_a_failure_in_a_process_of_its_own_is_said() -> None:
    with pytest.raises(UserError, match=r"gone\.py ended with status 2, see above"):
        compare._run("gone.py", [])
