"""Runs that are stopped and go on, and runs on several processes, against uninterrupted ones."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.utils.data import BatchSampler, DistributedSampler

from prefix_tuning.errors import UserError
from seq2seq import finetune
from seq2seq.callbacks import OurModelCheckPoint
from seq2seq.samplers import ResumedBatches


def command(base: Path, data: Path, output: Path, *more: str) -> list[str]:
    """Two epochs of five steps."""
    return [
        *("--do_train", "--model_name_or_path", str(base), "--data_dir", str(data)),
        *("--output_dir", str(output), "--preseqlen", "3", "--mid_dim", "8"),
        *("--learning_rate", "0.01", "--train_batch_size", "4", "--eval_batch_size", "4"),
        *("--num_train_epochs", "2", "--num_workers", "0", "--accelerator", "cpu"),
        *("--eval_beams", "1", "--eval_min_gen_length", "2", "--eval_max_gen_length", "8"),
        *("--max_source_length", "24", "--max_target_length", "12", "--logger_name", "none"),
        *("--prefix_dropout", "0.1", "--save_steps", "2", "--logging_steps", "3", *more),
    ]


def results(run: Path) -> dict[str, Any]:
    """Everything that a run leaves but times."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["val"]
    return {
        "history": json.loads((run / "log_history.json").read_text(encoding="utf-8")),
        "metrics": [{k: v for k, v in m.items() if k != "val_avg_gen_time"} for m in metrics],
        "weights": {k: v.tolist() for k, v in load_file(run / "model.safetensors").items()},
        "best": load_file(run / "checkpoint-curr_best/model.safetensors")["wte.weight"].tolist(),
    }


@given(
    n=st.integers(1, 40), size=st.integers(1, 7), done=st.integers(0, 9), epoch=st.integers(0, 3)
)
def test_resumed_batches_are_the_rest_of_one_epoch(
    n: int, size: int, done: int, epoch: int
) -> None:
    def batches(*position: int) -> ResumedBatches:
        sampler = DistributedSampler(range(n), 1, 0, shuffle=True, seed=5)
        return ResumedBatches(BatchSampler(sampler, size, drop_last=False), sampler, *position)

    whole, resumed = batches(), batches(epoch, done)
    assert len(resumed) == len(whole)
    for e, skip in ((epoch, done), (epoch + 1, 0)):
        whole.set_epoch(e)
        resumed.set_epoch(e)
        assert list(resumed) == list(whole)[skip:]
        assert sorted(i for batch in whole for i in batch) == list(range(n))


class Killed(Exception):
    pass


def train_until(saves: int, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until the checkpoint to resume from was written ``saves`` times."""
    left = [saves]
    original = OurModelCheckPoint._save_to_resume

    def stop(self: Any, *args: Any) -> None:
        original(self, *args)
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(OurModelCheckPoint, "_save_to_resume", stop)
        with pytest.raises(Killed):
            finetune.main(arguments)


@pytest.fixture(scope="module")
def whole(bart_folder: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "m"
    finetune.main(command(bart_folder, pairs, output, "--val_metric", "loss"))
    return output


@pytest.mark.parametrize("saves", range(1, 7))
def test_a_stopped_run_ends_as_if_it_had_not_been(
    bart_folder: Path,
    pairs: Path,
    whole: Path,
    tmp_path: Path,
    saves: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped after steps 2, 4, 5 (an epoch's end), 7, 8, 10."""
    arguments = command(bart_folder, pairs, tmp_path / "m", "--val_metric", "loss")
    train_until(saves, arguments, monkeypatch)
    finetune.main(arguments)
    assert results(tmp_path / "m") == results(whole)


def test_further_ways_to_go_on(
    bart_folder: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three epochs, sorted by length, two batches a step, fine-tuning, stopped twice."""
    more = ("--num_train_epochs", "3", "--gradient_accumulation_steps", "2", "--sortish_sampler")
    more += ("--tuning_mode", "finetune", "--early_stopping_patience", "3", "--val_metric", "loss")
    for name, stops in (("whole", ()), ("cut", (1, 3))):
        arguments = command(bart_folder, pairs, tmp_path / name, *more)
        arguments[arguments.index("--prefix_dropout") + 1] = "0"
        for saves in stops:
            train_until(saves, arguments, monkeypatch)
        finetune.main(arguments)
    whole, cut = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    histories = [(tmp_path / n / "log_history.json").read_bytes() for n in ("whole", "cut")]
    assert histories[0] == histories[1]


def test_a_run_killed_after_it_was_to_stop_early_does_not_train_on(
    bart_folder: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--num_train_epochs", "9", "--early_stopping_patience", "1", "--n_train", "4")
    arguments = command(bart_folder, pairs, tmp_path / "m", *more)
    arguments[arguments.index("--learning_rate") + 1] = "1e-30"  # ROUGE stays what it is
    train_until(2, arguments, monkeypatch)
    finetune.main(arguments)
    assert len(results(tmp_path / "m")["metrics"]) == 2


@pytest.mark.parametrize(
    ("more", "stops"),
    [
        # Resumed after step 4, whose next batch is half of step 5.
        ("--gradient_accumulation_steps 2", (3, 1)),
        ("--max_steps 2", (1,)),
        ("--max_steps 4", (2,)),
        ("--max_steps 7", (3,)),  # at the end of an epoch
        ("--max_steps 7 --save_steps 7", (2,)),
    ],
)
def test_ways_to_go_on_that_end_alike(
    bart_folder: Path,
    pairs: Path,
    tmp_path: Path,
    more: str,
    stops: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = [
        command(bart_folder, pairs, tmp_path / name, *more.split()) for name in ("whole", "cut")
    ]
    for saves in stops:
        train_until(saves, runs[1], monkeypatch)
    for arguments in runs:
        finetune.main(arguments)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


def test_a_damaged_checkpoint(
    bart_folder: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named and set aside, never deleted; nothing begins from zero by itself."""
    arguments = command(bart_folder, pairs, tmp_path / "m")
    train_until(1, arguments, monkeypatch)
    path = tmp_path / "m" / "last.ckpt"
    whole, manifest = path.read_bytes(), path.with_name("last.ckpt.manifest.json")
    sealed = manifest.read_text()
    flipped = bytes([*whole[:5000], whole[5000] ^ 1, *whole[5001:]])
    for aside, content in enumerate((b"", whole[: len(whole) // 2], flipped), 1):
        path.write_bytes(content)
        manifest.write_text(sealed)
        for _ in range(2):  # the second time there is none any more
            with pytest.raises(UserError, match=r"last.ckpt.*; to train it again add"):
                finetune.main(arguments)
            assert len(list((tmp_path / "m").glob("set-aside-*last.ckpt"))) == aside
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"last.ckpt"):  # a checkpoint needs its manifest
        finetune.main(arguments)
    manifest.write_text(sealed)  # and is known to be lost by it
    with pytest.raises(UserError, match=r"last\.ckpt lacks last\.ckpt: copy it again"):
        finetune.main(arguments)


def killed(arguments: list[str]) -> None:
    original = OurModelCheckPoint._save_to_resume

    def kill(self: Any, *args: Any) -> None:
        original(self, *args)
        os.kill(os.getpid(), signal.SIGKILL)

    OurModelCheckPoint._save_to_resume = kill
    finetune.main(arguments)


def test_kill_9_with_workers_and_settings_that_changed(
    bart_folder: Path, pairs: Path, whole: Path, tmp_path: Path
) -> None:
    arguments = command(bart_folder, pairs, tmp_path / "m", "--val_metric", "loss")
    arguments[arguments.index("--num_workers") + 1] = "2"
    process = multiprocessing.get_context("fork").Process(target=killed, args=(arguments,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(UserError, match="was started with --seed 42, now it is 7"):
        finetune.main([*arguments, "--seed", "7"])
    assert not (tmp_path / "m" / "log_history.json").exists()
    finetune.main(arguments)
    assert results(tmp_path / "m") == results(whole)


def one_of_two(rank: int, port: int, arguments: list[str]) -> None:
    """A process of a run whose second one is killed behind the first checkpoint."""
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    original = OurModelCheckPoint._save_to_resume

    def kill(self: Any, trainer: Any, *args: Any) -> None:
        original(self, trainer, *args)
        trainer.strategy.barrier()
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    OurModelCheckPoint._save_to_resume = kill
    try:
        finetune.main(arguments)
    except UserError as error:
        os._exit(7 if "another process of this run has ended" in str(error) else 1)


def test_two_processes_train_as_one_with_their_batches(
    bart_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    """17 examples: the last batch of an epoch is one example, which the first process has.

    It also has two of the three batches that are validated.

    One process is killed behind its first checkpoint; the same command goes on.
    """
    more = ("--dropout", "0", "--attention_dropout", "0", "--prefix_dropout", "0", "--n_train")
    more += ("17", "--max_target_length", "60", "--logging_steps", "1", "--n_val", "5")
    two = command(bart_folder, pairs, tmp_path / "two", *more, "--devices", "2")
    two += ["--strategy", "ddp"]
    two[two.index("--eval_batch_size") + 1] = "2"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=one_of_two, args=(rank, port, two)) for rank in (0, 1)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [7, -signal.SIGKILL]
    again = subprocess.run(
        [sys.executable, "finetune.py", *two],
        cwd=ROOT / "seq2seq",  # without installation, from inside the folder
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert "going on from" in again.stdout
    one = command(bart_folder, pairs, tmp_path / "one", *more)
    one[one.index("--train_batch_size") + 1] = "8"
    one[one.index("--eval_batch_size") + 1] = "2"
    finetune.main(one)
    found, wanted = (results(tmp_path / name) for name in ("two", "one"))
    assert len(wanted["history"]) == 8
    for log, other in zip(found["history"], wanted["history"], strict=True):
        assert log == pytest.approx(other, rel=1e-5)
    for name, value in wanted["weights"].items():
        ours = torch.tensor(found["weights"][name])
        assert torch.allclose(ours, torch.tensor(value), atol=1e-5, rtol=0), name
    for scores, others in zip(found["metrics"], wanted["metrics"], strict=True):
        assert scores == pytest.approx(others, rel=1e-5)
