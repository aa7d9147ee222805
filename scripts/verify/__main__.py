"""The certificate: everything this project computes, held against what it did not write itself.

Prints a row for each check, writes ``fidelity.json`` and ``docs/fidelity.md``, and ends with status
1 if anything is off. What needs data that is not here is left out, with the reason.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path[0] = str(ROOT)

from harness.flags import ShowDefaults
from prefix_tuning.errors import UserError, run_command

if TYPE_CHECKING:
    from scripts.verify.checks import Check, Places

GROUPS = ("numbers", "trajectories", "libraries", "scores", "data")
ON_DEMAND = ("gpu",)
"""Groups that run only when they are named."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/verify.sh",
        description=__doc__,
        formatter_class=ShowDefaults,
    )
    add = parser.add_argument
    known = ", ".join(GROUPS + ON_DEMAND)
    add("--only", help=f"run some groups, separated by commas: {known}")
    add("--vectors", type=Path, metavar="DIR", help="more cases of the original's numbers")
    add("--data", type=Path, metavar="DIR", help="data sets, as in data/ after a download")
    add("--json", type=Path, default=ROOT / "fidelity.json", help="all differences")
    add("--page", type=Path, default=ROOT / "docs" / "fidelity.md", help="the table")
    return parser


def _groups(names: str | None) -> list[str]:
    """The groups to run, in their order."""
    chosen = [name.strip() for name in names.split(",")] if names is not None else [*GROUPS]
    for name in chosen:
        if name not in GROUPS + ON_DEMAND:
            raise UserError(f"--only {name}: choose from {', '.join(GROUPS + ON_DEMAND)}")
    return [name for name in GROUPS + ON_DEMAND if name in chosen]


def checks(groups: Iterable[str], places: Places) -> list[Check]:
    """The checks of some groups."""
    from scripts.verify import (
        bart_trajectory,
        datasets,
        gpt2_trajectory,
        gpu,
        libraries,
        numbers,
        scorers,
    )
    from scripts.verify.checks import Check

    of: dict[str, Callable[[], list[Check]]] = {
        "numbers": lambda: numbers.checks(places.vectors),
        "trajectories": lambda: [
            Check("trajectory_gpt2", "a plain loop, past_key_values", gpt2_trajectory.compare),
            Check("trajectory_bart", "a plain loop, BART's formulas", bart_trajectory.compare),
        ],
        "libraries": libraries.checks,
        "scores": lambda: scorers.checks(places),
        "data": lambda: datasets.checks(places),
        "gpu": gpu.checks,
    }
    return [check for group in groups for check in of[group]()]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks; return the status to exit with.

    Raises:
        UserError: a flag names a group or a folder that is not there.
    """
    args = _parser().parse_args(argv)
    groups = _groups(args.only)
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):  # before the libraries read them
        os.environ[variable] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch
    from transformers.utils import logging

    from scripts.verify import report
    from scripts.verify.checks import Places, perform

    torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    todo = checks(groups, Places.of(args.vectors, args.data))
    print(f"{len(todo)} checks\n{report.HEADER}", flush=True)
    about, outcomes = report.about(), []
    for check in todo:
        outcomes.append(perform(check))
        print(report.row(outcomes[-1]), flush=True)
    print(report.summary(outcomes))
    if {*groups} >= {*GROUPS}:
        report.write(outcomes, about, args.json, args.page)
        print(f"written: {args.json}, {args.page}")
    return int(any(outcome.result == "OFF" for outcome in outcomes))


def script(argv: Sequence[str] | None = None) -> None:
    """The command."""
    raise SystemExit(main(argv))


if __name__ == "__main__":
    run_command(script)
