"""Commands run by several processes, and what they log."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor


class Rank(multiprocessing.get_context("fork").Process):
    """A process with the methods of Popen; forked, since imports take longer than these runs."""

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.join(timeout)
        if self.exitcode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.name, timeout)
        return self.exitcode

    def send_signal(self, number: int) -> None:
        assert self.pid is not None
        os.kill(self.pid, number)


def _run(script: Path, argv: list[str], folder: Path, log: Path, env: dict[str, str]) -> None:
    with log.open("a", buffering=1) as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        sys.stdout = sys.stderr = file
        os.chdir(folder)
        os.environ |= env
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        AcceleratorState._reset_state(reset_partial_state=True)  # of runs before this one
        GradientState._reset_state()
        sys.argv = [str(script), *argv]
        runpy.run_path(str(script), run_name="__main__")


def start(script: Path, argv: list[str], folder: Path, n_process: int) -> list[Rank]:
    """As torchrun starts them, without the agent that watches them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = []
    for rank in range(n_process):
        env = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n_process)}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        log = folder / f"log{rank}.txt"
        process = Rank(target=_run, args=(script, argv, folder, log, env if n_process > 1 else {}))
        process.start()
        started.append(process)
    return started


def run(script: Path, argv: list[str], folder: Path, n_process: int) -> None:
    folder.mkdir(exist_ok=True)
    started = start(script, argv, folder, n_process)
    try:
        for rank, process in enumerate(started):
            assert process.wait(300) == 0, (folder / f"log{rank}.txt").read_text()
    finally:
        for process in started:
            process.kill()


def losses(path: Path) -> list[float]:
    found = json.loads(path.read_text(encoding="utf-8"))
    history = found if isinstance(found, list) else found["log_history"]
    return [log[key] for log in history for key in ("loss", "eval_loss") if key in log]


def shared(make: Callable[[], Any], model: Any, batches: list[Any], n_row: int) -> Tensor:
    """The mean over processes of their losses of the last batches of an epoch.

    Args:
        make: a SharingTrainer, without what is set here.
        batches: of each process.
        n_row: of the data set; those that come twice are the last ones.
    """
    told: list[list[Tensor]] = [[] for _ in batches]

    def loss(rank: int, is_told: bool) -> Tensor:
        asked = iter(range(9))

        def gather(value: Tensor) -> Tensor:
            if is_told:
                at = next(asked)
                return torch.cat([values[at] for values in told])
            told[rank].append(value)
            return value

        loader = SimpleNamespace(dataset=range(n_row))
        state = SimpleNamespace(end_of_dataloader=True, active_dataloader=loader)
        trainer = make()
        args: Any = SimpleNamespace(world_size=len(batches), process_index=rank)
        args.device, args.average_tokens_across_devices = torch.device("cpu"), False
        accelerator: Any = SimpleNamespace(gather=gather, gradient_state=state)
        trainer.args, trainer.accelerator = args, accelerator
        own = trainer.own_rows(batches[rank])
        return trainer.compute_loss(model, own)

    for rank in range(len(batches)):
        loss(rank, is_told=False)
    return torch.stack([loss(rank, is_told=True) for rank in range(len(batches))]).mean()
