"""Named entities: CoNLL-2003, CoNLL-2004, OntoNotes (the original's files) and WNUT-17."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation import tagging
from prefix_tuning.errors import UserError
from prefix_tuning.files import numbered_lines
from ptuning_v2.tasks.base import DATA, locate
from ptuning_v2.tasks.words import Sentence, WordData


@dataclass(frozen=True)
class Columns:
    """Where the files of a data set are, and what is in their columns; the tag is the last."""

    folder: str
    files: dict[str, tuple[str, ...]]
    labels: tuple[str, ...]
    token_column: int = 0


def _bio(*types: str) -> tuple[str, ...]:
    return tuple(f"{prefix}-{name}" for name in types for prefix in "BI")


def _files(train: str, validation: str, test: str) -> dict[str, tuple[str, ...]]:
    return {"train": (train,), "validation": (validation,), "test": (test,)}


# Types of OntoNotes 5, all B- before all I-, and O last, as in the original.
_ONTONOTES = (
    "CARDINAL DATE EVENT FAC GPE LANGUAGE LAW LOC MONEY NORP ORDINAL ORG PERCENT PERSON PRODUCT "
    "QUANTITY TIME WORK_OF_ART"
).split()
COLUMNS = {
    "conll2003": Columns(
        "CoNLL03",
        {
            "train": ("train.txt", "eng.train"),
            "validation": ("valid.txt", "eng.testa"),
            "test": ("test.txt", "eng.testb"),
        },
        ("O", *_bio("PER", "ORG", "LOC", "MISC")),
    ),
    "conll2004": Columns(
        "CoNLL04",
        _files("train.txt", "dev.txt", "test.txt"),
        ("O", *_bio("Loc", "Peop", "Org", "Other")),
    ),
    "ontonotes": Columns(
        "ontoNotes",
        _files("train.sd.conllx", "dev.sd.conllx", "test.sd.conllx"),
        (*(f"{prefix}-{name}" for prefix in "BI" for name in _ONTONOTES), "O"),
        token_column=1,
    ),
    "wnut17": Columns(
        "wnut17",
        _files("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"),
        ("O", *_bio("corporation", "creative-work", "group", "location", "person", "product")),
    ),
}


def read_columns(path: Path, token_column: int = 0) -> list[Sentence]:
    """Read CoNLL columns, separated by tabs or else spaces, the tag last.

    A blank line or ``-DOCSTART-`` ends a sentence, as does the end of the file.

    Raises:
        UserError: a line has too few columns, or another number than the first, or a tag outside
            the scheme, naming file and line.
    """
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    start, width = "", 0

    def finish() -> None:
        if words:
            sentences.append(Sentence(tuple(words), tuple(tags), start))
            words.clear()
            tags.clear()

    for line, where in numbered_lines(path):
        if tagging.ends_sentence(line):
            finish()
            continue
        columns = tagging.split_columns(line)
        width = width or len(columns)
        if len(columns) != width:
            raise UserError(f"{where}: {len(columns)} columns, the first line has {width}")
        if len(columns) < token_column + 2:
            raise UserError(
                f"{where}: {len(columns)} columns, expected the token in column "
                f"{token_column + 1} and the tag in the last"
            )
        if not columns[token_column]:
            raise UserError(f"{where}: the token is empty")
        tagging.check_tag(columns[-1], where)
        if not words:
            start = where
        words.append(columns[token_column])
        tags.append(columns[-1])
    finish()
    return sentences


class NERDataset(WordData):
    """A data set of named entities, with its metric and its predictions."""

    def find_labels(self) -> Sequence[str]:
        return COLUMNS[self.name].labels

    def read(self, split: str) -> list[Sentence]:
        columns = COLUMNS[self.name]
        path = locate(self.data_args.data_dir or DATA, columns.folder, columns.files[split])
        return read_columns(path, columns.token_column)

    def format(self, sentence: Sentence, tags: Sequence[str]) -> str:
        """``word gold predicted`` lines as conlleval reads them, and a blank line."""
        columns = zip(sentence.words, sentence.tags, tags, strict=True)
        return "".join(f"{' '.join(row)}\n" for row in columns)
