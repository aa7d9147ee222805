"""SuperGLUE: the eight tasks, from the official .jsonl files or the hub, as P-tuning v2 words them.

Both sources are turned into the same records, with the hub's names, and then into text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_utils import EvalPrediction

from evaluation import qa
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_lines, write_lines
from ptuning_v2.arguments import DataTrainingArguments
from ptuning_v2.tasks.base import Outputs, defined, first_output, locate, read_hub
from ptuning_v2.tasks.text import TextData, TextRow

HUB = "aps/super_glue"

Record = dict[str, Any]

FOLDERS = {
    "boolq": "BoolQ",
    "cb": "CB",
    "copa": "COPA",
    "multirc": "MultiRC",
    "record": "ReCoRD",
    "rte": "RTE",
    "wic": "WiC",
    "wsc": "WSC",
}
_FALSE_TRUE = ("False", "True")
LABELS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("boolq", "wic", "wsc", "multirc"), _FALSE_TRUE),
    "cb": ("entailment", "contradiction", "neutral"),
    "rte": ("entailment", "not_entailment"),
    "record": ("0", "1"),
}
"""In the order of their numbers; COPA's two choices have no names."""
SUBMITTED: dict[str, tuple[Any, ...]] = {
    **LABELS,
    "boolq": ("false", "true"),
    "wic": ("false", "true"),
    "copa": (0, 1),
}
"""The labels as super.gluebenchmark.com takes them."""


def read_superglue(name: str, path: Path, template_id: int = 0) -> list[TextRow]:
    """Read one file of the official release; test sets have no labels.

    Raises:
        UserError: a line lacks a field or has an unknown label, naming file and line.
    """
    rows: list[TextRow] = []
    flatten = _FLATTEN.get(name, _flatten_plain)
    for line, where in read_json_lines(path):
        try:
            for record in flatten(name, line):
                rows += compose(name, record, template_id)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{where} is no {FOLDERS[name]} record: {reason}") from error
    return rows


def _label(name: str, value: Any) -> int | None:
    if value is None or (name == "copa" and value in (0, 1)):
        return value
    labels = LABELS.get(name, ())
    if isinstance(value, int) and 0 <= value < len(labels):  # True and False are 1 and 0
        return int(value)
    if value not in labels:
        raise ValueError(f"label {value!r} is none of {', '.join(labels) or '0, 1'}")
    return labels.index(value)


def _flatten_plain(name: str, line: Any) -> Iterator[Record]:
    target = line["target"] if name == "wsc" else {}
    yield {**line, **target, "label": _label(name, line.get("label"))}


def _flatten_multirc(name: str, line: Any) -> Iterator[Record]:
    passage = line["passage"]
    for question in passage["questions"]:
        for answer in question["answers"]:
            yield {
                "paragraph": passage["text"],
                "question": question["question"],
                "answer": answer["text"],
                "idx": {
                    "paragraph": line["idx"],
                    "question": question["idx"],
                    "answer": answer["idx"],
                },
                "label": _label(name, answer.get("label")),
            }


def _flatten_record(name: str, line: Any) -> Iterator[Record]:
    text = line["passage"]["text"]
    spans = line["passage"]["entities"]
    for query in line["qas"]:
        yield {
            "passage": text,
            "query": query["query"],
            "entities": sorted({text[span["start"] : span["end"] + 1] for span in spans}),
            "answers": sorted({answer["text"] for answer in query.get("answers", ())}),
            "idx": {"passage": line["idx"], "query": query["idx"]},
            "label": None,
        }


_FLATTEN = {"multirc": _flatten_multirc, "record": _flatten_record}


def compose(name: str, record: Record, template_id: int = 0) -> list[TextRow]:
    """The text or texts of a record: one row, but for ReCoRD one per entity.

    Raises:
        KeyError: the record lacks a field.
        TypeError: a text is not a string.
        ValueError: a span of WSC points outside its text.
    """
    if name == "record":
        return _compose_record(record)
    pairs: tuple[tuple[str, str | None], ...]
    if name == "copa":
        first = f"{record['premise']} {'because' if record['question'] == 'cause' else 'so'}"
        pairs = ((first, record["choice1"]), (first, record["choice2"]))
    else:
        pairs = (_PAIRS[name](record, template_id),)
    if not all(isinstance(text, str | None) for pair in pairs for text in pair):
        raise TypeError("a text is not a string")
    return [TextRow(pairs, record["label"], record["idx"])]


def _compose_record(record: Record) -> list[TextRow]:
    passage = record["passage"].replace("@highlight\n", "- ")
    answers = tuple(record["answers"])
    return [
        TextRow(
            ((passage, record["query"].replace("@placeholder", entity)),),
            int(entity in answers) if answers else None,
            record["idx"],
            entity,
            answers,
        )
        for entity in record["entities"]
    ]


def _wic(record: Record, template_id: int) -> tuple[str, str | None]:
    word, first, second = record["word"], record["sentence1"], record["sentence2"]
    if template_id == 1:
        return f"{word}: {first}", f"{word}: {second}"
    return f"{first} {second} Does {word} have the same meaning in both sentences?", None


def _wsc(record: Record, template_id: int) -> tuple[str, str | None]:
    if template_id == 0:
        return f"{record['span2_text']}: {record['text']}", record["span1_text"]
    words = record["text"].split()
    index = record["span2_index"]
    if not 0 <= index < len(words):
        raise ValueError(f"span2_index {index} is outside the {len(words)} words of the text")
    words[index] = f"*{words[index]}*"
    return " ".join(words), record["span1_text"]


def _fields(first: str, second: str) -> Callable[[Record, int], tuple[str, str | None]]:
    return lambda record, template_id: (record[first], record[second])


_PAIRS: dict[str, Callable[[Record, int], tuple[str, str | None]]] = {
    "boolq": _fields("question", "passage"),
    "cb": _fields("premise", "hypothesis"),
    "rte": _fields("premise", "hypothesis"),
    "multirc": lambda r, template_id: (r["paragraph"], f"{r['question']} {r['answer']}"),
    "wic": _wic,
    "wsc": _wsc,
}


class SuperGlueDataset(TextData):
    """A task of SuperGLUE, with its metrics and its submission file."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        data_args: DataTrainingArguments,
        training_args: TrainingArguments,
    ) -> None:
        super().__init__(tokenizer, data_args, training_args)
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
        records = read_hub(HUB, self.name, split)
        if split == "test" or self.name == "record":  # -1, or none at all
            records = [{**record, "label": None} for record in records]
        return [row for record in records for row in compose(self.name, record, template)]

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
