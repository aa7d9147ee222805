"""Several runs of one command: each is what its command alone makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gpt2 import train_e2e, training
from gpt2.trainer_prefix import Trainer_Prefix
from prefix_tuning.errors import UserError

LINES = "name : A | food : {i}||A serves {i} .\n"
Command = Callable[..., list[str]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for split, n in (("train", 10), ("valid", 3)):
        text = "".join(LINES.format(i=i) for i in range(n))
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def command(tiny_folder: Path, files: Path) -> Command:
    """``command(parent, *more)``: six steps in a folder named by the flags."""

    def of(parent: Path, *more: str) -> list[str]:
        given = ["--dir_name", str(parent), "--generate", "no"]
        given += ["--model_name_or_path", str(tiny_folder), "--use_cpu", "--report_to", "none"]
        given += ["--train_file", str(files / "train.txt"), "--eval_file", str(files / "valid.txt")]
        given += "--bsz 4 --epoch 2 --mid_dim 8 --dropout 0.1 --logging_steps 2".split()
        return [*given, *"--learning_rate 0.01 --save_steps 2 --eval_steps 3".split(), *more]

    return of


@pytest.fixture(scope="module")
def solo(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parent of runs of three commands."""
    parent = tmp_path_factory.mktemp("solo")
    for flags in ("--preseqlen 3 --seed 1", "--preseqlen 3 --seed 2", "--preseqlen 5 --seed 2"):
        train_e2e.main(command(parent, *flags.split()))
    return parent


def runs(parent: Path) -> dict[str, Path]:
    """The folders of runs by name."""
    return {path.name: path for path in parent.iterdir() if path.is_dir()}


def content(folder: Path) -> dict[str, Path]:
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


def same(one: Path, other: Path, tolerance: float) -> None:
    """Hold a run against its command alone: files, losses and weights."""
    files, others = content(one), content(other)
    assert files.keys() == others.keys()
    for name in files:
        if name.endswith(".safetensors"):
            weights = [load_file(found[name]) for found in (files, others)]
            torch.testing.assert_close(*weights, rtol=0, atol=tolerance)
    logs: list[list[Any]] = []
    for folder in (one, other):
        history = json.loads((folder / "log_history.json").read_text(encoding="utf-8"))
        keys = ("step", "loss", "eval_loss", "learning_rate", "grad_norm")
        logs.append([log.get(key) for log in history for key in keys if key in log])
    assert logs[0] == pytest.approx(logs[1], rel=tolerance, abs=0)


def test_seeds_and_a_sweep_are_the_runs_of_their_commands(
    command: Command, solo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[object] = []
    load, read = training.load_causal_lm, training.read_records
    monkeypatch.setattr(training, "load_causal_lm", lambda *a: loaded.append(a) or load(*a))
    monkeypatch.setattr(training, "read_records", lambda *a, **k: loaded.append(a) or read(*a, **k))
    train_e2e.main(command(tmp_path / "seeds", "--preseqlen", "3", "--seeds", "1,2"))
    assert len(loaded) == 3  # a model and two files
    train_e2e.main(command(tmp_path / "sweep", "--seed", "2", "--sweep", "preseqlen=3,5"))
    for parent in (tmp_path / "seeds", tmp_path / "sweep"):
        assert len(runs(parent)) == 2
        for name, run in runs(parent).items():
            same(run, solo / name, 0.0)


def test_a_run_that_diverges_holds_up_no_other(
    command: Command, solo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Trainer_Prefix.batch_loss

    def diverging(self: Any, *args: Any) -> Any:
        return loss(self, *args) * (torch.nan if self.args.seed == 1 else 1.0)

    monkeypatch.setattr(Trainer_Prefix, "batch_loss", diverging)
    with pytest.raises(UserError, match=r"of 2 runs these diverged: .*_s=1_"):
        train_e2e.main(command(tmp_path, "--preseqlen", "3", "--seeds", "1,2"))
    (name,) = (name for name in runs(tmp_path) if "_s=2_" in name)
    same(tmp_path / name, solo / name, 0.0)


def test_stopped_in_the_second_run_the_same_command_goes_on(
    command: Command,
    solo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = Trainer_Prefix.training_step

    def stopping(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.args.seed == 2 and self.state.global_step == 3:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    several = command(tmp_path, "--preseqlen", "3", "--seeds", "1,2")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer_Prefix, "training_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train_e2e.main(several)
    train_e2e.main(several)
    said = capsys.readouterr().out
    assert said.count("is trained already") == said.count("going on from ") == 1
    for name, run in runs(tmp_path).items():
        weights = [load_file(path / "model.safetensors") for path in (run, solo / name)]
        torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_mistakes_of_several_runs(command: Command, tmp_path: Path) -> None:
    for flags, message in (
        ("--seeds 1,,2", "--seeds 1,,2: write"),
        ("--sweep preseqlen", "--sweep preseqlen: write"),
        ("--sweep preseqlen=1,5 --preseqlen 3", "--preseqlen: --seeds or --sweep gives it already"),
        ("--seeds 1,2 --sweep seed=3,4", "--seed: --seeds or --sweep gives it already"),
        ("--seeds 1,1", "several runs would write"),
        ("--sweep seeds=5", "write --seeds, or --sweep seed="),
        (f"--seeds 1,2 --output_dir {tmp_path / 'm'}", "several runs would write .*--dir_name"),
        ("--seeds 1 --seeds=2", "--seeds: given twice"),
        ("--sweep preseqlen=1 --sweep preseqlen=2", "--sweep: given twice"),
        ("--sweep prefix=1,5", "--prefix: there is no such flag"),
        ("--sweep preseqlen=5,0", "--preseqlen 0"),
        ("--seeds 1,2 --submit yes", "--submit yes"),
    ):
        with pytest.raises(UserError, match=message):
            train_e2e.main(command(tmp_path, *flags.split()))
    assert list(tmp_path.iterdir()) == []
