"""What each kind of texts is scored by, and where a table finds its columns in the scores.

A new scorer is a function here and a row of :data:`SCORERS`. Scorers are imported when they run,
so that their names and columns cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.report import Scores


@dataclass(frozen=True)
class Texts:
    """Texts to be scored, one per instance.

    Attributes:
        outputs: what a system wrote.
        references: of every instance, at least one.
        task: what the texts are, in words; names the row of a scorer that has a single one.
        categories: of every instance, where the scorer tells categories apart; else empty.
    """

    outputs: Sequence[str]
    references: Sequence[Sequence[str]]
    task: str = ""
    categories: Sequence[str] = ()


@dataclass(frozen=True)
class Column:
    """Where a table's column stands in the scores: row, key; whether the table has percent."""

    row: str
    key: str
    percent: bool = False


@dataclass(frozen=True)
class Scorer:
    """A way of scoring texts.

    Attributes:
        score: texts -> the rows of the table, by name.
        columns: a table's column -> where it stands in those rows.
        missing: columns that ``score`` leaves out -> why.
        per_entry: instances are the entries of a file of triples, the same triples counting as
            often as they occur; otherwise the distinct inputs.
    """

    score: Callable[[Texts], dict[str, Scores]]
    columns: Mapping[str, Column]
    missing: Mapping[str, str] = field(default_factory=dict)
    per_entry: bool = False


def _e2e(texts: Texts) -> dict[str, Scores]:
    from evaluation import e2e

    return {"E2E": e2e.score(texts.references, texts.outputs)}


def _webnlg(texts: Texts) -> dict[str, Scores]:
    from evaluation import webnlg

    return webnlg.score(texts.references, texts.outputs, texts.categories)


def _dart(texts: Texts) -> dict[str, Scores]:
    from evaluation import dart

    return {"DART": dart.score(texts.references, texts.outputs, models=False)}


def _summarization(texts: Texts) -> dict[str, Scores]:
    from evaluation import summarization

    return {"ROUGE": summarization.score([r[0] for r in texts.references], texts.outputs)}


def _accuracy(texts: Texts) -> dict[str, Scores]:
    from evaluation import classification

    labels = [references[0].strip() for references in texts.references]
    accuracy = classification.accuracy(labels, texts.outputs)
    return {texts.task: Scores({"accuracy": accuracy}, full={"accuracy": 1})}


_TRIPLES = ("BLEU", "METEOR", "TER")
_PARTS = {"S": "Seen", "U": "Unseen", "A": "All"}
_NEEDS_MODEL = "needs a model of its own: python -m evaluation.dart scores the decoded texts"

SCORERS: dict[str, Scorer] = {
    "e2e": Scorer(
        _e2e,
        {
            "BLEU": Column("E2E", "BLEU -p", percent=True),
            "NIST": Column("E2E", "NIST -p"),
            "METEOR": Column("E2E", "METEOR", percent=True),
            "ROUGE-L": Column("E2E", "ROUGE_L", percent=True),
            "CIDEr": Column("E2E", "CIDEr"),
        },
    ),
    "webnlg": Scorer(
        _webnlg,
        {f"{c} {letter}": Column(part, c) for letter, part in _PARTS.items() for c in _TRIPLES}
        # A development set, which has no unseen categories, is one column for all.
        | {c: Column("All", c) for c in _TRIPLES},
        per_entry=True,
    ),
    "dart": Scorer(
        _dart,
        {c: Column("DART", c) for c in _TRIPLES},
        dict.fromkeys(("MoverScore", "BERTScore", "BLEURT"), _NEEDS_MODEL),
        per_entry=True,
    ),
    "summarization": Scorer(
        _summarization, {c: Column("ROUGE", c) for c in ("ROUGE-1", "ROUGE-2", "ROUGE-L")}
    ),
    "accuracy": Scorer(_accuracy, {}),
}
"""Name -> scorer of written texts."""
