"""Semantic roles of CoNLL-2005 and CoNLL-2012: one line, and one example, per predicate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation import tagging
from prefix_tuning.errors import UserError
from prefix_tuning.files import numbered_lines
from ptuning_v2.tasks.base import DATA, locate
from ptuning_v2.tasks.words import Sentence, WordData

FOLDERS = {"conll2005": "CoNLL05", "conll2012": "CoNLL12"}
FILES = {
    "conll2005": {
        "train": "conll05.train.txt",
        "validation": "conll05.devel.txt",
        "test_wsj": "conll05.test.wsj.txt",
        "test_brown": "conll05.test.brown.txt",
    },
    "conll2012": {
        "train": "conll2012.train.txt",
        "validation": "conll2012.devel.txt",
        "test": "conll2012.test.txt",
    },
}


def read_predicates(path: Path) -> list[Sentence]:
    """Read ``INDEX word word ... ||| tag tag ...`` lines, INDEX being the predicate's, from 0.

    Raises:
        UserError: a line is not of this form, naming file and line.
    """
    sentences = []
    for line, where in numbered_lines(path):
        if not line.strip():
            continue
        left, bars, right = line.partition("|||")
        index, *words = left.split() or [""]
        tags = right.split()
        if not bars or not index.isdecimal() or len(index) > 18:
            raise UserError(f"{where}: expected INDEX words ||| tags")
        if len(words) != len(tags):
            raise UserError(f"{where}: {len(words)} words, but {len(tags)} tags")
        for tag in tags:
            tagging.check_tag(tag, where)
        if int(index) >= len(words):
            raise UserError(f"{where}: predicate {index}, but there are {len(words)} words")
        sentences.append(Sentence(tuple(words), tuple(tags), where, int(index)))
    return sentences


class SRLDataset(WordData):
    """A data set of semantic roles, with its metric and its predictions."""

    def find_labels(self) -> Sequence[str]:
        """All tags of the files there are, sorted: neither corpus comes with a list of them."""
        tags: set[str] = set()
        for split in FILES[self.name]:
            try:
                path = self._path(split)
            except UserError:
                if split == "train":
                    raise
                continue
            tags.update(tag for sentence in read_predicates(path) for tag in sentence.tags)
        return sorted(tags)

    def splits(self, kind: str) -> tuple[str, ...]:
        return tuple(split for split in FILES[self.name] if split.startswith(kind))

    def read(self, split: str) -> list[Sentence]:
        return read_predicates(self._path(split))

    def _path(self, split: str) -> Path:
        folder, file = FOLDERS[self.name], FILES[self.name][split]
        return locate(self.data_args.data_dir or DATA, folder, [file])

    def format(self, sentence: Sentence, tags: Sequence[str]) -> str:
        """The line of the data file with the predicted tags."""
        return " ".join([str(sentence.predicate), *sentence.words, "|||", *tags])
