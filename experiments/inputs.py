"""Inputs that stand for a whole set, and what was written for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from evaluation.report import percent
from gpt2.readers import Record
from gpt2.records import group_by_source
from gpt2.tasks import read_records
from prefix_tuning.files import read_json_object

T = TypeVar("T")


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of ``items``, at equal distances from the first on."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def pick_inputs(path: Path, count: int, folder: Path) -> tuple[Path, Path, list[Record]]:
    """Write ``count`` evenly spaced inputs of a file: with all references, and with one each."""
    grouped = group_by_source(read_records("data2text", path, training=True))
    picked = evenly_spaced(grouped, count)
    folder.mkdir(parents=True, exist_ok=True)
    every, first = folder / "inputs.txt", folder / "inputs_one_reference.txt"
    lines = [f"{r.source}||{t}\n" for r in picked for t in r.targets]
    every.write_text("".join(lines), encoding="utf-8")
    lines = [f"{r.source}||{r.targets[0]}\n" for r in picked]
    first.write_text("".join(lines), encoding="utf-8")
    return every, first, picked


def rouge_l(references: Sequence[Sequence[str]], outputs: Sequence[str]) -> float:
    """ROUGE-L F1 of the rouge-score package, best reference: it needs no Java."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    best = [
        max(scorer.score(r, o)["rougeL"].fmeasure for r in refs)
        for refs, o in zip(references, outputs, strict=True)
    ]
    return sum(best) / len(best)


def read_outputs(stem: Path) -> tuple[list[str], float]:
    """The texts and their BLEU (0 to 100) from the files that decoding wrote."""
    texts = stem.read_text(encoding="utf-8").split("\n")[:-1]
    scores = read_json_object(stem.with_name(stem.name + "_eval.json"))
    bleu = percent(scores["E2E"], "BLEU")
    assert bleu is not None
    return texts, bleu
