"""Commands run by several processes, and what they log."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
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


class Forked(Rank):
    """A command whose output goes into a pipe, with the methods of Popen.

    Args:
        room: the most bytes that a file it writes may have, if there is a limit.
    """

    def __init__(
        self, script: Path, argv: list[str], folder: Path, room: int | None = None
    ) -> None:
        self.out, out = os.pipe()
        super().__init__(target=_limited, args=(room, script, argv, folder, out, {}))
        self.start()
        os.close(out)

    def communicate(self, timeout: float | None = None) -> str:
        """What it has said until it ends, which it must within ``timeout`` seconds."""
        end, said = time.monotonic() + (timeout or math.inf), []
        while True:
            if not select.select([self.out], [], [], min(1e6, max(0.0, end - time.monotonic())))[0]:
                raise subprocess.TimeoutExpired(self.name, timeout or 0.0)
            said.append(os.read(self.out, 1 << 16))
            if not said[-1]:
                os.close(self.out)
                self.wait(10)
                return b"".join(said).decode(errors="replace")


def _limited(room: int | None, *args: Any) -> None:
    if room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    _run(*args)


def _run(script: Path, argv: list[str], folder: Path, log: int, env: dict[str, str]) -> None:
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
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
        with (folder / f"log{rank}.txt").open("a") as log:
            env = env if n_process > 1 else {}
            process = Rank(target=_run, args=(script, argv, folder, log.fileno(), env))
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
