"""The metrics of GLUE and SuperGLUE, by task, as in the ``glue`` and ``super_glue`` metrics.

    python -m evaluation.classification LABELS PREDICTIONS --task cb [--json out.json]

One label per line: the number of the class, or for stsb a score from 0 to 5. MultiRC and ReCoRD,
which group answers by question, are in ``evaluation.qa``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation import checks, files
from evaluation.report import Scores, argument_parser, naming_files, publish
from prefix_tuning.errors import UserError, run_command

Metric = Callable[[Sequence[float], Sequence[float]], float]


def accuracy(
    labels: Sequence[float] | Sequence[str], predictions: Sequence[float] | Sequence[str]
) -> float:
    from sklearn import metrics

    return float(metrics.accuracy_score(labels, predictions))


def f1(labels: Sequence[float], predictions: Sequence[float]) -> float:
    """F1 of class 1; 0 where nothing is predicted or labelled 1.

    Raises:
        UserError: there are other classes than 0 and 1.
    """
    from sklearn import metrics

    others = sorted({*labels, *predictions} - {0, 1})
    if others:
        raise UserError(f"classes have to be 0 or 1, found {', '.join(map(str, others[:3]))}")
    return float(metrics.f1_score(labels, predictions, zero_division=0.0))


def macro_f1(labels: Sequence[float], predictions: Sequence[float]) -> float:
    """Mean F1 over the classes that occur among labels or predictions."""
    from sklearn import metrics

    return float(metrics.f1_score(labels, predictions, average="macro", zero_division=0.0))


def matthews_correlation(labels: Sequence[float], predictions: Sequence[float]) -> float:
    """Matthews' correlation; 0 where either side is constant, as scikit-learn and GLUE have it."""
    from sklearn import metrics

    return float(metrics.matthews_corrcoef(labels, predictions))


def pearson(labels: Sequence[float], predictions: Sequence[float]) -> float:
    """Pearson's r; nan if either side is constant or has one value only."""
    from scipy import stats

    return _correlation(stats.pearsonr, labels, predictions)


def spearman(labels: Sequence[float], predictions: Sequence[float]) -> float:
    """Spearman's rho; nan if either side is constant or has one value only."""
    from scipy import stats

    return _correlation(stats.spearmanr, labels, predictions)


def _correlation(function: Callable, x: Sequence[float], y: Sequence[float]) -> float:
    if len(x) < 2:
        return math.nan
    with warnings.catch_warnings():  # of constant input, which the nan tells
        warnings.simplefilter("ignore")
        return float(function(x, y).statistic)


_ACCURACY: dict[str, Metric] = {"accuracy": accuracy}
_ACCURACY_F1: dict[str, Metric] = {"accuracy": accuracy, "f1": f1}
_ACCURACY_MACRO_F1: dict[str, Metric] = {"accuracy": accuracy, "f1": macro_f1}
_CORRELATIONS: dict[str, Metric] = {"pearson": pearson, "spearmanr": spearman}
TASKS: dict[str, dict[str, Metric]] = {
    **dict.fromkeys(("mnli", "qnli", "rte", "sst2", "wnli"), _ACCURACY),
    **dict.fromkeys(("boolq", "copa", "wic", "wsc"), _ACCURACY),
    **dict.fromkeys(("mrpc", "qqp"), _ACCURACY_F1),
    **dict.fromkeys(("cb", "classification"), _ACCURACY_MACRO_F1),
    "cola": {"matthews_correlation": matthews_correlation},
    "stsb": _CORRELATIONS,
}


def score(task: str, labels: Sequence[float], predictions: Sequence[float]) -> Scores:
    """Score the predictions of a GLUE or SuperGLUE task.

    Args:
        task: a key of ``TASKS``.
        labels: class number of each example; for stsb its score.
        predictions: same order.

    Returns:
        The metrics of the task, correlations from -1 to 1, others from 0 to 1; where there are
        two, also their mean as ``combined_score``, as P-tuning v2 logs it. Where labels or
        predictions are constant Matthews' correlation is 0 by definition, which a note says;
        Pearson's and Spearman's are undefined (the official metric prints nan), hence missing.

    Raises:
        UserError: the task is unknown, counts differ, or a number is not finite.
    """
    if task not in TASKS:
        raise UserError(f"unknown task {task!r}: expected one of {', '.join(sorted(TASKS))}")
    checks.check_counts(len(labels), len(predictions), "labels")
    checks.check_finite(labels, "the labels")
    checks.check_finite(predictions, "the predictions")
    values = {name: metric(labels, predictions) for name, metric in TASKS[task].items()}
    if len(values) > 1:
        values["combined_score"] = sum(values.values()) / len(values)
    scores = Scores(full=dict.fromkeys(values, 1))
    for name, value in values.items():
        if math.isnan(value):
            scores.add_missing(name, "undefined: labels or predictions are all the same")
        else:
            scores.values[name] = value
    if task == "cola" and 1 in (len(set(labels)), len(set(predictions))):
        scores.add_note("matthews_correlation: 0 as labels or predictions are all the same")
    return scores


def read_labels(path: Path, kind: Callable[[str], float] = int) -> list[float]:
    """Read one label per line; ``kind`` is int for classes and float for scores.

    Raises:
        UserError: a line is no number, is not finite, or is the -1 of a set without labels.
    """
    labels = []
    for number, line in enumerate(files.read_lines(path), 1):
        try:
            labels.append(kind(line))
            if not math.isfinite(labels[-1]) or (kind is int and not line.isdecimal()):
                raise ValueError(line)
        except (ValueError, OverflowError) as error:
            expected = "a class number" if kind is int else "a number"
            raise UserError(f"{path}, line {number}: {line[:40]!r} is not {expected}") from error
    return labels


def main(argv: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__, "one label per line", "one label per line", segments=False)
    parser.add_argument(
        "--task", required=True, choices=sorted(TASKS), help="data set whose metrics to compute"
    )
    args = parser.parse_args(argv)
    kind = float if args.task == "stsb" else int
    labels, predictions = (read_labels(path, kind) for path in (args.references, args.hypotheses))
    with naming_files(args):
        scores = score(args.task, labels, predictions)
    publish({args.task: scores}, args)


if __name__ == "__main__":
    run_command(main)
