"""One label per word, which NER and SRL share."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_utils import EvalPrediction

from evaluation import tagging
from evaluation.checks import check_finite
from prefix_tuning.errors import UserError
from prefix_tuning.files import write_lines
from prefix_tuning.finite import check_logits
from prefix_tuning.objectives import IGNORE
from ptuning_v2.arguments import DataTrainingArguments
from ptuning_v2.tasks.base import (
    Collator,
    Examples,
    Feature,
    Outputs,
    TaskData,
    chunks,
    defined,
    first_output,
)


@dataclass(frozen=True)
class Sentence:
    """Words and their tags."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    where: str
    """File and line, for messages."""
    predicate: int | None = None
    """SRL: index of the word whose arguments the tags are."""

    @property
    def appended(self) -> list[str]:
        """What follows the words in the input: for SRL a literal [SEP] and the predicate."""
        # RoBERTa's separator is another one and splits this in pieces, in the original as here.
        return [] if self.predicate is None else ["[SEP]", self.words[self.predicate]]


class Aligner:
    """Sentences -> features, the label of each word on its first sub-token.

    Attributes:
        n_cut: sentences that were too long, so far.

    Args:
        tokenizer: of the model; reads words one by one.
        labels: names of the labels in the order of their numbers.
        max_tokens: what is longer loses words at its end, and their labels with them.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], max_tokens: int
    ) -> None:
        self.tokenizer = tokenizer
        self.numbers = {label: number for number, label in enumerate(labels)}
        self.max_tokens = max_tokens
        self.n_cut = 0

    def encode(self, sentences: Sequence[Sentence]) -> list[Feature]:
        """Tokenize; every other sub-token and what SRL appends is labelled -100.

        Raises:
            UserError: a tag is not among the labels, naming file and line.
        """
        features = []
        for part in chunks(sentences):
            encoded = self._tokenize([[*s.words, *s.appended] for s in part])
            for row, sentence in enumerate(part):
                feature = self._feature(encoded, row, sentence)
                if len(feature["labels"]) > self.max_tokens:
                    feature = self._shortened(encoded, row, sentence)
                    self.n_cut += 1
                features.append(feature)
        return features

    def _tokenize(self, words: list[list[str]], **limits: Any) -> BatchEncoding:
        return self.tokenizer(
            words, is_split_into_words=True, return_attention_mask=False, **limits
        )

    def _feature(
        self, encoded: BatchEncoding, row: int, sentence: Sentence, kept: int | None = None
    ) -> Feature:
        tags = sentence.tags if kept is None else sentence.tags[:kept]
        labels = [IGNORE] * len(encoded["input_ids"][row])
        for word, position in first_tokens(encoded.word_ids(row)).items():
            if word < len(tags):
                labels[position] = self._number(tags[word], sentence.where)
        inputs = {k: np.array(encoded[k][row], dtype=np.int32) for k in encoded}
        return {**inputs, "labels": labels}

    def _number(self, tag: str, where: str) -> int:
        if tag not in self.numbers:
            raise UserError(f"{where}: tag {tag!r} is none of {', '.join(self.numbers)}")
        return self.numbers[tag]

    def _shortened(self, encoded: BatchEncoding, row: int, sentence: Sentence) -> Feature:
        """The feature of as many words as fit beside what is appended, but at least one."""
        count = len(sentence.words)
        pieces = Counter(encoded.word_ids(row))
        excess = len(encoded["input_ids"][row]) - self.max_tokens
        kept = count
        while kept > 1 and excess > 0:
            kept -= 1
            excess -= pieces[kept]
        words = [*sentence.words[:kept], *sentence.appended]
        # Cuts nothing but a single word that is too long.
        limits = {"truncation": True, "max_length": self.max_tokens}
        return self._feature(self._tokenize([words], **limits), 0, sentence, kept)


def first_tokens(word_ids: Iterable[int | None]) -> dict[int, int]:
    """Word -> position of its first sub-token; words of no sub-token are left out."""
    first: dict[int, int] = {}
    for position, word in enumerate(word_ids):
        if word is not None:
            first.setdefault(word, position)
    return first


def best_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits ``[B, T, labels]`` -> ``[B, T]``: for ``preprocess_logits_for_metrics``.

    A Trainer that keeps the logits of a SRL evaluation set needs gigabytes.
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    check_logits(logits.flatten(0, 1))  # [B, T, labels] -> [B * T, labels]
    return logits.argmax(dim=-1)


class WordData(TaskData[Sentence, Examples[Sentence]]):
    """A data set of NER or SRL; subclasses read its files.

    Args:
        max_tokens: what the prompts leave of the encoder's positions
            (:func:`prefix_tuning.positions.room`); the tokenizer's limit if None.
        label_list: of a trained prefix; that of the data set if None.
    """

    task_type = "token"
    test_key = "f1"
    label_list: list[str]

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        data_args: DataTrainingArguments,
        training_args: TrainingArguments,
        max_tokens: int | None = None,
        label_list: Sequence[str] | None = None,
    ) -> None:
        super().__init__(tokenizer, data_args, training_args)
        limit = tokenizer.model_max_length
        self.max_tokens = limit if max_tokens is None else min(limit, max_tokens)
        if self.max_tokens <= tokenizer.num_special_tokens_to_add():
            raise UserError(
                "--pre_seq_len leaves no position of the encoder to the words: lower it"
            )
        self.data_collator = Collator(tokenizer, multiple_of=self.multiple_of)
        self._label_list = label_list

    def load(self) -> Self:
        self.label_list = list(self._label_list or self.find_labels())
        self.num_labels = len(self.label_list)
        self.aligner = Aligner(self.tokenizer, self.label_list, self.max_tokens)
        return super().load()

    @abstractmethod
    def find_labels(self) -> Sequence[str]:
        """The labels of the data set, for which it may read its files."""

    def encode(self, rows: Sequence[Sentence], training: bool = False) -> Examples[Sentence]:
        before = self.aligner.n_cut
        features = self.aligner.encode(rows)
        if cut := self.aligner.n_cut - before:
            print(
                f"{cut} of {len(rows)} sentences of {self.name} lose words at their end: there is "
                f"room for {self.max_tokens} tokens"
            )
        return Examples(features, rows)

    def decide(self, predictions: Outputs) -> np.ndarray:
        """Logits ``[N, T, labels]``, or already :func:`best_labels`, -> ``[N, T]``."""
        ids = first_output(predictions)
        if ids.ndim < 3:
            return ids
        check_finite(ids, f"the logits of {self.name}")
        return ids.argmax(axis=-1)

    def compute_metrics(self, p: EvalPrediction, rows: Sequence[Sentence]) -> dict[str, float]:
        """Precision, recall, F1 over all chunks (B-V of SRL included) and accuracy over words.

        All but accuracy are 0 where there is no chunk to find.
        """
        labels, found = np.asarray(p.label_ids), self.decide(p.predictions)  # [N, T]
        known = labels != IGNORE
        gold, predicted = (
            [[self.label_list[i] for i in row[keep]] for row, keep in zip(ids, known, strict=True)]
            for ids in (labels, found)
        )
        if all(tag == "O" for tags in gold for tag in tags):
            accuracy = float((labels == found)[known].mean())
            return {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": accuracy}
        return defined(tagging.score(gold, predicted)["overall"].values)

    def predict_tags(self, split: str, predictions: Outputs) -> list[list[str]]:
        """The tag of every word; O for words cut off, or without a sub-token."""
        examples = self.predict_datasets[split]
        tags = []
        for sentence, feature, ids in zip(
            examples.rows, examples.features, self.decide(predictions), strict=True
        ):
            words = self._labelled_words(sentence, feature)
            found = {word: self.label_list[ids[position]] for word, position in words.items()}
            tags.append([found.get(word, "O") for word in range(len(sentence.words))])
        return tags

    def _labelled_words(self, sentence: Sentence, feature: Feature) -> dict[int, int]:
        """Word -> position of its label; a sentence that was too long lacks its last words."""
        positions = [i for i, label in enumerate(feature["labels"]) if label != IGNORE]
        encoded = self.tokenizer(
            [*sentence.words, *sentence.appended], is_split_into_words=True
        ).word_ids()
        words = [word for word in first_tokens(encoded) if word < len(sentence.words)]
        return dict(zip(words, positions, strict=False))

    @abstractmethod
    def format(self, sentence: Sentence, tags: Sequence[str]) -> str:
        """A sentence with predicted tags, in the format of the data set."""

    def write_predictions(self, folder: Path, split: str, logits: Outputs) -> Path:
        """Write the predicted tags of every word, in the format of the data set.

        Args:
            folder: where; the file is named ``<split>_predictions.txt``.
            split: a key of ``predict_datasets``.
            logits: ``[N, T, labels]``, or :func:`best_labels` of them ``[N, T]``.
        """
        rows = self.predict_datasets[split].rows
        tags = self.predict_tags(split, logits)
        lines = [self.format(row, row_tags) for row, row_tags in zip(rows, tags, strict=True)]
        return write_lines(folder / f"{split}_predictions.txt", lines)
