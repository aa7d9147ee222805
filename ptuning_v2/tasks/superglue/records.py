"""The records of SuperGLUE's tasks, from the official .jsonl files or the hub, and their wording.

Both sources are turned into the same records, with the hub's names, and then into text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_lines
from ptuning_v2.tasks.base import read_hub
from ptuning_v2.tasks.text import TextRow

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


def read_superglue(name: str, path: Path, template_id: int = 0) -> list[TextRow]:
    """Read one file of the official release; test sets have no labels.

    Raises:
        UserError: a line lacks a field, has an unknown label, or the number of another where scores
            or predictions go by them, naming file and line.
    """
    flatten = _FLATTEN.get(name, _flatten_plain)
    return _rows(name, read_json_lines(path), flatten, template_id)


def read_superglue_hub(name: str, split: str, template_id: int = 0) -> list[TextRow]:
    """A split as the hub has it, checked as a file is."""
    records = read_hub(HUB, name, split)
    if split == "test" or name == "record":  # -1, or none at all
        records = [{**record, "label": None} for record in records]
    lines = ((record, f"row {n} of the hub's {split} split") for n, record in enumerate(records, 1))
    return _rows(name, lines, _flatten_hub, template_id)


def _rows(
    name: str,
    lines: Iterable[tuple[Any, str]],
    flatten: Callable[[str, Any], Iterator[Record]],
    template_id: int,
) -> list[TextRow]:
    rows: list[TextRow] = []
    seen: set[tuple[int, ...]] = set()
    for line, where in lines:
        try:
            for record in flatten(name, line):
                number = _number(name, record["idx"])
                # Scores go by these numbers, and so do predictions for a test set.
                if number in seen and (name == "multirc" or record["label"] is None):
                    raise ValueError(f"another record has the idx {record['idx']}")
                seen.add(number)
                rows += compose(name, record, template_id)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{where} is no {FOLDERS[name]} record: {reason}") from error
    return rows


def _number(name: str, idx: Any) -> tuple[int, ...]:
    """What tells a record from all others, and the benchmark which one a prediction is of."""
    parts = [idx]
    if name == "multirc":
        parts = [idx["paragraph"], idx["question"], idx["answer"]]
    elif name == "record":
        parts = [idx["query"]]
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, int):
            raise ValueError(f"idx {part!r} is not a whole number")
    return tuple(parts)


def _label(name: str, value: Any) -> int | None:
    if value is None:
        return None
    labels = LABELS.get(name, ("0", "1"))
    if isinstance(value, int) and 0 <= value < len(labels):  # True and False are 1 and 0
        return int(value)
    if name == "copa" or value not in labels:
        raise ValueError(f"label {value!r} is none of {', '.join(labels)}")
    return labels.index(value)


def _flatten_hub(name: str, record: Any) -> Iterator[Record]:
    yield {**record, "label": _label(name, record["label"])}


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
            "entities": sorted({_entity(text, span["start"], span["end"]) for span in spans}),
            "answers": sorted({_text(answer["text"]) for answer in query.get("answers", ())}),
            "idx": {"passage": line["idx"], "query": query["idx"]},
            "label": None,
        }


def _entity(text: str, start: Any, end: Any) -> str:
    """The characters from ``start`` to ``end``, both included."""
    if any(isinstance(at, bool) or not isinstance(at, int) for at in (start, end)):
        raise ValueError(f"the entity from {start!r} to {end!r} has no whole numbers")
    if not 0 <= start <= end < len(text):
        raise ValueError(
            f"the entity from {start} to {end} is outside the passage of {len(text)} characters"
        )
    return text[start : end + 1]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"an answer or entity is not a text, or empty: {value!r}")
    return value


_FLATTEN = {"multirc": _flatten_multirc, "record": _flatten_record}


def compose(name: str, record: Record, template_id: int = 0) -> list[TextRow]:
    """The text or texts of a record: one row, but for ReCoRD one per entity.

    Raises:
        KeyError: the record lacks a field.
        TypeError: a text is not a string.
        ValueError: a span of WSC points outside its text, or ReCoRD has no entity.
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
    answers = tuple(map(_text, record["answers"]))
    if not record["entities"]:
        raise ValueError("there is no entity to choose")
    return [
        TextRow(
            ((passage, record["query"].replace("@placeholder", entity)),),
            int(entity in answers) if answers else None,
            record["idx"],
            entity,
            answers,
        )
        for entity in map(_text, record["entities"])
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
    if isinstance(index, bool) or not isinstance(index, int):
        raise ValueError(f"span2_index {index!r} is not a whole number")
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
