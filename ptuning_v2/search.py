"""Search learning rate, prompt length and epochs, or show what a search has found.

    python ptuning_v2/search.py copa roberta --learning_rate 5e-3 7e-3 --pre_seq_len 4 8
    python ptuning_v2/search.py copa roberta

The first trains the row ``copa_roberta`` of ``experiments/`` once for each combination, in
``checkpoints/copa-roberta-search/copa-EPOCHS-RATE-LENGTH``, and can be interrupted and started
again; flags it does not know go to ``run.py``. Both print the best runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prefix_tuning.errors import UserError, run_command
from prefix_tuning.files import read_json_object
from ptuning_v2 import run
from ptuning_v2.run_script.run_hyperparameters import command_of

GRID = ("num_train_epochs", "learning_rate", "pre_seq_len")


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our own arguments, and the flags that are for ``run.py``."""
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in GRID:
        options.add_argument(
            f"--{name}", nargs="+", metavar="VALUE", help="values to combine with those of others"
        )
    add = options.add_argument
    add("--checkpoints", type=Path, default=Path("checkpoints"), help="where searches are kept")
    add("--top", type=int, default=5, help="runs to print")
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[options],
    )
    add = parser.add_argument
    add("task", help="data set, as in the names of the rows")
    add("model", help="bert or roberta, as in the names of the rows")
    add("metric", nargs="?", help="by which to rank (default: the one that picked the best epoch)")
    if {"-h", "--help"} & set(argv):
        parser.parse_args(["--help"])
    # A value of a flag for run.py must not be taken for the metric.
    n_name = next((i for i, part in enumerate(argv) if part.startswith("-")), len(argv))
    names = parser.parse_args(argv[:n_name])
    return options.parse_known_args(argv[n_name:], names)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing of the grid, then print the best."""
    args, overrides = _parse(sys.argv[1:] if argv is None else argv)
    folder = args.checkpoints / f"{args.task}-{args.model}-search"
    asked = {name: getattr(args, name) for name in GRID if getattr(args, name)}
    if asked:
        _search(f"{args.task}_{args.model}", folder, asked, overrides)
    elif overrides:
        raise UserError(f"{overrides[0]}: give at least one of --{', --'.join(GRID)} to search")
    for score, epoch, run_folder in ranking(folder, args.metric)[: args.top]:
        print(f"{score:.4f}  epoch {epoch:3}  {run_folder}")


def _search(row: str, folder: Path, asked: dict[str, list[str]], overrides: Sequence[str]) -> None:
    command = command_of(row)
    values = {name: asked.get(name, [command[command.index(f"--{name}") + 1]]) for name in GRID}
    combinations = list(product(*values.values()))
    for number, combination in enumerate(combinations, 1):
        name = "-".join([row.rpartition("_")[0], *combination])
        print(f"== {number} of {len(combinations)}: {name}", flush=True)
        if (folder / name / "best_results.json").is_file():
            continue
        flags = [part for pair in zip(GRID, combination, strict=True) for part in pair]
        flags[::2] = [f"--{flag}" for flag in flags[::2]]
        run.main([*command, *flags, "--output_dir", str(folder / name), *overrides])


def ranking(folder: Path, metric: str | None = None) -> list[tuple[float, int, Path]]:
    """Score, epoch and folder of every finished run, best first.

    Args:
        metric: such as ``accuracy``; the one that picked the best epoch if None.

    Raises:
        UserError: no run is finished, or none has the metric.
    """
    found = []
    for path in sorted(folder.glob("*/best_results.json")):
        results = read_json_object(path)
        scores = {k: v for k, v in results.items() if k.startswith("best_eval_")}
        score = next(iter(scores.values())) if metric is None else scores.get(f"best_eval_{metric}")
        if score is not None:
            found.append((score, results["best_epoch"], path.parent))
    if not found:
        raise UserError(f"{folder}/*/best_results.json: no finished run with a score to rank")
    return sorted(found, key=lambda row: -row[0])


if __name__ == "__main__":
    run_command(main)
