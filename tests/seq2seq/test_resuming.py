"""Runs that are stopped and go on, and runs on several processes, against uninterrupted ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from seq2seq import finetune
from seq2seq.callbacks import OurModelCheckPoint


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
