"""Classification of texts and pairs of texts, which GLUE and SuperGLUE share."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from transformers import PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_utils import EvalPrediction

from evaluation import classification
from evaluation.checks import check_finite
from prefix_tuning.errors import UserError
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

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextRow:
    """What is classified, and where the official file has it."""

    pairs: tuple[tuple[str, str | None], ...]
    """Text and second text, if any; for COPA one such pair for each choice."""
    label: float | None
    idx: Any
    """Its number; for MultiRC those of paragraph, question and answer, for ReCoRD of the query."""
    entity: str = ""
    """ReCoRD: what stands for the placeholder."""
    answers: tuple[str, ...] = ()
    """ReCoRD: the accepted entities."""


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[TextRow], max_length: int
) -> list[Feature]:
    """Tokenize rows; of a pair that is too long the longer text loses tokens first."""
    features = []
    for part in chunks(rows):
        pairs = [pair for row in part for pair in row.pairs]
        first, second = ([pair[i] for pair in pairs] for i in range(2))
        encoded = tokenizer(
            first,
            None if second[0] is None else second,
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
        )
        columns = {k: [np.array(v, dtype=np.int32) for v in encoded[k]] for k in encoded}
        width = len(part[0].pairs)
        for number, row in enumerate(part):
            span = slice(number * width, (number + 1) * width)
            feature = {k: v[span] if width > 1 else v[number] for k, v in columns.items()}
            features.append(feature if row.label is None else {**feature, "labels": row.label})
    return features


class TextData(TaskData[TextRow, Examples[TextRow]]):
    """A data set of GLUE or SuperGLUE; subclasses read its files."""

    task_type = "sequence"
    test_key = "accuracy"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        data_args: DataTrainingArguments,
        training_args: TrainingArguments,
    ) -> None:
        super().__init__(tokenizer, data_args, training_args)
        assert data_args.max_seq_length is not None
        wanted, most = data_args.max_seq_length, tokenizer.model_max_length
        if wanted > most:
            log.warning("--max_seq_length %d: the tokenizer allows %d, using that", wanted, most)
        self.max_seq_length = min(wanted, most)
        special = tokenizer.num_special_tokens_to_add(pair=True)
        if self.max_seq_length <= special:
            raise UserError(
                f"--max_seq_length {self.max_seq_length}: special tokens alone take {special}"
            )
        fixed = self.max_seq_length if data_args.pad_to_max_length else None
        self.data_collator = Collator(tokenizer, fixed, self.multiple_of)
        self.set_labels()

    @abstractmethod
    def set_labels(self) -> None:
        """Set ``label_list``, ``num_labels`` and what else follows from the data set's name."""

    def load(self) -> Self:
        super().load()
        known = [("train", self.train_dataset), ("validation", self.eval_dataset)]
        for split, examples in (*known, *self.predict_datasets.items()):
            if examples is None:
                continue
            unlabelled = sum(row.label is None for row in examples.rows)
            # What is predicted may be without labels, but then without any.
            if unlabelled and ((split, examples) in known or unlabelled < len(examples)):
                raise UserError(
                    f"{unlabelled} of the {len(examples)} rows of the {split} set of {self.name} "
                    "have no label: see to its file"
                )
        return self

    def encode(self, rows: Sequence[TextRow], training: bool = False) -> Examples[TextRow]:
        return Examples(encode_texts(self.tokenizer, rows, self.max_seq_length), rows)

    def decide(self, logits: Outputs) -> np.ndarray:
        """Logits ``[N, labels]`` -> class of each row; of stsb ``[N, 1]`` -> its score."""
        logits = first_output(logits)
        check_finite(logits, f"the logits of {self.name}")
        if self.name == "stsb":
            return logits.reshape(len(logits))
        return logits.argmax(axis=1)

    def compute_metrics(self, p: EvalPrediction, rows: Sequence[TextRow]) -> dict[str, float]:
        """The metrics of the benchmark, ``test_key`` among them.

        Args:
            p: the logits and labels of ``rows``, in their order.
            rows: of the data set that was evaluated.
        """
        scores = classification.score(
            self.name, np.asarray(p.label_ids).tolist(), self.decide(p.predictions).tolist()
        )
        return defined(scores.values)
