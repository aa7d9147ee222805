"""Runs of the three systems that are killed, damaged, doubled, or have no room on the disk."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from faults import damage
from faults.readers import Fault
from processes import Forked
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
OLDER = ROOT / "tests" / "fixtures" / "older_runs"
SECONDS = 300
"""After which a command counts as one that hangs."""


@dataclass(frozen=True)
class System:
    """A system, its command, the weights that a run ends with, and the file it writes last."""

    script: str
    weights: str
    finished: str
    sealed: str = "checkpoint-*/manifest.json"
    """What is there as soon as a run can go on."""
    seed: tuple[str, str] = ("--seed", "7")


SYSTEMS = {
    "gpt2": System("gpt2/train_e2e.py", "model.safetensors", "log_history.json"),
    "ptuning_v2": System("ptuning_v2/run.py", "best/model.safetensors", "best_results.json"),
    "seq2seq": System(
        "seq2seq/finetune.py",
        "checkpoint-curr_best/model.safetensors",
        "log_history.json",
        "last.ckpt.manifest.json",
    ),
}


class Runs:
    """Small runs of a system, in a folder of its own, held against one that nothing disturbed."""

    def __init__(self, name: str, folder: Path) -> None:
        self.system, self.folder = SYSTEMS[name], folder
        shutil.copytree(OLDER / name, folder)
        self.flags = json.loads((folder / "command.json").read_text(encoding="utf-8"))
        self.script = ROOT / self.system.script
        began = time.monotonic()
        self.train("reference")
        self.seconds = time.monotonic() - began
        self.wanted = self.weights("reference")

    def weights(self, output: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / output / self.system.weights)

    def start(self, output: str, *more: str, room: int | None = None) -> Forked:
        """Start the command; ``room`` is the most bytes that a file may have."""
        return Forked(self.script, [*self.flags, "--output_dir", output, *more], self.folder, room)

    def end(self, process: Forked) -> tuple[int, str]:
        """Exit status and output.

        Raises:
            Fault: it shows a traceback, or hangs.
        """
        try:
            output = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.communicate()
            raise Fault(f"no end after {SECONDS} seconds") from error
        if "Traceback (most recent call last)" in output:
            raise Fault(f"traceback: {output.strip().splitlines()[-1]}")
        return process.wait(), output

    def train(self, output: str, *more: str) -> None:
        """Run the command to its end."""
        status, text = self.end(self.start(output, *more))
        if status:
            raise Fault(f"status {status}: {text.strip().splitlines()[-1:]}")

    def compare(self, output: str, wanted: dict[str, torch.Tensor] | None = None) -> None:
        """Hold the weights of a finished run against those of the undisturbed one."""
        found = self.weights(output)
        for name, value in (wanted or self.wanted).items():
            if name not in found or not torch.equal(found[name], value):
                raise Fault(f"other weights in silence: {name}")

    def stop(self, output: str) -> None:
        """Run the command until it has a checkpoint, and kill it."""
        process = self.start(output)
        while process.poll() is None and not [*(self.folder / output).glob(self.system.sealed)]:
            time.sleep(0.005)
        process.kill()
        process.communicate()

    def new(self, name: str) -> str:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return name


def killed(runs: Runs, chance: random.Random) -> str:
    """SIGKILL, SIGTERM or SIGINT at any moment, some times; then the same command to its end."""
    output = runs.new("killed")
    kinds = []
    for _ in range(chance.randrange(1, 4)):
        kind = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        process = runs.start(output)
        time.sleep(chance.uniform(0, 1.1 * runs.seconds))
        process.send_signal(kind)
        text = process.communicate(timeout=SECONDS)
        kinds.append(kind.name)
        if kind is not signal.SIGINT and "Traceback (most recent call last)" in text:
            raise Fault(f"{kind.name}: traceback: {text.strip().splitlines()[-1]}")
    runs.train(output)
    runs.compare(output)
    return "went on"


@contextmanager
def _small_disk(folder: Path, room: int) -> Iterator[bool]:
    """A disk of so many bytes at ``folder``, where that is allowed."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def full_disk(runs: Runs, chance: random.Random) -> str:
    """No room at some point of a run; then the same command where there is."""
    output = runs.new("full")
    size = sum(f.stat().st_size for f in (runs.folder / "reference").rglob("*") if f.is_file())
    room = max(4096, int(size * chance.uniform(0, 1.2)))
    with _small_disk(runs.folder / output, room) as mounted:
        process = runs.start(output, room=None if mounted else max(1024, room // 4))
        status, text = runs.end(process)
        if status and not text.strip():
            raise Fault("it ended without a word")
        if mounted:
            shutil.rmtree(runs.folder / "kept", ignore_errors=True)
            shutil.copytree(runs.folder / output, runs.folder / "kept")
    if mounted:
        runs.new(output)
        (runs.folder / "kept").rename(runs.folder / output)
    runs.train(output)
    runs.compare(output)
    return "refused" if status else "accepted"


def two_processes(runs: Runs, chance: random.Random) -> str:
    """The same command twice at once, or with another seed, in one folder."""
    output = runs.new("twice")
    other = chance.choice([(), runs.system.seed])
    processes = [runs.start(output)]
    time.sleep(chance.choice([0.0, 0.15, chance.uniform(0, runs.seconds)]))
    processes.append(runs.start(output, *other))
    ends = [runs.end(process) for process in processes]
    if all(status for status, _ in ends):
        raise Fault(f"both end: {[text.strip().splitlines()[-1:] for _, text in ends]}")
    if not other:
        runs.compare(output)
        return "agreed"
    if not any(status for status, _ in ends):
        raise Fault("two runs that differ share a folder, and both end well")
    if ends[0][0] == 0:
        runs.compare(output)
    return "refused"


def damaged(runs: Runs, chance: random.Random) -> str:
    """A file of a stopped run's checkpoint is damaged or missing; then the same command."""
    output = runs.new("damaged")
    if not (runs.folder / "stopped").is_dir():
        runs.stop("stopped")
    shutil.copytree(runs.folder / "stopped", runs.folder / output)
    (runs.folder / output / runs.system.finished).unlink(missing_ok=True)
    files = [f for f in (runs.folder / output).rglob("*") if f.is_file() and f.stat().st_size]
    names = {f: f.relative_to(runs.folder / output).as_posix() for f in files}
    stored = [f for f in files if "checkpoint" in names[f] or "last.ckpt" in names[f]]
    path = chance.choice(stored or files)
    _damage(path, chance)
    status, text = runs.end(runs.start(output))
    if status:
        if not text.strip():
            raise Fault("it ended without a word")
        return "refused"
    runs.compare(output)
    return "accepted"


def _damage(path: Path, chance: random.Random) -> None:
    what = chance.randrange(5)
    content = path.read_bytes()
    if what == 0:
        path.unlink()
    elif what == 1:
        path.unlink()
        path.mkdir()
    elif what == 2 and path.suffix == ".json":
        value, _ = damage.json_value(json.loads(content), chance)
        path.write_bytes(damage.dump(value))
    elif what == 3:
        path.write_bytes(content[: chance.randrange(len(content))])
    else:
        at = chance.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


CLASSES = {
    "killed": killed,
    "full disk": full_disk,
    "two processes": two_processes,
    "damaged checkpoint": damaged,
}
