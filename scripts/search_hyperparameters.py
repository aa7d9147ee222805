"""Search learning rate, prompt length and epochs for a row of ``experiments/``.

    python scripts/search_hyperparameters.py copa roberta --learning_rate 5e-3 7e-3

trains ``copa_roberta`` once for each combination, in
``checkpoints/copa-roberta-search/copa-EPOCHS-RATE-LENGTH``, and prints the best runs. It can be
interrupted and started again. Flags it does not know go to ``ptuning_v2/run.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.flags import Parser, flag
from prefix_tuning.errors import UserError, run_command
from ptuning_v2 import run
from ptuning_v2.search import Search, show
from scripts.run_hyperparameters import arguments_of, read_row

GRID = ("num_train_epochs", "learning_rate", "pre_seq_len")


@dataclass
class Grid:
    """The values to combine with one another (default: the row's)."""

    num_train_epochs: tuple[str, ...] = flag((), "passes over the training set", metavar="VALUE")
    learning_rate: tuple[str, ...] = flag((), "learning rates", metavar="VALUE")
    pre_seq_len: tuple[str, ...] = flag((), "numbers of prompt vectors", metavar="VALUE")


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing of the grid, then print the best."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # A value of a flag for run.py must not be taken for the metric.
    n_name = next((i for i, part in enumerate(argv) if part.startswith("-")), len(argv))
    if n_name > 3:
        raise UserError(f"{argv[3]}: give a task, a model and perhaps a metric before the flags")
    about = f"{(__doc__ or '').splitlines()[0]} Flags it does not know go to ptuning_v2/run.py."
    parser = Parser(Search, Grid, description=about)
    (search, grid), overrides = parser.read_known(argv)
    if not any(getattr(grid, name) for name in GRID):
        raise UserError(f"give at least one of --{', --'.join(GRID)} to search")
    _search(search, grid, overrides)
    show(search)


def _search(search: Search, grid: Grid, overrides: Sequence[str]) -> None:
    name = f"{search.task}_{search.model}"
    row = read_row(name)
    values = [getattr(grid, flag_name) or (str(row[flag_name]),) for flag_name in GRID]
    combinations = list(product(*values))
    for number, combination in enumerate(combinations, 1):
        folder = search.folder / "-".join([search.task, *combination])
        print(f"== {number} of {len(combinations)}: {folder.name}", flush=True)
        if (folder / "best_results.json").is_file():
            continue
        flags = dict(zip(GRID, combination, strict=True))
        run.run(arguments_of(name, overrides, **flags, output_dir=str(folder)))


if __name__ == "__main__":
    run_command(main)
