"""GLUE: the nine tasks, from the official .tsv files or the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase, TrainingArguments

from prefix_tuning.errors import UserError
from prefix_tuning.files import numbered_lines, write_lines
from ptuning_v2.arguments import DataTrainingArguments
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

    Labels may be absent (test sets), and may be numbers where the release has names.

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
    missing = [column for column in task.texts if column not in header]
    if missing:
        raise UserError(f"{path}, line 1: there is no column {missing[0]!r}, found {header}")
    rows: list[TextRow] = []
    for cells, where in lines:
        if name == "qqp" and len(cells) < len(header):
            continue  # some questions of the official training file contain line breaks
        if len(cells) != len(header):
            raise UserError(
                f"{where}: {len(cells)} columns, expected {len(header)} separated by tabs"
            )
        record = dict(zip(header, cells, strict=True))
        texts = [record[column] for column in task.texts]
        label = _label(task, record[task.label], where) if task.label in record else None
        rows.append(_row(texts, label, len(rows)))
    return rows


def _row(texts: list[str], label: float | None, idx: int) -> TextRow:
    return TextRow(((texts[0], texts[1] if len(texts) > 1 else None),), label, idx)


def _label(task: GlueTask, text: str, where: str) -> float:
    if task.labels is None:
        try:
            return float(text)
        except ValueError as error:
            raise UserError(f"{where}: {text!r} is not a score") from error
    numbers = {str(i): i for i in range(len(task.labels))}
    classes = numbers | {label: i for i, label in enumerate(task.labels)}
    if text not in classes:
        raise UserError(f"{where}: label {text!r} is none of {', '.join(task.labels)}")
    return classes[text]


def read_glue_hub(name: str, split: str) -> list[TextRow]:
    """A split as the hub has it, where the labels of test sets are -1."""
    task = GLUE_TASKS[name]
    rows = []
    for record in read_hub(HUB, name, split):
        label = None if split.startswith("test") else record["label"]
        rows.append(_row([record[c] for c in task.hub_texts or task.texts], label, record["idx"]))
    return rows


class GlueDataset(TextData):
    """A task of GLUE, with its metric and its submission file."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        data_args: DataTrainingArguments,
        training_args: TrainingArguments,
    ) -> None:
        super().__init__(tokenizer, data_args, training_args)
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
