"""Runs of a table at the same time, each in a process of its own."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from experiments.estimate import duration, n_inputs, n_steps
from experiments.launchers.base import JOB, RUN, STEPS
from experiments.results import read_result
from experiments.spec import Run
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, write_json

WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Job:
    """A run and where its files are."""

    run: Run
    folder: Path
    command: str = ""
    """Makes the run anywhere."""

    @property
    def result(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.json")

    @property
    def failure(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.failed.json")

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def name(self) -> str:
        return f"{self.run.experiment.name} {self.run.row.name} {self.run.name}"

    def is_done(self) -> bool:
        """Whether there is a result.

        Raises:
            UserError: there is one of other settings, or the beginning of such a run.
        """
        if self.result.is_file():
            mend = "remove the file and the folder beside it"
            self._check_same(read_result(self.result)["settings"], f"{self.result} was made", mend)
            return True
        begun = any((self.folder / name).exists() for name in (RUN, STEPS))
        if begun and (self.folder / JOB).is_file():
            settings = self._begun_settings()
            self._check_same(settings, f"{self.folder} was begun", "remove the folder")
        return False

    def _begun_settings(self) -> dict[str, Any]:
        settings = read_json_object(self.folder / JOB).get("settings")
        if not isinstance(settings, dict):
            raise UserError(f"{self.folder / JOB} has no settings: remove the folder")
        return settings

    def _check_same(self, before: dict[str, Any], what: str, mend: str) -> None:
        now = self.run.settings
        for part in before.keys() | now.keys():
            was, wanted = before.get(part), now.get(part)
            if was != wanted:
                if isinstance(was, dict) and isinstance(wanted, dict):
                    names = sorted(was.keys() | wanted.keys())
                    part = next(n for n in names if was.get(n) != wanted.get(n))
                    was, wanted = was.get(part), wanted.get(part)
                raise UserError(
                    f"{what} with {part} {was}, now it is {wanted}: use the old value, another "
                    f"--results_dir, or {mend}"
                )

    def describe(self, work: Path, keep_checkpoints: bool) -> dict[str, Any]:
        """What the process of the run has to know."""
        run = self.run
        return {
            "table": run.experiment.name,
            "row": run.row.name,
            "seed": run.seed,
            "subset": run.subset,
            "level": run.level,
            "command": self.command,
            "scale": run.scale.name,
            "launcher": run.experiment.launcher.name,
            "scorer": run.experiment.scorer,
            "columns": run.row.columns,
            "splits": list(dict.fromkeys(run.experiment.splits)),
            "settings": run.settings,
            "steps": n_steps(run),
            "n_inputs": n_inputs(run),
            "folder": str(self.folder),
            "result": str(self.result),
            "log": str(self.log),
            "work": str(work),
            "keep_checkpoints": keep_checkpoints,
        }


def slots(jobs: int | None, gpus: str | None) -> list[str | None]:
    """For each run at a time, the GPU that it may see; None for all.

    Raises:
        UserError: ``gpus`` is no list of numbers.
    """
    if gpus is None:
        return [None] * (jobs or 1)
    numbers = [number.strip() for number in gpus.split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise UserError(f"--gpus {gpus}: expected numbers such as 0,1")
    return [numbers[i % len(numbers)] for i in range(jobs or len(numbers))]


def spawn(
    job: Job, settings: dict[str, Any], gpu: str | None, jobs: int
) -> subprocess.Popen[bytes]:
    """Start the process of a run."""
    job.folder.mkdir(parents=True, exist_ok=True)
    job.failure.unlink(missing_ok=True)
    write_json(job.folder / JOB, settings)
    environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs)), **os.environ}
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    log: IO[bytes]
    with job.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-u", str(WORKER), str(job.folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def reason(status: int, log: Path) -> str:
    """Why a run ended with ``status``: what it printed last."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
    last = lines[-1].removeprefix("error: ") if lines else "it printed nothing"
    if status < 0:
        return f"ended by {signal.Signals(-status).name}, perhaps for want of memory; last: {last}"
    return last


class Pool:
    """Runs jobs at the same time, one in each slot, for ``minutes`` or until all are done."""

    def __init__(
        self,
        free: Sequence[str | None],
        work: Path,
        keep_checkpoints: bool,
        minutes: float | None = None,
    ) -> None:
        self.free, self.n_slot = list(free), len(free)
        self.work, self.keep = work, keep_checkpoints
        self.end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self.running: list[tuple[Job, subprocess.Popen[bytes], str | None, float]] = []
        self.failed: list[Job] = []

    def run(self, jobs: Sequence[Job]) -> None:
        """Run all; failures are recorded and the others go on."""
        waiting = list(jobs)
        with tqdm(total=len(jobs), unit="run", disable=None) as bar:
            try:
                while waiting or self.running:
                    if time.monotonic() >= self.end:
                        tqdm.write("the time is up; the same command goes on")
                        break
                    while waiting and self.free:
                        self._start(waiting.pop(0), bar)
                    self._collect(bar)
            finally:
                for _, process, _, _ in self.running:
                    process.terminate()
                for _, process, _, _ in self.running:
                    process.wait()

    def _start(self, job: Job, bar: tqdm[Any]) -> None:
        if why := job.run.experiment.launcher.missing_data(job.run.settings):
            self._fail(job, why, None)
            bar.update()
            return
        gpu = self.free.pop(0)
        process = spawn(job, job.describe(self.work, self.keep), gpu, self.n_slot)
        self.running.append((job, process, gpu, time.monotonic()))
        tqdm.write(f"started   {job.name}; see {job.log}")

    def _collect(self, bar: tqdm[Any]) -> None:
        """Wait until a run ends, and see how."""
        ended = [entry for entry in self.running if entry[1].poll() is not None]
        if not ended:
            time.sleep(0.1)
        for entry in ended:
            job, process, gpu, since = entry
            self.running.remove(entry)
            self.free.append(gpu)
            took = duration(time.monotonic() - since)
            if process.returncode == 0 and job.result.is_file():
                tqdm.write(f"finished  {job.name} in {took}: {summary(job)}")
            else:
                self._fail(job, reason(process.returncode, job.log), process.returncode)
            bar.update()

    def _fail(self, job: Job, why: str, status: int | None) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        write_json(job.failure, {"reason": why, "status": status, "log": str(job.log)})
        self.failed.append(job)
        tqdm.write(f"failed    {job.name}: {why}")


def summary(job: Job) -> str:
    """The scores of a finished run in a line."""
    scores = next(iter(read_result(job.result)["scores"].values()))
    return "  ".join(f"{name} {value:.2f}" for name, value in scores.items() if value is not None)
