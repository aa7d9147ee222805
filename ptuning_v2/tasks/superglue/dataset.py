"""SuperGLUE: the eight tasks as P-tuning v2 words them, their metrics and submission files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers.trainer_utils import EvalPrediction

from evaluation import qa
from prefix_tuning.files import write_lines
from ptuning_v2.tasks.base import Outputs, defined, first_output, locate
from ptuning_v2.tasks.superglue.records import (
    FOLDERS,
    LABELS,
    Record,
    read_superglue,
    read_superglue_hub,
)
from ptuning_v2.tasks.text import TextData, TextRow

SUBMITTED: dict[str, tuple[Any, ...]] = {
    **LABELS,
    "boolq": ("false", "true"),
    "wic": ("false", "true"),
    "copa": (0, 1),
}
"""The labels as super.gluebenchmark.com takes them."""


class SuperGlueDataset(TextData):
    """A task of SuperGLUE, with its metrics and its submission file."""

    def set_labels(self) -> None:
        name = self.name
        self.label_list = list(LABELS[name]) if name in LABELS else None
        # COPA's head gives each choice one score.
        self.num_labels = len(self.label_list) if self.label_list else 1
        self.task_type = "choice" if name == "copa" else "sequence"
        self.test_key = "f1" if name in ("record", "multirc") else "accuracy"

    def read(self, split: str) -> list[TextRow]:
        template = self.data_args.template_id
        if self.data_args.data_dir is not None:
            file = "val.jsonl" if split == "validation" else f"{split}.jsonl"
            path = locate(self.data_args.data_dir, FOLDERS[self.name], [file])
            return read_superglue(self.name, path, template)
        return read_superglue_hub(self.name, split, template)

    def compute_metrics(self, p: EvalPrediction, rows: Sequence[TextRow]) -> dict[str, float]:
        """The metrics of the benchmark; those of MultiRC and ReCoRD group rows by question."""
        if self.name == "record":
            answers = {_query(row): row.answers for row in rows}
            values = defined(qa.record(answers, self._entities(rows, p.predictions)).values)
            return {"f1": values["f1"], "exact_match": values["exact_match"]}
        if self.name == "multirc":
            questions = [(row.idx["paragraph"], row.idx["question"]) for row in rows]
            labels = np.asarray(p.label_ids).tolist()
            found = self.decide(p.predictions).tolist()
            values = defined(qa.multirc(questions, labels, found).values)
            return {"f1": values["f1_a"], "exact_match": values["exact_match"]}
        return super().compute_metrics(p, rows)

    def _entities(self, rows: Sequence[TextRow], logits: Outputs) -> dict[str, str]:
        queries = [_query(row) for row in rows]
        entities = [row.entity for row in rows]
        return qa.best_entities(queries, entities, first_output(logits)[:, 1].tolist())

    def write_predictions(self, folder: Path, split: str, logits: Outputs) -> Path:
        """Write JSON lines as super.gluebenchmark.com takes them.

        Args:
            folder: where; the file is named as the benchmark wants it.
            split: a key of ``predict_datasets``.
            logits: ``[N, labels]``.
        """
        rows = self.predict_datasets[split].rows
        if self.name == "record":
            chosen = self._entities(rows, logits)
            lines = [{"idx": int(query), "label": entity} for query, entity in chosen.items()]
        elif self.name == "multirc":
            lines = _nest(rows, self.decide(logits).tolist())
        else:
            labels = [SUBMITTED[self.name][label] for label in self.decide(logits)]
            pairs = zip(rows, labels, strict=True)
            lines = [{"idx": row.idx, "label": label} for row, label in pairs]
        texts = (json.dumps(line, ensure_ascii=False) for line in lines)
        return write_lines(folder / f"{FOLDERS[self.name]}.jsonl", texts)


def _query(row: TextRow) -> str:
    return str(row.idx["query"])


def _nest(rows: Sequence[TextRow], labels: list[int]) -> list[Record]:
    """MultiRC's answers under their questions, those under their paragraphs."""
    paragraphs: dict[int, dict[int, list[Record]]] = {}
    for row, label in zip(rows, labels, strict=True):
        questions = paragraphs.setdefault(row.idx["paragraph"], {})
        answers = questions.setdefault(row.idx["question"], [])
        answers.append({"idx": row.idx["answer"], "label": label})
    return [
        {
            "idx": paragraph,
            "passage": {
                "questions": [{"idx": i, "answers": answers} for i, answers in questions.items()]
            },
        }
        for paragraph, questions in paragraphs.items()
    ]
