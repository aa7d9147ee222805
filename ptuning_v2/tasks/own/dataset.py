"""One's own files as data sets: texts with a class, words with tags."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from scipy.special import softmax
from transformers import PreTrainedTokenizerBase, TrainingArguments

from evaluation.tagging import check_tag
from prefix_tuning.errors import UserError
from prefix_tuning.files import write_lines
from ptuning_v2.arguments import DataTrainingArguments
from ptuning_v2.own_data import OwnData, is_columns
from ptuning_v2.tasks.base import Examples, Feature, Outputs, first_output
from ptuning_v2.tasks.ner.dataset import NERDataset, read_columns
from ptuning_v2.tasks.own.files import (
    TAGS,
    WORDS,
    Columns,
    Labelled,
    class_of,
    classes,
    labelled,
    split_rows,
    tags_of,
    text_of,
    words_of,
)
from ptuning_v2.tasks.text import TextData, TextRow
from ptuning_v2.tasks.words import Sentence


class OwnTexts(TextData):
    """Texts, or pairs of texts, with a class each.

    Args:
        label_list: of a trained prefix; the labels of the training file if None.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        data_args: DataTrainingArguments,
        training_args: TrainingArguments,
        label_list: Sequence[str] | None = None,
    ) -> None:
        super().__init__(tokenizer, data_args, training_args)
        texts = tuple(filter(None, (data_args.text_column, data_args.text_pair_column)))
        self.columns = Columns(texts, data_args.label_column)
        self._label_list = label_list
        self._known: dict[tuple[str, str], list[Labelled]] = {}

    def set_labels(self) -> None:
        """Nothing: a file is read by :meth:`load`."""

    def load(self) -> Self:
        if self.training_args.do_train or self._label_list is None:
            file = _labels_from(self.data_args)
            names = (class_of(row) for row in self._labelled(file, "train"))
            self._label_list = classes((name for name in names if name is not None), file)
        self.label_list = list(self._label_list)
        self.num_labels = len(self.label_list)
        return super().load()

    def _labelled(self, file: str, split: str) -> list[Labelled]:
        if (file, split) not in self._known:
            rows = labelled(file, split, self.columns, split != "test")
            self._known[file, split] = list(rows)
        return self._known[file, split]

    def read(self, split: str) -> list[TextRow]:
        seed = self.training_args.seed
        rows = split_rows(self.data_args, split, seed, self._labelled, text_of)
        numbers = {name: number for number, name in enumerate(self.label_list or ())}
        return [_text_row(row, numbers, idx) for idx, row in enumerate(rows)]

    def write_predictions(self, folder: Path, split: str, logits: Outputs) -> Path:
        """Write each text with its label, if known, the predicted one and its probability.

        Args:
            folder: where; the file is named ``<split>_predictions.jsonl``.
            split: a key of ``predict_datasets``.
            logits: ``[N, labels]``.
        """
        assert self.label_list is not None
        decided, shares = self.decide(logits), softmax(first_output(logits), axis=1)
        lines = []
        for row, number, share in zip(
            self.predict_datasets[split].rows, decided, shares, strict=True
        ):
            ((first, second),) = row.pairs
            found = {"text": first} if second is None else {"text": first, "text_pair": second}
            if row.label is not None:
                found["label"] = self.label_list[int(row.label)]
            known = {**found, "predicted": self.label_list[number]}
            probability = {"probability": round(float(share[number]), 4)}
            lines.append(json.dumps(known | probability, ensure_ascii=False))
        return write_lines(folder / f"{split}_predictions.jsonl", lines)


def _labels_from(data: OwnData) -> str:
    """The file that decides which labels there are."""
    if data.train_file is None:
        raise UserError("which labels there are is not known: name --train_file too")
    return data.train_file


def _text_row(row: Labelled, numbers: dict[str, int], idx: int) -> TextRow:
    name = class_of(row)
    if name is not None and name not in numbers:
        raise UserError(f"{row.where}: the label {name!r} is none of {', '.join(numbers)}")
    return TextRow((text_of(row),), None if name is None else numbers[name], idx)


class OwnTags(NERDataset):
    """Words with tags, O or B-, I- and a type; what is predicted may be without."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        data_args: DataTrainingArguments,
        training_args: TrainingArguments,
        max_tokens: int | None = None,
        label_list: Sequence[str] | None = None,
    ) -> None:
        if training_args.do_train:  # those of the training file
            label_list = None
        super().__init__(tokenizer, data_args, training_args, max_tokens, label_list)
        texts = (data_args.text_column,) if data_args.text_column else ()
        self.columns = Columns(texts, data_args.label_column, WORDS, TAGS)
        self._known: dict[tuple[str, str], list[Sentence]] = {}
        self._has_tags = True

    def load(self) -> Self:
        super().load()
        if not self._has_tags:
            self.predict_datasets = {
                split: _Untagged(examples.features, examples.rows)
                for split, examples in self.predict_datasets.items()
            }
        return self

    def find_labels(self) -> Sequence[str]:
        file = _labels_from(self.data_args)
        types = {tag for row in self._sentences(file, "train") for tag in row.tags} - {"O"}
        if not types:
            raise UserError(f"{file}: every tag is O: there is nothing to find")
        return ("O", *sorted(types, key=lambda tag: (tag[2:], tag)))

    def read(self, split: str) -> list[Sentence]:
        seed = self.training_args.seed
        return split_rows(self.data_args, split, seed, self._sentences, lambda row: row.words)

    def _sentences(self, file: str, split: str) -> list[Sentence]:
        if (file, split) not in self._known:
            columns = is_columns(file)
            found = read_columns(Path(file)) if columns else self._tagged(file, split)
            self._known[file, split] = found
        return self._known[file, split]

    def _tagged(self, file: str, split: str) -> list[Sentence]:
        sentences, without = [], []
        for row in labelled(file, split, self.columns, split != "test"):
            words = words_of(row)
            tags = tags_of(row, len(words))
            for tag in tags or ():
                check_tag(tag, row.where)
            sentences.append(Sentence(words, tags or ("O",) * len(words), row.where))
            without += [] if tags else [row.where]
        if without and (split != "test" or len(without) < len(sentences)):
            raise UserError(f"{without[0]}: the tags are missing, and other rows have some")
        if without:
            self._has_tags = False
        return sentences

    def format(self, sentence: Sentence, tags: Sequence[str]) -> str:
        """``word gold predicted`` lines, or ``word predicted`` where no tags are known."""
        if self._has_tags:
            return super().format(sentence, tags)
        lines = zip(sentence.words, tags, strict=True)
        return "".join(f"{word} {tag}\n" for word, tag in lines)


class _Untagged(Examples[Sentence]):
    """Examples whose labels only say where words begin."""

    def __getitem__(self, index: int) -> Feature:
        return {k: v for k, v in self.features[index].items() if k != "labels"}
