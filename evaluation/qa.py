"""SQuAD 1.1 and 2.0, ReCoRD and MultiRC, as the official scripts score them.

    python -m evaluation.qa DATA PREDICTIONS --task squad|squad_v2|record|multirc

DATA is the official development file. PREDICTIONS is for squad, squad_v2 and record a JSON object
of question id -> answer text, for multirc one 0 or 1 per answer and line, in the order of DATA.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from evaluation import checks
from evaluation.classification import accuracy, f1, macro_f1, read_labels
from evaluation.qa_files import read_multirc, read_predictions, read_record, read_squad
from evaluation.report import Scores, argument_parser, naming_files, publish
from prefix_tuning.errors import UserError, run_command

_PUNCTUATION = str.maketrans("", "", string.punctuation)

Answers = Mapping[str, Sequence[str]]


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, articles and repeated space (evaluate-v1.1.py)."""
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(prediction: str, answer: str) -> float:
    return float(normalize(prediction) == normalize(answer))


def token_f1(prediction: str, answer: str) -> float:
    """F1 of the two bags of normalised words; 0 if they share none, also if both are empty."""
    predicted, expected = normalize(prediction).split(), normalize(answer).split()
    common = (Counter(predicted) & Counter(expected)).total()
    return 2 * common / (len(predicted) + len(expected)) if common else 0.0


def squad(answers: Answers, predictions: Mapping[str, str]) -> Scores:
    """SQuAD 1.1 (evaluate-v1.1.py): best over the answers, mean over the questions, 0 to 100.

    Args:
        answers: question id -> its accepted answers, at least one.
        predictions: question id -> answer text, for every question.

    Raises:
        UserError: a question has no prediction, or has no answer.
    """
    exact, overlap = _best_over_answers(answers, predictions)
    values = {"exact_match": 100 * _mean(exact), "f1": 100 * _mean(overlap)}
    return Scores({**values}, full=dict.fromkeys(values, 100))


def squad_v2(answers: Answers, predictions: Mapping[str, str]) -> Scores:
    """SQuAD 2.0 (evaluate-v2.0.py without thresholds): all, answerable and unanswerable, 0 to 100.

    Args:
        answers: question id -> its accepted answers, none if it cannot be answered.
        predictions: question id -> answer text, "" where no answer is given.

    Raises:
        UserError: a question has no prediction.
    """
    _check_predictions(answers, predictions)
    scores = Scores()
    results = {}
    for question, texts in answers.items():
        accepted = [text for text in texts if normalize(text)] or [""]
        pairs = [(predictions[question], text) for text in accepted]
        exact = max(exact_match(*pair) for pair in pairs)
        # An empty answer has no words to share: right or wrong as a whole.
        overlap = max(token_f1(*pair) if all(map(normalize, pair)) else exact for pair in pairs)
        results[question] = (exact, overlap)
    answerable = [question for question, texts in answers.items() if texts]
    unanswerable = [question for question, texts in answers.items() if not texts]
    for prefix, part in (("", list(answers)), ("HasAns_", answerable), ("NoAns_", unanswerable)):
        if part:
            scores.values[f"{prefix}exact"] = 100 * _mean([results[q][0] for q in part])
            scores.values[f"{prefix}f1"] = 100 * _mean([results[q][1] for q in part])
            scores.full |= dict.fromkeys((f"{prefix}exact", f"{prefix}f1"), 100)
            scores.values[f"{prefix}total"] = len(part)
    return scores


def record(answers: Answers, predictions: Mapping[str, str]) -> Scores:
    """ReCoRD: as SQuAD 1.1, but SuperGLUE's script reports from 0 to 1.

    Args:
        answers: query id -> its accepted entities, at least one.
        predictions: query id -> entity, for every query; see :func:`best_entities`.

    Raises:
        UserError: a query has no prediction, or has no answer.
    """
    exact, overlap = _best_over_answers(answers, predictions)
    values = {"exact_match": _mean(exact), "f1": _mean(overlap)}
    return Scores({**values}, full=dict.fromkeys(values, 1))


def best_entities(
    queries: Sequence[str], entities: Sequence[str], logits: Sequence[float]
) -> dict[str, str]:
    """The entity with the highest logit of each query; of equal ones the last by alphabet.

    Args:
        queries: query id of each (query, entity) row.
        entities: the entity that stands for the placeholder in each row.
        logits: how likely the model finds each row, higher is likelier.

    Raises:
        UserError: a logit is not a finite number.
    """
    checks.check_finite(logits, "the logits of ReCoRD's entities")
    best: dict[str, tuple[float, str]] = {}
    for query, entity, logit in zip(queries, entities, logits, strict=True):
        best[query] = max(best.get(query, (logit, entity)), (logit, entity))
    return {query: entity for query, (_, entity) in best.items()}


def multirc(
    questions: Sequence[Hashable], labels: Sequence[float], predictions: Sequence[float]
) -> Scores:
    """MultiRC: exact_match and f1_m are means over questions, f1_a is F1 over all answers.

    P-tuning v2 reports f1_a alone, as ``f1``.

    Args:
        questions: which question each candidate answer belongs to.
        labels: 1 if the answer is right, else 0.
        predictions: same order.

    Returns:
        All from 0 to 1.

    Raises:
        UserError: counts differ.
    """
    checks.check_counts(len(labels), len(predictions), "candidate answers")
    of_question: dict[Hashable, tuple[list[float], list[float]]] = {}
    for question, label, prediction in zip(questions, labels, predictions, strict=True):
        group = of_question.setdefault(question, ([], []))
        group[0].append(label)
        group[1].append(prediction)
    exact = [float(accuracy(*group) == 1) for group in of_question.values()]
    f1_m = [macro_f1(*group) for group in of_question.values()]
    values = {"exact_match": _mean(exact), "f1_m": _mean(f1_m), "f1_a": f1(labels, predictions)}
    return Scores({**values}, full=dict.fromkeys(values, 1))


def _best_over_answers(
    answers: Answers, predictions: Mapping[str, str]
) -> tuple[list[float], list[float]]:
    _check_predictions(answers, predictions)
    for question, texts in answers.items():
        if not texts:
            raise UserError(f"question {question} has no answer")
    exact = [max(exact_match(predictions[q], text) for text in answers[q]) for q in answers]
    overlap = [max(token_f1(predictions[q], text) for text in answers[q]) for q in answers]
    return exact, overlap


def _check_predictions(answers: Answers, predictions: Mapping[str, str]) -> None:
    if not answers:
        raise UserError("nothing to score: no questions")
    for question in answers.keys() & predictions.keys():
        if not isinstance(predictions[question], str):
            raise UserError(
                f"the answer to question {question} is not a text: {predictions[question]!r}"
            )
    absent = [question for question in answers if question not in predictions]
    if absent:
        raise UserError(
            f"{len(absent)} of {len(answers)} questions have no prediction, first {absent[0]}"
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argument_parser(
        __doc__, "the official data file", "JSON, or 0/1 lines for multirc", segments=False
    )
    tasks = ("squad", "squad_v2", "record", "multirc")
    parser.add_argument(
        "--task", required=True, choices=tasks, help="data set, whose format both have"
    )
    args = parser.parse_args(argv)
    if args.task == "multirc":
        questions, labels = read_multirc(args.references)
        predictions = read_labels(args.hypotheses)
        with naming_files(args):
            scores = multirc(questions, labels, predictions)
    else:
        answers = (read_record if args.task == "record" else read_squad)(args.references)
        texts = read_predictions(args.hypotheses)
        with naming_files(args):
            scores = {"squad": squad, "squad_v2": squad_v2, "record": record}[args.task](
                answers, texts
            )
    publish({args.task: scores}, args)


if __name__ == "__main__":
    run_command(main)
