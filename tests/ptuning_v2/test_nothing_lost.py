"""P-tuning's runs that are stopped, damaged, changed or diverge."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM

from harness import graphs
from prefix_tuning.errors import Terminated, UserError
from ptuning_v2 import run
from ptuning_v2.training import outputs
from ptuning_v2.training.trainer_base import BaseTrainer

WORDS = "a good film that is bad and long".split()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "SST-2"
    folder.mkdir(parents=True)
    for split, n in (("train", 8), ("dev", 6)):
        rows = [f"{WORDS[i % 8]} {WORDS[i % 3]}\t{i % 2}" for i in range(n)]
        (folder / f"{split}.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture
def command(bert_folder: Path, data: Path, tmp_path: Path) -> Any:
    def make(name: str, *more: str) -> list[str]:
        given = f"--model_name_or_path {bert_folder} --data_dir {data.parent} --task_name glue "
        given += f"--output_dir {tmp_path / name} --dataset_name sst2 --do_train --do_eval "
        given += "--prefix --pre_seq_len 2 --max_seq_length 8 --per_device_train_batch_size 4 "
        given += "--num_train_epochs 3 --eval_strategy epoch --report_to none --use_cpu "
        given += "--learning_rate 0.01 --save_total_limit 2 --disable_tqdm true"
        return [*given.split(), *more]

    return make


@pytest.fixture
def bert_folder(bert_tokenizer: Any, tmp_path: Path) -> Path:
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(bert_tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
    )
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    bert_tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def stopped(arguments: list[str], step: int, number: int | None = None) -> None:
    """Ctrl-C at once, or a signal, at a step."""
    original = BaseTrainer.training_step

    def stopping(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == step:
            if number is None:
                raise KeyboardInterrupt
            os.kill(os.getpid(), number)
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseTrainer, "training_step", stopping)
        with pytest.raises(Terminated if number else KeyboardInterrupt):
            run.main(arguments)


def test_stopped_damaged_and_gone_on_is_uninterrupted(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.main(command("whole"))
    stopped(command("m"), 5)
    (tmp_path / "m" / "checkpoint-4" / "trainer_state.json").write_text("")
    stopped(command("m"), 3, signal.SIGTERM)
    assert (
        "checkpoint-4 is damaged (trainer_state.json): it is set aside" in capsys.readouterr().out
    )
    assert {p.name for p in (tmp_path / "m").glob("checkpoint-*")} == {
        "checkpoint-2",
        "checkpoint-4",
    }
    run.main(command("m"))
    for name in ("best", "checkpoint-6"):
        one, other = (load_file(tmp_path / n / name / "model.safetensors") for n in ("whole", "m"))
        assert all(torch.equal(one[key], other[key]) for key in one)
    found = [json.loads((tmp_path / n / "best_results.json").read_text()) for n in ("whole", "m")]
    assert found[0] == found[1]
    assert not (tmp_path / "m" / "least-loss").exists()


def test_the_same_bits_twice_with_any_number_of_workers(command: Any, tmp_path: Path) -> None:
    """Also where a run is stopped within an epoch and goes on."""
    found = []
    for workers in ("0", "2"):
        more = ("--num_train_epochs", "2", "--dataloader_num_workers", workers)
        more += ("--logging_steps", "1", "--save_strategy", "steps", "--save_steps", "1")
        if workers == "2":
            stopped(command(workers, *more), 3)
        run.main(command(workers, *more))
        state = json.loads((tmp_path / workers / "trainer_state.json").read_text())
        losses = [log["loss"] for log in state["log_history"] if "loss" in log]
        weights = (tmp_path / workers / "export" / "prefix.safetensors").read_bytes()
        found.append((losses, weights))
    assert found[0] == found[1]
    assert len(set(found[0][0])) == 4


def test_nothing_is_left_to_go_on_from(command: Any, tmp_path: Path) -> None:
    stopped(command("m", "--save_total_limit", "1"), 5)
    (tmp_path / "m" / "checkpoint-4" / "optimizer.pt").unlink()
    with pytest.raises(UserError, match=r"checkpoint-4 lacks optimizer\.pt: copy it again"):
        run.main(command("m", "--save_total_limit", "1"))
    assert (tmp_path / "m" / "best").is_dir()


def test_predictions_are_not_overwritten_by_others(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict = ("--do_predict", "--predict_split", "validation")
    run.main(command("m", *predict))
    whole = (tmp_path / "m" / "SST-2.tsv").read_bytes()
    run.main(command("m", *predict))
    assert "other predictions" not in capsys.readouterr().out
    for number in ("3", "3", "2"):
        run.main(command("m", *predict, "--max_predict_samples", number))
        assert "SST-2.tsv holds other predictions: these go to" in capsys.readouterr().out
    assert (tmp_path / "m" / "SST-2.tsv").read_bytes() == whole
    lines = [
        f.read_bytes().count(b"\n") for f in sorted((tmp_path / "m").glob("predict*/SST-2.tsv"))
    ]
    assert lines == [4, 3]
    best = ("--prefix_checkpoint", str(tmp_path / "m" / "best"), "--max_predict_samples", "2")
    again = [word for word in command("m", *predict, *best) if word != "--do_train"]
    run.main([*again, "--overwrite_output_dir"])
    assert (tmp_path / "m" / "SST-2.tsv").read_bytes().count(b"\n") == 3
    assert not list((tmp_path / "m").glob(".[!l]*"))  # nothing is left but the lock


def test_scores_are_not_overwritten_by_others(
    command: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.main(command("m", "--do_predict", "--predict_split", "validation"))
    folder, kept = tmp_path / "m", {}
    for name in ("eval", "validation", "all"):
        kept[name] = (folder / f"{name}_results.json").read_bytes()
    run.main(command("m"))  # only the times differ
    assert "holds other" not in capsys.readouterr().out
    kept["eval"] = (folder / "eval_results.json").read_bytes()
    kept["all"] = (folder / "all_results.json").read_bytes()
    best = ("--prefix_checkpoint", str(folder / "best"))
    again = [word for word in command("m", *best) if word != "--do_train"]
    dev = data / "dev.tsv"
    swapped = dev.read_text().replace("\t0", "\t2").replace("\t1", "\t0").replace("\t2", "\t1")
    dev.write_text(swapped)  # the same texts, and so the same predictions: other labels
    for _ in range(2):
        run.main([*again, "--do_predict", "--predict_split", "validation"])
        said = capsys.readouterr().out
        assert "eval_results.json holds other scores: these go to scores-2" in said
        assert "validation_results.json holds other predictions: these go to predictions-2" in said
    for name, content in kept.items():
        assert (folder / f"{name}_results.json").read_bytes() == content
    accuracy = [
        json.loads((f / "eval_results.json").read_text())["eval_accuracy"]
        for f in (folder, folder / "scores-2")
    ]
    assert sum(accuracy) == pytest.approx(1)
    assert not (folder / "scores-3").exists()
    run.main([*again, "--overwrite_output_dir"])
    found = json.loads((folder / "eval_results.json").read_text())
    assert found["eval_accuracy"] == accuracy[1]


NAN = float("nan")


@pytest.mark.parametrize(
    ("before", "now", "differs"),
    [
        ({"f1": 0.5, "runtime": 1.0}, {"f1": 0.5, "runtime": 2.0}, False),
        ({"f1": 0.5}, {"f1": 0.5 * (1 + 1e-6)}, False),
        ({"f1": 0.5}, {"f1": 0.501}, True),
        ({"f1": NAN}, {"f1": NAN}, False),
        ({"f1": NAN}, {"f1": 0.5}, True),
        ({"f1": 0.5, "exact": 0.25}, {"f1": 0.5}, True),
        ({"samples": 3}, {"samples": 4}, True),
        (None, {"f1": 0.5}, True),  # damaged: it is kept
    ],
)
def test_scores_differ_by_their_numbers(
    before: dict[str, float] | None, now: dict[str, float], differs: bool, tmp_path: Path
) -> None:
    path = tmp_path / "eval_results.json"
    path.write_text("{" if before is None else json.dumps(before), encoding="utf-8")
    old = path.read_bytes()
    with outputs.drafts(tmp_path) as drafted:
        outputs.write_scores(drafted, "eval", now)
        place = outputs.place(drafted, tmp_path, "scores", False)
    assert place == (tmp_path / "scores-2" if differs else tmp_path)
    assert (path.read_bytes() == old) >= differs
    outputs.add_to_all(tmp_path, {"f1": 0.25, "loss": 1.0})
    outputs.add_to_all(tmp_path, {"f1": 0.75})
    assert json.loads((tmp_path / "all_results.json").read_text()) == {"f1": 0.75, "loss": 1.0}


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_damaged_summary_of_scores_is_written_anew(
    content: str, command: Any, tmp_path: Path
) -> None:
    """A kill while an older version wrote it leaves half of it."""
    run.main(command("m"))
    path = tmp_path / "m" / "all_results.json"
    path.write_text(content)
    run.main(command("m"))
    assert "eval_accuracy" in json.loads(path.read_text())


def test_other_data_or_flags_are_refused(command: Any, data: Path, tmp_path: Path) -> None:
    run.main(command("m"))
    for name, value in (("optim", "sgd"), ("adam_beta1", "0.5"), ("dataloader_drop_last", "true")):
        with pytest.raises(UserError, match=f"was started with --{name}"):
            run.main(command("m", f"--{name}", value))
    path = data / "dev.tsv"
    path.write_text(path.read_text().replace("good", "bad"))
    with pytest.raises(UserError, match=r"other data: the content of .*dev\.tsv \(--data_dir\)"):
        run.main(command("m"))


def test_batches_that_nothing_fills(command: Any) -> None:
    more = "--dataloader_drop_last true --per_device_train_batch_size 9".split()
    with pytest.raises(UserError, match=r"8 training rows fill no batch of 9"):
        run.main(command("m", *more))


def test_a_run_that_diverges(command: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training diverged: .*lower --learning_rate"):
        run.main(command("m", "--learning_rate", "1e38"))
    assert not (tmp_path / "m" / "export").exists()
    for path in (tmp_path / "m").rglob("model.safetensors"):
        assert all(value.isfinite().all() for value in load_file(path).values()), path


def test_recorded_steps_are_eager_ones(
    command: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a recorder that repeats the computation, and a width first met behind an evaluation."""
    rows = [f"{' '.join((WORDS * 2)[: 3 * (i % 5) + 1])}\t{i % 2}" for i in range(8)]
    (data / "train.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    recorded: list[object] = []

    def forward_backward(self: Any, model: Any, inputs: Any, *args: Any) -> Any:
        raise AssertionError("an eager step")

    def record(step: Callable[[], None]) -> Callable[[], None]:
        recorded.append(step)
        return step

    monkeypatch.setattr(graphs, "obstacle", lambda trainer: None)
    monkeypatch.setattr(graphs, "CudaRecorder", lambda: record)
    for way in ("no", "auto"):
        with monkeypatch.context() as patch:
            if way == "auto":
                patch.setattr(BaseTrainer, "forward_backward", forward_backward)
            more = ("--pad_to_max_length", "false", "--max_seq_length", "20")
            run.main(command(way, "--cuda_graphs", way, *more))
    assert len(recorded) > 1
    eager, replayed = (load_file(tmp_path / w / "best/model.safetensors") for w in ("no", "auto"))
    for name, value in eager.items():
        torch.testing.assert_close(replayed[name], value, rtol=1e-6, atol=1e-7)
