"""Named entities: CoNLL-2003, CoNLL-2004, OntoNotes (the original's files) and WNUT-17."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation import files
from prefix_tuning.errors import UserError
from ptuning_v2.tasks.utils import DATA, locate
from ptuning_v2.tasks.words import Sentence, WordData


@dataclass(frozen=True)
class Layout:
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
LAYOUTS = {
    "conll2003": Layout(
        "CoNLL03",
        {
            "train": ("train.txt", "eng.train"),
            "validation": ("valid.txt", "eng.testa"),
            "test": ("test.txt", "eng.testb"),
        },
        ("O", *_bio("PER", "ORG", "LOC", "MISC")),
    ),
    "conll2004": Layout(
        "CoNLL04",
        _files("train.txt", "dev.txt", "test.txt"),
        ("O", *_bio("Loc", "Peop", "Org", "Other")),
    ),
    "ontonotes": Layout(
        "ontoNotes",
        _files("train.sd.conllx", "dev.sd.conllx", "test.sd.conllx"),
        (*(f"{prefix}-{name}" for prefix in "BI" for name in _ONTONOTES), "O"),
        token_column=1,
    ),
    "wnut17": Layout(
        "wnut17",
        _files("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"),
        ("O", *_bio("corporation", "creative-work", "group", "location", "person", "product")),
    ),
}


def read_columns(path: Path, token_column: int = 0) -> list[Sentence]:
    """Read CoNLL columns, separated by tabs or else spaces, the tag last.

    A blank line or ``-DOCSTART-`` ends a sentence, as does the end of the file.

    Raises:
        UserError: a line has too few columns, naming file and line.
    """
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    start = 1

    def finish() -> None:
        if words:
            sentences.append(Sentence(tuple(words), tuple(tags), f"{path}, line {start}"))
            words.clear()
            tags.clear()

    for number, line in enumerate(files.read_text(path).split("\n"), 1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            finish()
            continue
        # A token of a tab-separated file may be a character that counts as white space.
        columns = line.split("\t") if "\t" in line else line.split()
        if len(columns) < token_column + 2:
            raise UserError(
                f"{path}, line {number}: {len(columns)} columns, expected the token in column "
                f"{token_column + 1} and the tag in the last"
            )
        if not words:
            start = number
        words.append(columns[token_column])
        tags.append(columns[-1].strip())
    finish()
    return sentences


class NERDataset(WordData):
    """A data set of named entities, with its metric and its predictions."""

    def find_labels(self) -> Sequence[str]:
        return LAYOUTS[self.name].labels

    def read(self, split: str) -> list[Sentence]:
        layout = LAYOUTS[self.name]
        path = locate(self.data_args.data_dir or DATA, layout.folder, layout.files[split])
        return read_columns(path, layout.token_column)

    def format(self, sentence: Sentence, tags: Sequence[str]) -> str:
        """``word gold predicted`` lines as conlleval reads them, and a blank line."""
        columns = zip(sentence.words, sentence.tags, tags, strict=True)
        return "".join(f"{' '.join(row)}\n" for row in columns)
