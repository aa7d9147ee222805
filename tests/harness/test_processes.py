"""Two processes on the CPU train what one does with the same global batch; one of them writes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import ROOT
from processes import losses, run, start
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import PreTrainedModel, TrainingArguments

from gpt2 import run_language_modeling, training
from gpt2.train_request import parse
from harness import sharing
from prefix_tuning.checkpoint import EXPORT
from prefix_tuning.errors import UserError

GPT2 = ROOT / "gpt2" / "run_language_modeling.py"
MORE = "--generate no --length_groups yes --gradient_accumulation_steps 2".split()


def gpt2_flags(base: Path, data: Path, batch: int, *more: str, mode: int = 0) -> list[str]:
    flags = (
        f"--model_name_or_path {base} --train_data_file {data} --eval_data_file {data} "
        f"--output_dir run --tuning_mode prefixtune --optim_prefix yes --preseqlen 2 --mid_dim 4 "
        f"--per_device_train_batch_size {batch} --per_device_eval_batch_size 4 "
        f"--objective_mode {mode} --max_steps 6 --logging_steps 1 --save_steps 2 --eval_steps 2 "
        "--evaluate_during_training --learning_rate 0.01 --use_cpu --report_to none --score no"
    )
    return [*flags.split(), *more]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> tuple[Path, Path]:
    """The model and 13 lines of E2E: an epoch ends with one, which the first process has."""
    lines = (ROOT / "data" / "restaurants" / "src1_train.txt").read_text(encoding="utf-8")
    data = tmp_path_factory.mktemp("data") / "src1_train.txt"
    data.write_text("".join(lines.splitlines(keepends=True)[:13]), encoding="utf-8")
    return tiny_folder, data


@pytest.fixture(scope="module")
def alone(base: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-2 trained by one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    flags = gpt2_flags(*base, 4, *MORE, "--output_dir", str(folder))
    run_language_modeling.main(flags)  # this process: another would be seconds of imports
    return folder


def test_two_processes_train_gpt2_as_one(
    base: tuple[Path, Path], alone: Path, tmp_path: Path
) -> None:
    run(GPT2, gpt2_flags(*base, 2, *MORE), tmp_path, 2)
    assert_close(
        losses(tmp_path / "run" / "log_history.json"),
        losses(alone / "log_history.json"),
        atol=1e-5,
        rtol=1e-5,
    )
    weights = [load_file(f / "model.safetensors") for f in (alone, tmp_path / "run")]
    assert_close(*weights, atol=1e-5, rtol=1e-4)


def test_two_processes_have_half_of_the_layers_each(
    base: tuple[Path, Path], alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And train as one that has all; what a prefix is bound to is the whole model."""
    shard, held = sharing.shard, tmp_path / "held"

    def noting(model: PreTrainedModel, args: TrainingArguments) -> None:
        whole = sum(p.numel() for p in model.base_model.h.parameters())
        shard(model, args)
        own = sum(p.to_local().numel() for p in model.base_model.h.parameters())
        held.write_text(str(own / whole))

    monkeypatch.setattr(sharing, "shard", noting)
    flags = gpt2_flags(*base, 2, *MORE, "--shard_model", "yes", "--gradient_checkpointing")
    run(GPT2, flags, tmp_path, 2)
    assert float(held.read_text()) == 0.5
    whole, found = losses(alone / "log_history.json"), tmp_path / "run" / "log_history.json"
    assert_close(losses(found), whole, atol=1e-5, rtol=1e-5)
    folders = (alone, tmp_path / "run")
    assert_close(*(load_file(f / "model.safetensors") for f in folders), atol=1e-5, rtol=1e-4)
    described = [json.loads((f / "export" / EXPORT[1]).read_text()) for f in folders]
    assert described[0] == described[1]


def test_the_first_process_decodes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[object] = []
    monkeypatch.setattr(training, "train", lambda request: Path("run"))
    monkeypatch.setattr(run_language_modeling, "decode_run", lambda *a: decoded.append(a))
    request = SimpleNamespace(data=SimpleNamespace(generate="yes"), tuning=None)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        run_language_modeling.run(cast(Any, request))
    assert len(decoded) == 1


def test_processes_that_do_not_see_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = "--train_data_file t --output_dir o --tuning_mode finetune --use_cpu".split()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="--use_fsdp"):
        parse(flags)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    monkeypatch.setattr(TrainingArguments, "world_size", 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun --nproc_per_node 2"):
        parse(flags)


@pytest.mark.parametrize(
    "flags", ["--objective_mode 4", "--distill yes --finetuned_model_path teacher"]
)
def test_losses_that_processes_cannot_share_are_refused(
    flags: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "--train_data_file t --output_dir o --tuning_mode prefixtune --optim_prefix yes "
    words = (base + "--preseqlen 2 --use_cpu " + flags).split()
    parse(words)
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    with pytest.raises(UserError, match="would not train as one: start one process"):
        parse(words)


def test_what_cannot_be_sharded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    base = "--train_data_file t --output_dir o --use_cpu --shard_model yes --tuning_mode "
    prefix = "prefixtune --optim_prefix yes --preseqlen 2"
    with pytest.raises(UserError, match="start several with torchrun"):
        parse((base + prefix).split())
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    parse((base + prefix).split())
    for other in ("finetune", f"{prefix} --format_mode infix"):
        with pytest.raises(UserError, match="only for --tuning_mode prefixtune"):
            parse((base + other).split())


def test_a_rank_is_killed_and_the_command_goes_on(
    base: tuple[Path, Path], alone: Path, tmp_path: Path
) -> None:
    flags = gpt2_flags(*base, 2, *MORE)
    processes = start(GPT2, flags, tmp_path, 2)
    end = time.monotonic() + 300
    while not list((tmp_path / "run").glob("checkpoint-*/manifest.json")):
        assert time.monotonic() < end
        assert processes[1].poll() is None, (tmp_path / "log1.txt").read_text()
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGKILL)
    processes[1].wait()
    try:
        processes[0].wait(20)
    except subprocess.TimeoutExpired:  # torchrun ends the others
        processes[0].send_signal(signal.SIGTERM)
        processes[0].wait(100)
    run(GPT2, [*flags, "--shard_model", "yes"], tmp_path, 2)
    assert_close(
        losses(tmp_path / "run" / "log_history.json"),
        losses(alone / "log_history.json"),
        atol=1e-5,
        rtol=1e-5,
    )
