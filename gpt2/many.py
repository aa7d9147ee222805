"""Several runs of one command, ``--seeds`` and ``--sweep``, on data and a model loaded once.

Each run has the folder, the files and the numbers of its command alone, and goes on like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from gpt2.launch_flags import LaunchFlags
from gpt2.train_request import TrainRequest
from prefix_tuning.errors import UserError


def variants(args: LaunchFlags, argv: Sequence[str]) -> list[list[str]]:
    """What each run has on its command line besides ``argv``; empty where one run is asked for.

    Raises:
        UserError: the values cannot be read, or ``argv`` gives the same flag a value of its own.
    """
    for flag in ("--seeds", "--sweep"):
        if sum(word.split("=")[0] == flag for word in argv) > 1:
            raise UserError(f"{flag}: given twice; write its values with commas between")
    axes = []
    if args.seeds is not None:
        axes.append(_values(f"--seeds {args.seeds}", "seed", args.seeds))
    if args.sweep is not None:
        name, _, values = args.sweep.partition("=")
        axes.append(_values(f"--sweep {args.sweep}", name.strip().removeprefix("--"), values))
    names = [axis[0].split("=")[0] for axis in axes]
    if "--seeds" in names:  # a run has one seed
        raise UserError(f"--sweep {args.sweep}: write --seeds, or --sweep seed=...")
    for name in names:
        if names.count(name) > 1 or any(text.split("=")[0] == name for text in argv):
            raise UserError(f"{name}: --seeds or --sweep gives it already; leave one of them out")
    return [[*flags] for flags in product(*axes)] if axes else []


def _values(given: str, name: str, values: str) -> list[str]:
    found = [value.strip() for value in values.split(",")]
    if not name or not all(found):
        raise UserError(f"{given}: write --seeds 101,22,9 or --sweep preseqlen=1,5,10,20")
    return [f"--{name}={value}" for value in found]


def check_apart(folders: Sequence[Path]) -> None:
    """Raise :class:`UserError` where two runs would write the same folder."""
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(
                f"--seeds, --sweep: several runs would write {folder}: name their parent with "
                "--dir_name instead of --output_dir, and vary what the name of a run says, each "
                "value once"
            )


def run(requests: Sequence[TrainRequest]) -> None:
    """Train, evaluate and decode one run after another; one that diverges holds up no other.

    Raises:
        UserError: a run diverged, after the others.
    """
    from gpt2 import run_language_modeling
    from gpt2.training import Shared, train
    from harness.stop import Diverged

    shared, diverged = Shared(), []
    for request in requests:
        try:
            folder = train(request, shared)
        except Diverged as error:
            print(f"error: {request.run.output_dir}: {error}", flush=True)
            diverged.append(str(request.run.output_dir))
        else:
            run_language_modeling.finish(request, folder)
    if diverged:
        raise UserError(f"of {len(requests)} runs these diverged: {', '.join(diverged)}")
