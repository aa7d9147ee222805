"""What ends a training, and in which words."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness import loop
from harness.stop import Stop
from prefix_tuning.errors import Terminated, UserError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("size mismatch for wte"), UserError),
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
    ],
)
def test_a_lack_of_memory_is_no_damage_of_the_checkpoint(
    error: Exception, expected: type[Exception], tmp_path: Path
) -> None:
    def train(**_options: object) -> None:
        raise error

    folder: Any = SimpleNamespace(identity=lambda: "", path=tmp_path)
    trainer: Any = SimpleNamespace(is_world_process_zero=lambda: True, train=train, has_begun=False)
    with pytest.raises(expected, match=str(error)):
        loop.train(trainer, folder, tmp_path / "checkpoint-2")


@pytest.mark.parametrize(
    ("second", "expected"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_second_signal_ends_training_at_once(
    second: int, expected: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    stop = Stop()
    stop.end()
    stop.ask(signal.SIGTERM + signal.SIGINT - second, None)
    assert "again: at once" in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt) as raised:
        stop.ask(second, None)
    assert raised.type is expected
