"""Reproduce a table: train, decode and score all its runs, and go on where that was stopped.

    ./scripts/reproduce.sh e2e prefix --scale paper --gpus 0,1

Every run is a process of its own and leaves ``results/<scale>/<table>/<row>/<run>.json``; its files
are in the folder of that name, what it printed in ``log.txt`` there. Finished runs are skipped,
interrupted ones go on, failed ones are tried again. ``table.sh`` then prints the table.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tqdm import tqdm

from prefix_tuning.errors import UserError, run_command
from prefix_tuning.files import read_json_object, write_json
from scripts import experiments, launchers
from scripts.estimate import Estimate, duration, n_inputs, n_steps, read_result
from scripts.experiments import Overrides, Run
from scripts.launchers import JOB, STEPS

WORKER = ROOT / "scripts" / "run_experiment.py"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("table", metavar="TABLE", help=f"{', '.join(experiments.names())}, or all")
    add("rows", metavar="ROW", nargs="*", help="only these rows of the table")
    add("--scale", default="small", help="tiny, small (default) or paper")
    add("--print", action="store_true", dest="only_print", help="only say what would be done")
    add("--jobs", type=int, help="runs at a time (default: one, or one for each of --gpus)")
    add("--gpus", help="numbers of the GPUs to use, 0,1 say; each run sees one of them")
    add("--seeds", type=int, nargs="+", help="instead of the experiment's")
    add("--steps", type=int, help="training steps of every run, instead of the scale's")
    add("--inputs", type=int, help="inputs decoded and scored, instead of the scale's")
    add("--model_name_or_path", help="base model of every run, instead of the scale's")
    add("--data_dir", help="folder of the data set's files, instead of its place in data/")
    add("--keep_checkpoints", choices=["yes", "no"], default="yes", help="no: delete weights")
    add("--results_dir", type=Path, default=ROOT / "results", help="where results are kept")
    return parser


@dataclass(frozen=True)
class Task:
    """A run and where its files are."""

    run: Run
    folder: Path

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
        begun = any((self.folder / name).exists() for name in ("run", STEPS))
        if begun and (self.folder / JOB).is_file():
            settings = read_json_object(self.folder / JOB)["settings"]
            self._check_same(settings, f"{self.folder} was begun", "remove the folder")
        return False

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

    def job(self, work: Path, keep_checkpoints: bool) -> dict[str, Any]:
        """What the process of the run has to know."""
        run = self.run
        return {
            "table": run.experiment.name,
            "row": run.row.name,
            "seed": run.seed,
            "subset": run.subset,
            "level": run.level,
            "scale": run.scale.name,
            "launcher": run.experiment.launcher,
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


def make_tasks(args: argparse.Namespace) -> list[Task]:
    """All runs that the command line asks for.

    Raises:
        UserError: it makes no sense, or asks for runs that were made with other settings.
    """
    scales = experiments.scales()
    if args.scale not in scales:
        raise UserError(f"--scale {args.scale}: there are {', '.join(scales)}")
    for name in ("jobs", "steps", "inputs"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: must be at least 1")
    if args.data_dir is not None and not Path(args.data_dir).is_dir():
        raise UserError(f"--data_dir {args.data_dir}: there is no such folder")
    overrides = Overrides(
        args.model_name_or_path,
        args.data_dir and str(Path(args.data_dir).resolve()),
        args.steps,
        args.inputs,
        args.seeds and tuple(args.seeds),
    )
    scale = scales[args.scale]
    runs = [
        run
        for experiment in experiments.chosen(args.table, scale)
        for run in experiments.expand(experiment, scale, overrides, args.rows)
    ]
    return [Task(run, args.results_dir.resolve() / run.folder) for run in runs]


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


def start(task: Task, job: dict[str, Any], gpu: str | None, jobs: int) -> subprocess.Popen[bytes]:
    """Start the process of a run."""
    task.folder.mkdir(parents=True, exist_ok=True)
    task.failure.unlink(missing_ok=True)
    write_json(task.folder / JOB, job)
    environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs)), **os.environ}
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    log: IO[bytes]
    with task.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-u", str(WORKER), str(task.folder)],
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
    """Runs tasks at the same time, one in each slot."""

    def __init__(self, free: Sequence[str | None], work: Path, keep_checkpoints: bool) -> None:
        self.free, self.n_slot = list(free), len(free)
        self.work, self.keep = work, keep_checkpoints
        self.running: list[tuple[Task, subprocess.Popen[bytes], str | None, float]] = []
        self.failed: list[Task] = []

    def run(self, tasks: Sequence[Task]) -> None:
        """Run all; failures are recorded and the others go on."""
        waiting = list(tasks)
        with tqdm(total=len(tasks), unit="run", disable=None) as bar:
            try:
                while waiting or self.running:
                    while waiting and self.free:
                        self._start(waiting.pop(0), bar)
                    self._collect(bar)
            finally:
                for _, process, _, _ in self.running:
                    process.terminate()
                for _, process, _, _ in self.running:
                    process.wait()

    def _start(self, task: Task, bar: tqdm[Any]) -> None:
        job = task.job(self.work, self.keep)
        if why := launchers.missing_data(job):
            self._fail(task, why, None)
            bar.update()
            return
        gpu = self.free.pop(0)
        process = start(task, job, gpu, self.n_slot)
        self.running.append((task, process, gpu, time.monotonic()))
        tqdm.write(f"started   {task.name}; see {task.log}")

    def _collect(self, bar: tqdm[Any]) -> None:
        """Wait until a run ends, and see how."""
        ended = [entry for entry in self.running if entry[1].poll() is not None]
        if not ended:
            time.sleep(0.1)
        for entry in ended:
            task, process, gpu, since = entry
            self.running.remove(entry)
            self.free.append(gpu)
            took = duration(time.monotonic() - since)
            if process.returncode == 0 and task.result.is_file():
                tqdm.write(f"finished  {task.name} in {took}: {summary(task)}")
            else:
                self._fail(task, reason(process.returncode, task.log), process.returncode)
            bar.update()

    def _fail(self, task: Task, why: str, status: int | None) -> None:
        task.folder.mkdir(parents=True, exist_ok=True)
        write_json(task.failure, {"reason": why, "status": status, "log": str(task.log)})
        self.failed.append(task)
        tqdm.write(f"failed    {task.name}: {why}")


def summary(task: Task) -> str:
    """The scores of a finished run in a line."""
    scores = next(iter(read_result(task.result)["scores"].values()))
    return "  ".join(f"{name} {value:.2f}" for name, value in scores.items() if value is not None)


def show(tasks: Sequence[Task], work: Path) -> None:
    """Print state and commands of every run."""
    for task in tasks:
        state = "done" if task.is_done() else "failed before" if task.failure.is_file() else "to do"
        print(f"{task.name} ({state})")
        settings, experiment = task.run.settings, task.run.experiment
        name = launchers.dataset(settings["flags"])
        model, data = settings["model"], settings["data"]
        if model in launchers.MODELS:
            model = f"({model} model)"
        if data == "toy":
            data = str(work / "data" / name)
        folder = launchers.data_folder(experiment.launcher, name, data)
        for step in launchers.steps(task.job(work, True), model, folder):
            print(f"    python -m {step.module} {shlex.join(step.argv)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Do what ``argv`` asks for."""
    args = _parser().parse_args(argv)
    tasks = make_tasks(args)
    work = args.results_dir.resolve() / args.scale
    places = slots(args.jobs, args.gpus)
    to_do = [task for task in tasks if not task.is_done()]
    if args.only_print:
        show(tasks, work)
    print(f"{len(tasks)} runs, {len(tasks) - len(to_do)} of them done")
    if to_do:
        print("\n".join(Estimate(work).lines([task.run for task in to_do], len(places))))
    if args.only_print:
        return
    # A polite kill takes the running processes along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    pool = Pool(places, work, args.keep_checkpoints == "yes")
    pool.run(to_do)
    print(f"the table: ./scripts/table.sh {args.table} --scale {args.scale}")
    if pool.failed:
        names = ", ".join(task.name for task in pool.failed)
        raise UserError(
            f"{len(pool.failed)} of {len(to_do)} runs failed ({names}): the reasons are above and "
            "in their logs; the same command tries them again"
        )


if __name__ == "__main__":
    run_command(main)
