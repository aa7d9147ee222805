"""Reproduce a table: train, decode and score all its runs, and go on where that was stopped.

    ./scripts/reproduce.sh e2e prefix --scale paper --gpus 0,1

Every run is a process of its own and leaves ``results/<scale>/<table>/<row>/<run>.json``; its files
are in the folder of that name, what it printed in ``log.txt`` there. Finished runs are skipped,
interrupted ones go on, failed ones are tried again. ``table.sh`` then prints the table. With
``--publish`` nothing is run: those that are finished go to ``results/published/``, for everybody.
"""

from __future__ import annotations

import argparse
import math
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import published, scales, spec
from experiments.estimate import Estimate
from experiments.launchers.base import MODELS
from experiments.pool import Job, Pool, slots
from experiments.spec import Overrides, Run
from harness.ranges import COUNT, SEED
from prefix_tuning.errors import UserError, run_command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("table", metavar="TABLE", help=f"{', '.join(spec.names())}; several with commas, or all")
    add("rows", metavar="ROW", nargs="*", help="only these rows of the table")
    add("--scale", default="small", help="tiny, small (default), study or paper")
    add("--print", action="store_true", dest="only_print", help="only say what would be done")
    add("--minutes", type=float, help="stop after this time; the same command goes on")
    add("--publish", action="store_true", help="write finished runs to results/published/")
    add("--jobs", type=int, help="runs at a time (default: one, or one for each of --gpus)")
    add("--gpus", help="numbers of the GPUs to use, 0,1 say; each run sees one of them")
    add("--seeds", type=int, nargs="+", help="seeds to train with, instead of the table's")
    add("--steps", type=int, help="training steps of every run, instead of the scale's")
    add("--inputs", type=int, help="inputs decoded and scored, instead of the scale's")
    add("--model_name_or_path", help="base model of every run, instead of the scale's")
    add("--data_dir", help="folder of the data set's files, instead of its place in data/")
    add("--keep_checkpoints", choices=["yes", "no"], default="yes", help="no: delete weights")
    add("--results_dir", type=Path, default=ROOT / "results", help="where results are kept")
    return parser


def _command(args: argparse.Namespace, run: Run) -> str:
    """What makes a run anywhere, without the folders of this machine."""
    words = [run.experiment.name, run.row.name, "--scale", run.scale.name]
    if "seed" not in run.experiment.common | run.row.flags:
        words += ["--seeds", str(run.seed)]
    for name in ("steps", "inputs"):
        if (value := getattr(args, name)) is not None:
            words += [f"--{name}", str(value)]
    if args.model_name_or_path is not None:
        words += ["--model_name_or_path", Path(args.model_name_or_path).name]
    if args.data_dir is not None:
        words += ["--data_dir", "FOLDER"]
    return f"./scripts/reproduce.sh {shlex.join(words)}"


def make_jobs(args: argparse.Namespace) -> list[Job]:
    """All runs that the command line asks for.

    Raises:
        UserError: it makes no sense, or asks for runs that were made with other settings.
    """
    scale = scales.named(args.scale)
    for name in ("jobs", "steps", "inputs"):
        COUNT.check(name, getattr(args, name))
    for seed in args.seeds or ():
        SEED.check("seeds", seed)
    if args.minutes is not None and not 0 < args.minutes < math.inf:
        raise UserError(f"--minutes {args.minutes}: expected a number above 0")
    if args.data_dir is not None and not Path(args.data_dir).is_dir():
        raise UserError(f"--data_dir {args.data_dir}: there is no such folder")
    overrides = Overrides(
        args.model_name_or_path,
        args.data_dir and str(Path(args.data_dir).resolve()),
        args.steps,
        args.inputs,
        args.seeds and tuple(dict.fromkeys(args.seeds)),
    )
    runs = [
        run
        for experiment in spec.chosen(args.table, scale)
        for run in spec.expand(experiment, scale, overrides, args.rows)
    ]
    folder = args.results_dir.resolve()
    return [Job(run, folder / run.folder, _command(args, run)) for run in runs]


def show(jobs: Sequence[Job], work: Path) -> None:
    """Print state and commands of every run."""
    for job in jobs:
        state = "done" if job.is_done() else "failed before" if job.failure.is_file() else "to do"
        print(f"{job.name} ({state})")
        settings, launcher = job.run.settings, job.run.experiment.launcher
        name = launcher.dataset(settings["flags"])
        model, data = settings["model"], settings["data"]
        if model in MODELS:
            model = f"({model} model)"
        if data == "toy":
            data = str(work / "data" / name)
        folder = launcher.data_folder(name, data)
        for step in launcher.steps(job.describe(work, True), model, folder):
            print(f"    python -m {step.module} {shlex.join(step.argv)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Do what ``argv`` asks for."""
    args = _parser().parse_args(argv)
    jobs = make_jobs(args)
    work = args.results_dir.resolve() / args.scale
    places = slots(args.jobs, args.gpus)
    to_do = [job for job in jobs if not job.is_done()]
    if args.only_print:
        show(jobs, work)
    print(f"{len(jobs)} runs, {len(jobs) - len(to_do)} of them done")
    if to_do:
        print("\n".join(Estimate(work).lines([job.run for job in to_do], len(places))))
    if args.publish and not args.only_print:
        for job in jobs:
            if job.is_done():
                print(f"published {published.publish(job, args.results_dir)}")
    if args.only_print or args.publish:
        return
    # A polite kill takes the running processes along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    pool = Pool(places, work, args.keep_checkpoints == "yes", args.minutes)
    pool.run(to_do)
    print(f"the table: ./scripts/table.sh {args.table} --scale {args.scale}")
    if pool.failed:
        names = ", ".join(job.name for job in pool.failed)
        raise UserError(
            f"{len(pool.failed)} of {len(to_do)} runs failed ({names}): the reasons are above and "
            "in their logs; the same command tries them again"
        )


if __name__ == "__main__":
    run_command(main)
