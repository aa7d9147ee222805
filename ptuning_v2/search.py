"""Show the best runs of a search that ``scripts/search_hyperparameters.py`` has made.

python ptuning_v2/search.py copa roberta
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.flags import flag, parse, required
from prefix_tuning.errors import UserError, run_command
from prefix_tuning.files import read_json_object


@dataclass
class Search:
    """The search."""

    task: str = required("data set, as in the names of the rows of experiments/", positional=True)
    model: str = required("bert or roberta, as in the names of the rows", positional=True)
    metric: str | None = flag(
        None, "score to rank by (default: that which picked the best epoch)", positional=True
    )
    checkpoints: str = flag("checkpoints", "folder of all searches")
    top: int = flag(5, "number of runs to print")

    @property
    def folder(self) -> Path:
        """Where its runs are."""
        return Path(self.checkpoints, f"{self.task}-{self.model}-search")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the best runs."""
    show(parse(Search, argv, description="Show the best runs of a search."))


def show(search: Search) -> None:
    """Print score, epoch and folder of the best runs."""
    for score, epoch, folder in ranking(search.folder, search.metric)[: search.top]:
        print(f"{score:.4f}  epoch {epoch:3}  {folder}")


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
        score = next(iter(scores.values()), None)
        if metric is not None:
            score = scores.get(f"best_eval_{metric}")
        if score is None:
            continue
        epoch = results.get("best_epoch")
        if not isinstance(score, int | float) or not isinstance(epoch, int):
            raise UserError(f"{path}: the score or the epoch is no number: run it again")
        if not math.isfinite(score):  # the run diverged: it has no place in an order
            print(f"left out {path.parent}: its score is {score}")
            continue
        found.append((score, epoch, path.parent))
    if not found:
        raise UserError(f"{folder}/*/best_results.json: no finished run with a score to rank")
    return sorted(found, key=lambda row: -row[0])


if __name__ == "__main__":
    run_command(main)
