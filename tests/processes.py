"""Commands run by several processes, and what they log."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path


def start(script: Path, argv: list[str], folder: Path, n_process: int) -> list[subprocess.Popen]:
    """As torchrun starts them, without the agent that watches them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = []
    for rank in range(n_process):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        if n_process > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n_process)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, str(script), *argv]
        with (folder / f"log{rank}.txt").open("a") as log:
            process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
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
