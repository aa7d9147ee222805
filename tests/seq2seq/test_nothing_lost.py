"""Runs that diverge, are changed, damaged, killed while they write, or asked to stop."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BartForConditionalGeneration

from harness import manifest
from harness.stop import Diverged, Stop
from prefix_tuning.errors import Terminated, UserError
from seq2seq import finetune, run_folder
from seq2seq.arguments import Arguments, parse
from seq2seq.callbacks import OurModelCheckPoint, StopEarly, StopWhenAsked
from seq2seq.processes import check_started


def command(base: Path, data: Path, output: Path, *more: str) -> list[str]:
    """Two epochs of five steps, a checkpoint every second step."""
    return [
        *("--do_train", "--model_name_or_path", str(base), "--data_dir", str(data)),
        *("--output_dir", str(output), "--preseqlen", "3", "--mid_dim", "8"),
        *("--learning_rate", "0.01", "--train_batch_size", "4", "--eval_batch_size", "4"),
        *("--num_train_epochs", "2", "--num_workers", "0", "--accelerator", "cpu"),
        *("--eval_beams", "1", "--eval_min_gen_length", "2", "--eval_max_gen_length", "8"),
        *("--max_source_length", "24", "--max_target_length", "12", "--logger_name", "none"),
        *("--save_steps", "2", "--logging_steps", "3", *more),
    ]


def at_checkpoint(monkeypatch: pytest.MonkeyPatch, number: int, act: Any) -> None:
    """Call ``act`` when the checkpoint to resume from was written ``number`` times."""
    left, original = [number], OurModelCheckPoint._save_to_resume

    def save(self: Any, *args: Any) -> None:
        original(self, *args)
        left[0] -= 1
        if left[0] == 0:
            act()

    monkeypatch.setattr(OurModelCheckPoint, "_save_to_resume", save)


class Killed(Exception):
    pass


def kill() -> None:
    raise Killed


def stopped(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        at_checkpoint(patch, 1, kill)
        with pytest.raises(Killed):
            finetune.main(arguments)


def names(run: Path) -> set[str]:
    return {path.name for path in run.iterdir()}


# Divergence.


def test_a_run_that_diverges_says_so_and_publishes_nothing(
    bart_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    run = tmp_path / "m"
    arguments = command(bart_folder, pairs, run, "--save_steps", "1", "--warmup_steps", "3")
    arguments[arguments.index("--learning_rate") + 1] = "1e30"  # the first step has rate 0
    with pytest.raises(
        Diverged, match=r"diverged: .* is not a finite number; .*nothing is published"
    ):
        finetune.main(arguments)
    assert manifest.fault(run / "last.ckpt") is None
    state = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values())
    assert not names(run) & {"model.safetensors", "export", "log_history.json", run_folder.BEST}


def test_weights_that_are_no_numbers_are_not_kept(
    bart_folder: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the last step before a validation is a number still."""
    original = finetune.SummarizationModule.on_validation_epoch_start

    def damage(self: Any) -> None:
        with torch.no_grad():
            next(self.model.parameters()).view(-1)[0] = float("nan")
        original(self)

    monkeypatch.setattr(finetune.SummarizationModule, "on_validation_epoch_start", damage)
    with pytest.raises(Diverged, match="at step 5 is not a finite number"):
        finetune.main(command(bart_folder, pairs, tmp_path / "m"))
    assert run_folder.BEST not in names(tmp_path / "m")


@pytest.mark.parametrize(
    ("values", "stops"),
    [
        # An undefined score does not end a run whose loss falls.
        ([(float("nan"), 3.0), (float("nan"), 2.0), (float("nan"), 1.0)], [False] * 3),
        ([(float("nan"), 3.0), (float("nan"), 3.0), (float("nan"), 4.0)], [False, False, True]),
        ([(1.0, 3.0), (0.5, 2.0), (0.9, 1.0)], [False, False, True]),
        ([(1.0, 3.0), (0.5, 2.0), (1.5, 9.0)], [False, False, False]),
        ([(1.0, 3.0), (0.5, 2.0), (1.5, 9.0), (1.0, 9.0)], [False] * 4),  # not two in a row
    ],
)
def test_stopping_early(values: list[tuple[float, float]], stops: list[bool]) -> None:
    callback, found = StopEarly("rouge2", 2), []
    for rouge, loss in values:
        state, callback = callback.state_dict(), StopEarly("rouge2", 2)
        callback.load_state_dict(state)
        metrics = {"val_rouge2": torch.tensor(rouge), "val_loss": torch.tensor(loss)}
        trainer: Any = SimpleNamespace(callback_metrics=metrics, should_stop=False)
        callback.on_validation_end(trainer, None)
        found.append(trainer.should_stop)
    assert found == stops


@pytest.mark.parametrize("smoothing", ["0", "0.1"])
def test_the_validation_loss_does_not_depend_on_the_batch(
    smoothing: str, bart_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    losses, legacy = [], []
    for size in ("1", "4"):
        more = ("--max_steps", "1", "--label_smoothing", smoothing, "--max_target_length", "60")
        arguments = command(bart_folder, pairs, tmp_path / size, *more)
        arguments[arguments.index("--eval_batch_size") + 1] = size
        finetune.main(arguments)
        (entry,) = json.loads((tmp_path / size / "metrics.json").read_text())["val"]
        losses.append(entry["val_avg_loss"])
        legacy.append(entry["legacy_loss"])
        history = json.loads((tmp_path / size / "log_history.json").read_text())
        assert history[-1]["eval_loss"] == pytest.approx(losses[-1])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert legacy[0] != pytest.approx(legacy[1], rel=1e-4)


# Something changed between stop and resume.


def test_other_data_or_another_base_model_is_refused(
    bart_folder: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, data, run = tmp_path / "base", tmp_path / "data", tmp_path / "m"
    shutil.copytree(bart_folder, base)
    shutil.copytree(pairs, data)
    arguments = command(base, data, run)
    stopped(arguments, monkeypatch)
    for name in ("train.source", "train.target", "val.source", "val.target"):
        text = (data / name).read_text()
        (data / name).write_text(text.replace(text.split()[0], "Another", 1))
        with pytest.raises(UserError, match=rf"other data: the content of .*{name} \(--data_dir"):
            finetune.main(arguments)
        (data / name).write_text(text)
    weights = (base / "model.safetensors").read_bytes()
    model = BartForConditionalGeneration.from_pretrained(base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    model.save_pretrained(base)
    with pytest.raises(UserError, match="whose weights differ from those of the model given"):
        finetune.main(arguments)
    (base / "model.safetensors").write_bytes(weights)
    moved = tmp_path / "moved"
    data.rename(moved)
    arguments[arguments.index(str(data))] = str(moved)
    finetune.main(arguments)  # the content decides, not the path
    (moved / "train.source").write_text("x\n" * 20)
    with pytest.raises(UserError, match=r"train.source \(--data_dir\) has changed"):
        finetune.main(arguments)  # of a finished run too


def test_every_flag_belongs_to_a_run_but_those_that_change_no_number(tmp_path: Path) -> None:
    names = {field.name for field in fields(Arguments)}
    args = parse(command(tmp_path, tmp_path, tmp_path / "m"))
    assert names - run_folder.of(args).settings.keys() == {
        *("cache_dir", "fp16_opt_level", "use_dropout"),  # of no effect on a number
        *("accelerator", "strategy", "num_workers", "do_train", "output_dir"),
        *("overwrite_output_dir", "save_steps", "save_all_epochs", "logging_steps", "logger_name"),
        *("do_predict", "predict_splits", "n_test", "test_max_target_length"),  # after training
        *("decode_batch_size", "overwrite_results"),
    }


def test_a_folder_in_use(bart_folder: Path, pairs: Path, tmp_path: Path) -> None:
    arguments = command(bart_folder, pairs, tmp_path / "m")
    seen: list[str] = []

    def second() -> None:
        # A lock of the same process does not exclude itself: ask as another one.
        pid = os.fork()
        if pid == 0:
            try:
                finetune.main(arguments)
            except UserError as error:
                os._exit(0 if f"in use by process {os.getppid()}" in str(error) else 3)
            finally:
                os._exit(4)
        seen.append(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))

    with pytest.MonkeyPatch.context() as patch:
        at_checkpoint(patch, 1, second)
        finetune.main(arguments)
    assert seen == ["0"]


# Checkpoints.


@settings(deadline=None, max_examples=40)
@given(calls=st.integers(0, 12), older=st.booleans())
def test_a_kill_at_any_moment_of_a_checkpoint_leaves_a_complete_one(
    calls: int, older: bool
) -> None:
    """The system's calls that change files are counted; the next one does not happen."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)

        def write(content: bytes, step: int) -> None:
            path = run_folder.next_checkpoint(folder)
            path.write_bytes(content)
            run_folder.keep(path, "run", step)

        if older:
            write(b"old", 1)
        left = [calls]
        for owner, function in ((os, "replace"), (os, "unlink"), (os, "fsync")):
            original = getattr(owner, function)

            def counted(*args: Any, original: Any = original) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return original(*args)

            patch.setattr(owner, function, counted)
        try:
            write(b"new", 2)
            is_done = True
        except Killed:
            is_done = False
        patch.undo()
        found = run_folder._checkpoints(folder)
        good = [path for path in found if manifest.fault(path, "run") is None]
        contents = [path.read_bytes() for path in good[:1]]
        assert contents in ([b"new"], [b"old"]) if older or is_done else contents in ([b"new"], [])
        assert not is_done or contents == [b"new"]
        if good:
            assert found[0] == good[0]  # nothing newer is called damaged
        write(b"third", 3)
        assert [path.read_bytes() for path in run_folder._checkpoints(folder)] == [b"third"]
        assert manifest.fault(folder / "last.ckpt", "run") is None


@pytest.mark.parametrize("calls", range(6))
def test_a_kill_while_a_folder_is_written_leaves_a_whole_one(calls: int, tmp_path: Path) -> None:
    folder, left = tmp_path / "best", [calls]

    def write(text: str) -> None:
        run_folder.whole(folder, lambda new: [(new / n).write_text(text) for n in ("a", "b")])

    def texts(path: Path) -> list[str]:
        return [(path / name).read_text() for name in ("a", "b")]

    write("old")
    with pytest.MonkeyPatch.context() as patch:
        for owner, function in ((os, "replace"), (shutil, "rmtree")):
            original = getattr(owner, function)

            def counted(*args: Any, original: Any = original, **more: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return original(*args, **more)

            patch.setattr(owner, function, counted)
        with contextlib.suppress(Killed):
            write("new")
    there = folder if folder.exists() else tmp_path / "best.old"
    assert texts(there) in (["old"] * 2, ["new"] * 2)
    write("third")
    assert texts(folder) == ["third"] * 2
    assert names(tmp_path) == {"best"}


def test_nothing_goes_through_the_systems_temporary_folder(
    bart_folder: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    finetune.main(command(bart_folder, pairs, tmp_path / "m", "--num_train_epochs", "1"))
    assert not list((tmp_path / "m").glob("*.ckpt*"))
    assert not list((tmp_path / "m").glob("*.tmp"))


@pytest.mark.parametrize(
    ("number", "accumulated", "position"),
    [(signal.SIGTERM, 1, (3, (0, 3))), (signal.SIGINT, 2, (2, (0, 4)))],
)
def test_a_signal_ends_a_run_behind_a_step_with_its_checkpoint(
    number: int,
    accumulated: int,
    position: tuple[int, tuple[int, int]],
    bart_folder: Path,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It comes in the third batch; a step of two batches is not cut in two."""
    more = ("--save_steps", "100", "--gradient_accumulation_steps", str(accumulated))
    arguments = command(bart_folder, pairs, tmp_path / "m", *more)
    original = finetune.SummarizationModule.training_step
    ends = Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def step(self: Any, batch: Any, index: int) -> Any:
        if (self.current_epoch, index) == (0, 2):
            os.kill(os.getpid(), number)
        return original(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(finetune.SummarizationModule, "training_step", step)
        with pytest.raises(KeyboardInterrupt) as caught:
            finetune.main(arguments)
    assert type(caught.value) is ends
    state = torch.load(tmp_path / "m" / "last.ckpt", weights_only=True)
    assert (state["global_step"], state["position"]) == position
    finetune.main(arguments)
    assert "going on from" in capsys.readouterr().out
    finetune.main(command(bart_folder, pairs, tmp_path / "whole", *more))
    for name in ("model.safetensors", "log_history.json"):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_signal_ends_a_validation_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Which is long; of several processes each would end alone."""
    stop, trainer = Stop(), SimpleNamespace(world_size=1)
    module: Any = SimpleNamespace(together=SimpleNamespace(stop=stop))
    given: Any = (trainer, module, None, None, 0)
    StopWhenAsked().on_validation_batch_end(*given)
    stop.ask(signal.SIGTERM, None)
    with pytest.raises(Terminated):
        StopWhenAsked().on_validation_batch_end(*given)
    trainer.world_size = 2
    StopWhenAsked().on_validation_batch_end(*given)


def test_processes_that_do_not_know_of_each_other_are_refused() -> None:
    check_started(1, {})
    check_started(2, {"WORLD_SIZE": "2"})
    with pytest.raises(UserError, match="--devices 1, but 2 processes were started"):
        check_started(1, {"WORLD_SIZE": "2"})
