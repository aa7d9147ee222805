"""Runs that are killed, stopped, damaged, started twice or changed: nothing is lost in silence."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt2 import run_arguments, train_e2e
from gpt2.arguments import RunFlags
from gpt2.train_request import parse
from gpt2.trainer_prefix import Trainer_Prefix
from gpt2.tuning.finetune import FineTune
from harness import manifest
from harness.lock import locked
from prefix_tuning.errors import Terminated, UserError

LINES = "name : A | food : {i}||A serves {i} .\n"
Change = Callable[[Path], object]


def write_files(folder: Path) -> Path:
    folder.mkdir()
    for split, n in (("train", 12), ("valid", 3)):
        text = "".join(LINES.format(i=i) for i in range(n))
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")
    return folder


def command_of(base: Path, files: Path, output: Path, *more: str) -> list[str]:
    """Six steps, a checkpoint at every second."""
    given = ["--output_dir", str(output), "--model_name_or_path", str(base)]
    given += ["--train_file", str(files / "train.txt"), "--eval_file", str(files / "valid.txt")]
    given += "--bsz 4 --epoch 2 --preseqlen 2 --mid_dim 8 --dropout 0.1 --use_cpu".split()
    given += "--report_to none --generate no --score no --logging_steps 3 --seed 7".split()
    given += "--learning_rate 0.01 --save_steps 2 --eval_steps 3 --save_total_limit 2".split()
    return [*given, *more]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return write_files(tmp_path / "data")


@pytest.fixture
def command(tiny_folder: Path, files: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """``command(name, *more)``"""
    return lambda name, *more: command_of(tiny_folder, files, tmp_path / name, *more)


@pytest.fixture(scope="module")
def whole(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stops."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train_e2e.main(command_of(tiny_folder, write_files(folder / "data"), folder / "whole"))
    return folder / "whole"


def stop_at(step: int, error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    original = Trainer_Prefix.training_step

    def stopping(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == step:
            raise error
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Trainer_Prefix, "training_step", stopping)


def interrupted(arguments: list[str], step: int = 5) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_at(step, KeyboardInterrupt, patch)
        with pytest.raises(KeyboardInterrupt):
            train_e2e.main(arguments)


def losses(run: Path) -> list[Any]:
    history = json.loads((run / "log_history.json").read_text(encoding="utf-8"))
    return [(log["step"], log.get("loss"), log.get("eval_loss")) for log in history]


def same(one: Path, other: Path) -> None:
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Change] = {
    "lacks optimizer.pt": lambda c: (c / "optimizer.pt").unlink(),
    "lacks scheduler.pt": lambda c: (c / "scheduler.pt").unlink(),
    r"is damaged \(rng_state.pth\)": lambda c: (c / "rng_state.pth").write_bytes(b""),
    r"is damaged \(model.safetensors\)": lambda c: flip(c / "model.safetensors"),
    r"is damaged \(trainer_state.json\)": lambda c: flip(c / "trainer_state.json"),
    r"is damaged \(manifest.json\)": lambda c: (c / "manifest.json").write_text("[]"),
    "lacks manifest.json": lambda c: (c / "manifest.json").unlink(),
    r"is damaged \(optimizer.pt\)": lambda c: shutil.copy(
        c.with_name("checkpoint-2") / "optimizer.pt", c
    ),
}


def test_a_damaged_checkpoint_is_set_aside_and_an_older_one_used(
    command: Any, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(command("first"))
    best = tmp_path / "first" / "first-checkpoint-3"
    assert best.is_dir()
    for number, (what, damage) in enumerate(DAMAGES.items()):
        run = tmp_path / f"m{number}"
        shutil.copytree(tmp_path / "first", run)
        (run / best.name).rename(run / f"{run.name}-checkpoint-3")
        damage(run / "checkpoint-4")
        if number:  # one is enough to see that it ends the same
            with pytest.MonkeyPatch.context() as patch:
                stop_at(2, KeyboardInterrupt, patch)
                with pytest.raises(KeyboardInterrupt):
                    train_e2e.main(command(run.name))
        else:
            train_e2e.main(command(run.name))
            same(run, whole)
            assert losses(run) == losses(whole)
        out = capsys.readouterr().out
        assert (run / "set-aside-checkpoint-4").is_dir(), what
        assert f"going on from {run / 'checkpoint-2'}" in out
        (line,) = [line for line in out.splitlines() if "set aside as" in line]
        assert what.replace("\\", "") in line
        assert (run / f"{run.name}-checkpoint-{3 if number else 6}").is_dir()


def test_without_a_good_checkpoint_a_run_stops_and_keeps_everything(
    command: Any, tmp_path: Path
) -> None:
    interrupted(command("m", "--save_total_limit", "1"))
    run = tmp_path / "m"
    (run / "checkpoint-4" / "trainer_state.json").write_text("", encoding="utf-8")
    for match in (r"checkpoint-4 is damaged \(trainer_state.json\): copy", "set-aside-checkpoint"):
        with pytest.raises(UserError, match=match):
            train_e2e.main(command("m", "--save_total_limit", "1"))
    assert (run / "set-aside-checkpoint-4" / "model.safetensors").is_file()
    assert (run / "m-checkpoint-3" / "model.safetensors").is_file()


def test_a_checkpoint_of_another_run_is_none_of_this(command: Any, tmp_path: Path) -> None:
    for name, seed in (("one", "1"), ("two", "2")):
        interrupted(command(name, "--seed", seed, "--save_total_limit", "1"))
    shutil.rmtree(tmp_path / "one" / "checkpoint-4")
    shutil.copytree(tmp_path / "two" / "checkpoint-4", tmp_path / "one" / "checkpoint-4")
    with pytest.raises(UserError, match="checkpoint-4 is of another run: copy it again"):
        train_e2e.main(command("one", "--seed", "1", "--save_total_limit", "1"))


def test_another_base_model_or_other_data_are_refused(
    command: Any, tiny_folder: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_folder, base)
    more = ("--model_name_or_path", str(base))
    interrupted(command("m", *more))
    train_text = (files / "train.txt").read_text(encoding="utf-8")
    for split in ("train", "valid"):
        path = files / f"{split}.txt"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("food : 2", "food : 9"), encoding="utf-8")
        with pytest.raises(UserError, match=rf"other data: .*{split}.txt.*has changed"):
            train_e2e.main(command("m", *more))
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"started with --weight_decay 0\.0, now it is 0\.1"):
        train_e2e.main(command("m", *more, "--weight_decay", "0.1"))
    weights = load_file(base / "model.safetensors")
    name = next(n for n in weights if "h.0.attn.c_attn.weight" in n)
    good = (base / "model.safetensors").read_bytes()
    changed = {**weights, name: weights[name] + 1}
    save_file(changed, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"m belongs to .*whose weights differ"):
        train_e2e.main(command("m", *more))
    (base / "model.safetensors").write_bytes(good)
    monkeypatch.chdir(files)  # the same content by another path
    train_e2e.main([*command("m", *more), "--train_file", "train.txt"])
    (files / "train.txt").write_text(train_text + LINES.format(i=99), encoding="utf-8")
    with pytest.raises(UserError, match="has changed"):  # of a finished run too
        train_e2e.main(command("m", *more))


def test_two_runs_in_one_folder(command: Any, tmp_path: Path) -> None:
    interrupted(command("m"))
    with (
        locked(tmp_path / "m"),
        pytest.raises(UserError, match=rf"m is in use by process {os.getpid()} .*: wait"),
    ):
        train_e2e.main(command("m"))
    train_e2e.main(command("m"))


def test_a_mistake_after_the_start_leaves_a_folder_for_the_mended_command(
    command: Any, files: Path, tmp_path: Path
) -> None:
    good = (files / "train.txt").read_text(encoding="utf-8")
    (files / "train.txt").write_text("no separator\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"train.txt, line 1"):
        train_e2e.main(command("m"))
    (files / "train.txt").write_text(good, encoding="utf-8")
    train_e2e.main(command("m"))
    assert (tmp_path / "m" / "log_history.json").is_file()
    with pytest.raises(UserError, match=r"12 training rows fill no batch of 13"):
        train_e2e.main(command("n", "--dataloader_drop_last", "true", "--bsz", "13"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_with_a_checkpoint(
    number: int, command: Any, whole: Path, tmp_path: Path
) -> None:
    original = Trainer_Prefix.training_step

    def signalled(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 4:
            os.kill(os.getpid(), number)
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer_Prefix, "training_step", signalled)
        with pytest.raises(Terminated if number == signal.SIGTERM else KeyboardInterrupt):
            train_e2e.main(command("m"))
    run = tmp_path / "m"
    assert manifest.fault(run / "checkpoint-5") is None
    assert not (run / "log_history.json").exists()
    train_e2e.main(command("m"))
    same(run, whole)
    assert losses(run) == losses(whole)


def test_a_run_that_diverges_says_so_and_publishes_nothing(command: Any, tmp_path: Path) -> None:
    run = tmp_path / "m"
    more = ("--learning_rate", "1e30", "--eval_steps", "1", "--save_steps", "1")
    with pytest.raises(UserError, match=r"training diverged: .* is not a finite number"):
        train_e2e.main(command("m", *more))
    assert not (run / "model.safetensors").exists()
    assert not (run / "export").exists()
    for path in run.rglob("model.safetensors"):
        assert all(value.isfinite().all() for value in load_file(path).values()), path


def test_nothing_is_trained_beyond_the_last_checkpoint(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the checkpoint of the last of ``--max_steps`` and the end."""
    arguments = ("--max_steps", "4")
    train_e2e.main(command("whole", *arguments))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer_Prefix, "_finalize_training", _kill, raising=True)
        with pytest.raises(KeyboardInterrupt):
            train_e2e.main(command("m", *arguments))
    assert (tmp_path / "m" / "checkpoint-4").is_dir()
    train_e2e.main(command("m", *arguments))
    same(tmp_path / "m", tmp_path / "whole")
    assert losses(tmp_path / "m") == losses(tmp_path / "whole")


def _kill(*args: object) -> None:
    raise KeyboardInterrupt


def test_the_same_bits_twice_with_any_number_of_workers(command: Any, tmp_path: Path) -> None:
    """Also where a run is stopped within an epoch and goes on."""
    workers = ("--dataloader_num_workers", "2")
    for name, more in (("one", ()), ("two", ()), ("three", workers)):
        arguments = command(name, "--length_groups", "yes", *more)
        if more:
            interrupted(arguments)
        train_e2e.main(arguments)
    for name in ("two", "three"):
        same(tmp_path / "one", tmp_path / name)
        assert losses(tmp_path / "one") == losses(tmp_path / name)


def test_an_older_best_evaluation_is_not_replaced_by_a_worse_one(
    command: Any, whole: Path, tmp_path: Path
) -> None:
    """Killed behind an evaluation and before a checkpoint: the run begins again, the best stays."""
    interrupted(command("m", "--save_steps", "100"), step=4)
    (best,) = (tmp_path / "m").glob("m-checkpoint-*")
    before = (best / "model.safetensors").stat().st_mtime_ns
    train_e2e.main(command("m", "--save_steps", "100"))
    (now,) = (tmp_path / "m").glob("m-checkpoint-*")
    (expected,) = whole.glob("whole-checkpoint-*")
    assert now.name.rpartition("-")[2] == expected.name.rpartition("-")[2]
    if now == best:
        assert (now / "model.safetensors").stat().st_mtime_ns == before


def test_every_flag_belongs_to_a_run_but_those_that_change_no_number(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("a b")
    flags = f"--output_dir o --train_data_file t --eval_data_file e --init_file {tmp_path}/words "
    flags += "--init text --tuning_mode prefixtune --optim_prefix yes --use_cpu --report_to none"
    request = parse(flags.split())
    parts = (request.model, request.data, request.tuning, RunFlags)
    names = {field.name for part in parts for field in fields(part)}
    assert names - request.settings().keys() == {
        *("cache_dir", "output_dir", "overwrite_output_dir", "logging_dir", "results_dir"),
        *("test_data_file", "generate", "score", "evaluate_train_set"),  # after training
        *("init_random", "line_by_line", "model_type"),  # without effect
        *("logging_steps", "report_to", "save_steps", "save_strategy", "save_total_limit"),
        *("cuda_graphs", "shard_model"),
        *("sample_seed", "parametrize_emb", "matching_objective", "distill_positions"),  # not read
    }
    assert request.settings()["world_size"] == 1
    assert {*request.data_files()} == {"train_data_file", "eval_data_file", "init_file"}


@pytest.mark.parametrize(
    ("run", "asked"),
    [
        ({}, []),
        ({"world_size": 2}, ["check_processes"]),
        ({"world_size": 2, "shard_model": "yes"}, ["check_processes", "check_sharding"]),
        ({"label_smoothing": 0.1}, ["check_smoothing"]),
        ({"shard_model": "yes"}, "--shard_model yes: there is one process"),
        ({"fp16": True}, "--dtype bfloat16: not with the other precision"),
        ({"bf16": True}, []),
        ({"eval_strategy": "steps"}, "--eval_strategy steps: needs --eval_data_file"),
    ],
)
def test_a_tuning_mode_is_asked_for_what_a_run_needs(
    run: dict[str, Any], asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {"world_size": 1, "shard_model": "no", "label_smoothing": 0.0, "eval_strategy": "no"}
    made = SimpleNamespace(**{**plain, "bf16": False, "fp16": False, **run})
    monkeypatch.setattr(run_arguments, "complete", lambda *_: made)
    seen: list[str] = []
    for name in ("check_processes", "check_sharding", "check_smoothing"):
        monkeypatch.setattr(FineTune, name, lambda _, name=name: seen.append(name))
    flags = "--tuning_mode finetune --train_data_file t --output_dir o --dtype bfloat16".split()
    if isinstance(asked, str):
        with pytest.raises(UserError, match=asked):
            parse(flags)
        return
    parse(flags)
    assert seen == asked
