"""What ends a training, and in which words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness import loop
from prefix_tuning.errors import UserError


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
