"""GLUE: the nine tasks, from the official .tsv files or the hub."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from prefix_tuning.errors import UserError
from prefix_tuning.files import first_twice, numbered_lines, write_lines
from ptuning_v2.tasks.base import Outputs, locate, read_hub
from ptuning_v2.tasks.text import TextData, TextRow

HUB = "nyu-mll/glue"


@dataclass(frozen=True)
class GlueTask:
    """One task: its folder and columns, in the official files and on the hub."""

    folder: str
    texts: tuple[str, ...]
    label: str = "label"
    labels: tuple[str, ...] | None = ("0", "1")
    """As the files name them, in the order of their numbers; None: a score."""
    hub_texts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """As the hub names them, where the files have numbers."""


_SENTENCES = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
GLUE_TASKS = {
    "cola": GlueTask("CoLA", ("sentence",), names=("unacceptable", "acceptable")),
    "mnli": GlueTask(
        "MNLI",
        _SENTENCES,
        "gold_label",
        ("entailment", "neutral", "contradiction"),
        ("premise", "hypothesis"),
    ),
    "mrpc": GlueTask(
        "MRPC",
        ("#1 String", "#2 String"),
        "Quality",
        hub_texts=_SENTENCES,
        names=("not_equivalent", "equivalent"),
    ),
    "qnli": GlueTask("QNLI", ("question", "sentence"), labels=_ENTAILMENT),
    "qqp": GlueTask(
        "QQP",
        ("question1", "question2"),
        "is_duplicate",
        names=("not_duplicate", "duplicate"),
    ),
    "rte": GlueTask("RTE", _SENTENCES, labels=_ENTAILMENT),
    "sst2": GlueTask("SST-2", ("sentence",), names=("negative", "positive")),
    "stsb": GlueTask("STS-B", _SENTENCES, "score", None),
    "wnli": GlueTask("WNLI", _SENTENCES, names=("not_entailment", "entailment")),
}
TEST_KEYS = {"cola": "matthews_correlation", "stsb": "combined_score"}
_COLA_COLUMNS = ["source", "label", "mark", "sentence"]


def read_glue(name: str, path: Path) -> list[TextRow]:
    """Read one file of the official release.

    Labels may be absent (test sets), and may be numbers where the release has names. Where a file
    numbers its rows, these numbers are kept. Rows of QQP that a line break cuts in two, as some of
    the official file, are left out, and their number is printed.

    Raises:
        UserError: a column is missing, or a line is malformed, naming file and line.
    """
    task = GLUE_TASKS[name]
    lines = [(line.split("\t"), where) for line, where in numbered_lines(path)]
    while lines and lines[-1][0] == [""]:
        lines.pop()
    header = lines[0][0] if lines else []
    if name == "cola" and "sentence" not in header:  # no header but in the test set
        header = _COLA_COLUMNS
    else:
        lines = lines[1:]
    if (twice := first_twice(header)) is not None:
        raise UserError(f"{path}, line 1: the column {twice!r} comes twice: give each one name")
    missing = [column for column in task.texts if column not in header]
    if missing:
        raise UserError(f"{path}, line 1: there is no column {missing[0]!r}, found {header}")
    index = "index" if "index" in header else None
    if "id" in header and task.label not in header:  # QQP's test set; elsewhere pairs have ids
        index = "id"
    rows: dict[int, TextRow] = {}
    broken: list[str] = []
    for cells, where in lines:
        if name == "qqp" and len(cells) < len(header):
            broken.append(where)
            continue
        if len(cells) != len(header):
            raise UserError(
                f"{where}: {len(cells)} columns, expected {len(header)} separated by tabs"
            )
        record = dict(zip(header, cells, strict=True))
        texts = [record[column] for column in task.texts]
        label = _label(task, record[task.label], where) if task.label in record else None
        number = len(rows) if index is None else _index(record[index], rows, where)
        rows[number] = _row(texts, label, number)
    if broken:
        print(
            f"{path}: left out {len(broken)} of {len(lines)} lines, which have fewer than "
            f"{len(header)} columns; the first is {broken[0].rpartition(', ')[2]}"
        )
    return list(rows.values())


def _index(text: str, known: Container[int], where: str) -> int:
    """The number that the file gives a row, by which the benchmark knows its prediction."""
    if not re.fullmatch("[0-9]{1,18}", text):
        raise UserError(f"{where}: {text!r} is no number of a row")
    if int(text) in known:
        raise UserError(f"{where}: two rows have the number {text}")
    return int(text)


def _row(texts: list[str], label: float | None, idx: int) -> TextRow:
    return TextRow(((texts[0], texts[1] if len(texts) > 1 else None),), label, idx)


def _label(task: GlueTask, text: str, where: str) -> float:
    if task.labels is None:
        return _score(text, where)
    numbers = {str(i): i for i in range(len(task.labels))}
    classes = numbers | {label: i for i, label in enumerate(task.labels)}
    if text not in classes:
        raise UserError(f"{where}: label {text!r} is none of {', '.join(task.labels)}")
    return classes[text]


def _score(value: str | float, where: str) -> float:
    """A score of STS-B."""
    try:
        score = float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {value!r} is not a score") from error
    if not 0 <= score <= 5:  # nan neither
        raise UserError(f"{where}: the score {value} is not between 0 and 5")
    return score


def read_glue_hub(name: str, split: str) -> list[TextRow]:
    """A split as the hub has it, where the labels of test sets are -1."""
    task = GLUE_TASKS[name]
    rows = []
    for number, record in enumerate(read_hub(HUB, name, split), 1):
        label, where = None, f"row {number} of the hub's {split} split of {name}"
        if not split.startswith("test"):
            value = record["label"]
            label = _score(value, where) if task.labels is None else _label(task, str(value), where)
        rows.append(_row([record[c] for c in task.hub_texts or task.texts], label, record["idx"]))
    return rows


class GlueDataset(TextData):
    """A task of GLUE, with its metric and its submission file."""

    def set_labels(self) -> None:
        self.task = GLUE_TASKS[self.name]
        labels = self.task.names or self.task.labels
        self.label_list = list(labels) if labels else None
        self.num_labels = len(labels) if labels else 1
        self.test_key = TEST_KEYS.get(self.name, "accuracy")

    def splits(self, kind: str) -> tuple[str, ...]:
        return (f"{kind}_matched", f"{kind}_mismatched") if self.name == "mnli" else (kind,)

    def read(self, split: str) -> list[TextRow]:
        if self.data_args.data_dir is None:
            return read_glue_hub(self.name, split)
        file = split.replace("validation", "dev") + ".tsv"
        return read_glue(self.name, locate(self.data_args.data_dir, self.task.folder, [file]))

    def write_predictions(self, folder: Path, split: str, logits: Outputs) -> Path:
        """Write ``index<TAB>prediction`` as gluebenchmark.com takes it.

        Args:
            folder: where; the file is named as the benchmark wants it.
            split: a key of ``predict_datasets``.
            logits: ``[N, labels]``.
        """
        decided = self.decide(logits)
        if self.task.labels is None:
            texts = [f"{score:.3f}" for score in decided.clip(0, 5)]
        else:
            texts = [self.task.labels[label] for label in decided]
        rows = self.predict_datasets[split].rows
        lines = [f"{row.idx}\t{text}" for row, text in zip(rows, texts, strict=True)]
        half = {"matched": "-m", "mismatched": "-mm"}.get(split.partition("_")[2], "")
        return write_lines(folder / f"{self.task.folder}{half}.tsv", ["index\tprediction", *lines])
