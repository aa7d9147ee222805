"""A baseline is a class and a row: one is added here, launched, kept, loaded and decoded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

from gpt2 import gen, train_e2e
from gpt2.generator import TextGenerator
from gpt2.tuning import TUNING, TuningMode
from gpt2.tuning.folders import describe, load_into
from harness.flags import flag
from harness.models import load_causal_lm
from harness.ranges import COUNT
from prefix_tuning.checkpoint import read_tensors, write_tensors
from prefix_tuning.errors import UserError

DATA = ROOT / "data" / "restaurants"


@dataclass(frozen=True)
class Biases(TuningMode):
    """Biases (BitFit: Ben Zaken et al. 2022)."""

    name: ClassVar[str] = "biases"
    needs_base: ClassVar[bool] = True

    lowest_block: int = flag(1, "the lowest block whose biases train, counted from 1", within=COUNT)

    def note(self) -> str:
        return f"from={self.lowest_block}"

    def prepare(self, model: Any) -> Any:
        model.requires_grad_(False)
        for block in model.transformer.h[self.lowest_block - 1 :]:
            for name, parameter in block.named_parameters():
                parameter.requires_grad_(name.endswith("bias"))
        return model

    def save(self, folder: Path, model: Any, tokenizer: Any) -> None:
        trained = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        write_tensors(folder / "biases.safetensors", trained)

    @classmethod
    def load(cls, model: Any, folder: Path) -> Any:
        model.load_state_dict(read_tensors(folder / "biases.safetensors"), strict=False)
        return model.eval()


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TUNING, "biases", Biases)


def launch(base: Path, folder: Path, *more: str) -> None:
    files = [f"--{split}_file={DATA / 'src1_valid.txt'}" for split in ("train", "eval", "test")]
    train_e2e.main(
        ["--tuning_mode", "biases", "--model_name_or_path", str(base), *files, "--use_cpu"]
        + ["--dir_name", str(folder), "--bsz", "2", "--max_steps", "3", "--learning_rate", "0.1"]
        + ["--report_to", "none", "--generate", "no", *more]
    )


def test_it_is_launched_and_kept_and_loaded_and_decodes(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(tiny_folder, tmp_path, "--lowest_block", "2")
    (run,) = tmp_path.glob("data2textbiases_y_10_*_m=512_from=2_o=1_o=1")
    assert "--lowest_block=2" in run.with_name(f"{run.name}.sh").read_text("utf-8")
    kept = load_file(run / "biases.safetensors")
    before = load_causal_lm(str(tiny_folder)).state_dict()
    assert {name.split(".")[2] for name in kept} == {"1"}, "the upper of two blocks"
    assert all(not torch.equal(value, before[name]) for name, value in kept.items())
    costs = json.loads((run / "train_results.json").read_text("utf-8"))
    assert costs["trained_parameters"] == sum(value.numel() for value in kept.values())

    found = describe(run)
    assert (found.kind, found.base_model, found.task["task_mode"]) == (
        "biases",
        str(tiny_folder),
        "data2text",
    )
    loaded = load_into(load_causal_lm(str(tiny_folder)), found).state_dict()
    for name, value in loaded.items():
        assert torch.equal(value, kept.get(name, before[name])), name

    used = []
    load = TextGenerator.load
    monkeypatch.setattr(TextGenerator, "load", lambda asked: used.append(load(asked)) or used[-1])
    options = ["--limit", "2", "--length", "5", "--no_score", "--results_dir", str(tmp_path)]
    data = ["--data_file", str(DATA / "src1_test.txt")]
    gen.main(["data2text", "yes", "test", str(run), "no", *options, *data])
    (texts,) = (tmp_path / "e2e_results_conv2").glob("*_test_beam")
    assert texts.read_text("utf-8").count("\n") == 2
    state = used[0].model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in kept.items())


def test_its_options_are_checked(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--lowest_block 0: must be at least 1"):
        launch(tiny_folder, tmp_path, "--lowest_block", "0")
    assert list(tmp_path.iterdir()) == []
