"""From the logits of windows to the answers of questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prefix_tuning.files import write_json


@dataclass(frozen=True)
class Question:
    """One question about a paragraph."""

    id: str
    question: str
    context: str
    answers: tuple[str, ...]
    """The accepted answers, none if there is no answer."""
    starts: tuple[int, ...]
    """Where in the context they begin, in characters."""


@dataclass(frozen=True)
class Window:
    """Where the tokens of one window stand in the context."""

    question: int
    """Index among the questions."""
    offsets: np.ndarray
    """int32 ``[T, 2]``: first character and the one after the last; -1 outside the context."""


@dataclass
class Answers:
    """What was predicted.

    Attributes:
        texts: question id -> answer, "" for none.
        nbest: question id -> the best candidates with text, logits and probability.
        null_odds: question id -> score of no answer less that of the best answer (SQuAD 2.0).
    """

    texts: dict[str, str] = field(default_factory=dict)
    nbest: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    null_odds: dict[str, float] = field(default_factory=dict)

    def write(self, folder: Path, prefix: str = "eval") -> None:
        """Write ``<prefix>_predictions.json`` (what the official scripts take) and so on."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{prefix}_predictions.json", self.texts)
        write_json(folder / f"{prefix}_nbest_predictions.json", self.nbest)
        if self.null_odds:
            write_json(folder / f"{prefix}_null_odds.json", self.null_odds)


def postprocess_qa_predictions(
    questions: Sequence[Question],
    windows: Sequence[Window],
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    *,
    unanswerable: bool,
    n_best_size: int = 20,
    max_answer_length: int = 30,
    null_score_diff_threshold: float = 0.0,
) -> Answers:
    """Pick an answer to every question (the procedure of BERT's SQuAD script).

    A candidate is a span of at most ``max_answer_length`` tokens within the context between one of
    the ``n_best_size`` best starts and one of the best ends of a window; its score is the sum of
    the two logits. The score of no answer is that of [CLS], the least over the windows.

    Args:
        questions: of the data set.
        windows: of these questions, in the order of the logits.
        start_logits: ``[windows, T]``; T may exceed the length of a window by padding.
        end_logits: same.
        unanswerable: SQuAD 2.0: no answer is given where its score exceeds that of the best answer
            by more than ``null_score_diff_threshold``.
    """
    of_question: list[list[int]] = [[] for _ in questions]
    for number, window in enumerate(windows):
        of_question[window.question].append(number)
    answers = Answers()
    for question, numbers in zip(questions, of_question, strict=True):
        spans = [
            span
            for number in numbers
            for span in candidates(
                windows[number].offsets,
                start_logits[number],
                end_logits[number],
                n_best_size,
                max_answer_length,
            )
        ]
        nulls = [(float(start_logits[n][0]), float(end_logits[n][0])) for n in numbers]
        null = (0, 0, *min(nulls, key=sum))
        spans = rank(spans, null if unanswerable else None, n_best_size)
        nbest = _describe(spans, question.context)
        answers.nbest[question.id] = nbest
        answers.texts[question.id] = nbest[0]["text"]
        if unanswerable:
            best = next((c for c in nbest if c["text"]), _candidate("", 0.0, 0.0))
            odds = sum(null[2:]) - best["start_logit"] - best["end_logit"]
            answers.null_odds[question.id] = odds
            none = odds > null_score_diff_threshold
            answers.texts[question.id] = "" if none else best["text"]
    return answers


Span = tuple[int, int, float, float]
"""First character, the one after the last, and the logits of start and end."""


def candidates(
    offsets: np.ndarray,
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    n_best_size: int,
    max_answer_length: int,
) -> list[Span]:
    """The spans of one window, those of better starts first.

    Args:
        offsets: ``[T, 2]``, see :class:`Window`.
        start_logits: ``[at least T]``.
        end_logits: same.
    """
    starts, ends = (
        [i for i in best_indices(logits, n_best_size) if i < len(offsets) and offsets[i, 0] >= 0]
        for logits in (start_logits, end_logits)
    )
    return [
        (int(offsets[s, 0]), int(offsets[e, 1]), float(start_logits[s]), float(end_logits[e]))
        for s in starts
        for e in ends
        if s <= e < s + max_answer_length
    ]


def best_indices(logits: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` highest logits, the highest first."""
    return np.argsort(logits)[::-1][:count]


def rank(spans: list[Span], null: Span | None, count: int) -> list[Span]:
    """The ``count`` best spans, best first; ``null``, where given, is kept whatever its score."""
    if null is not None:
        spans = [*spans, null]
    spans = sorted(spans, key=lambda span: span[2] + span[3], reverse=True)[:count]
    if null is not None and null not in spans:
        spans.append(null)
    return spans


def _candidate(text: str, start_logit: float, end_logit: float) -> dict[str, Any]:
    return {"text": text, "start_logit": start_logit, "end_logit": end_logit}


def _describe(spans: list[Span], context: str) -> list[dict[str, Any]]:
    nbest = [_candidate(context[start:end], *logits) for start, end, *logits in spans]
    if not nbest or [candidate["text"] for candidate in nbest] == [""]:
        # Nothing to choose from: the original's script gives this text, with logits of 0.
        nbest.insert(0, _candidate("empty", 0.0, 0.0))
    scores = np.array([c["start_logit"] + c["end_logit"] for c in nbest])
    weights = np.exp(scores - scores.max())
    for candidate, probability in zip(nbest, weights / weights.sum(), strict=True):
        candidate["probability"] = float(probability)
    return nbest
