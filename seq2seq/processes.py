"""What the processes of one run tell each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed

from harness.stop import Stop
from prefix_tuning.errors import UserError


def check_started(devices: int, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse processes that would each train a run of its own in one folder.

    Raises:
        UserError: something like torchrun has started more than ``--devices`` says.
    """
    n_process = environment.get("WORLD_SIZE", "1")
    if devices == 1 and n_process not in ("", "0", "1"):
        raise UserError(
            f"--devices 1, but {n_process} processes were started: add --devices {n_process} "
            "--strategy ddp, or start the command by itself"
        )


def is_lost_process(error: Exception) -> bool:
    """Whether an error of this process says that another one is gone."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


class Processes:
    """The processes that train together; mostly there is one."""

    def __init__(self) -> None:
        self.has_diverged = False
        """Whether the loss of any process is not a finite number."""
        self.signal = 0
        """The signal that asked any process to stop, as of the last batch; 0 for none."""
        self.stop = Stop()

    def share(self, n_token: Tensor, loss: Tensor) -> Tensor:
        """This process's part of all target tokens of a batch, a scalar from 0 to 1.

        Args:
            n_token: its target tokens, a scalar.
            loss: of its batch, a scalar.
        """
        asked = float(self.stop.signal or 0)
        if not _several():
            self.signal = int(asked)
            self.has_diverged = not torch.isfinite(loss.detach()).item()
            return torch.ones_like(loss)
        bad = (~torch.isfinite(loss.detach())).float()
        told = torch.stack([n_token.float(), bad, n_token.new_tensor(asked, dtype=torch.float32)])
        every = [torch.empty_like(told) for _ in range(distributed.get_world_size())]
        distributed.all_gather(every, told)
        table = torch.stack(every)  # [processes, 3]
        counts, diverged, signals = table.unbind(1)
        self.signal, self.has_diverged = int(signals.max()), bool(diverged.any())
        return n_token / counts.sum()

    def gather(self, values: list[Any]) -> list[Any]:
        """The values of all processes, those of the first first."""
        if not _several():
            return values
        gathered: list[list[Any]] = [[] for _ in range(distributed.get_world_size())]
        distributed.all_gather_object(gathered, values)
        return [value for part in gathered for value in part]


def _several() -> bool:
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )
