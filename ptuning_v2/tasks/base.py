"""What all families share: examples and batches, finding files, drawing rows."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, TrainingArguments

from harness.progress import through
from prefix_tuning.errors import UserError
from prefix_tuning.files import without_surrogates
from prefix_tuning.objectives import IGNORE
from ptuning_v2.arguments import DataTrainingArguments
from ptuning_v2.tasks.own.files import held_out

DATA = Path(__file__).resolve().parents[2] / "data"
"""Where the original's repository keeps the files of ner and srl."""

_CHUNK = 1000

Feature = dict[str, Any]
Row = TypeVar("Row")
Outputs = np.ndarray | tuple[np.ndarray, ...]
"""What a Trainer collects of a model."""


class Examples(Dataset[Feature], Generic[Row]):
    """Model inputs, and beside them the rows of the data they were made of.

    Attributes:
        features: ``input_ids`` int32 ``[T]`` (a list of them, one per choice, for COPA) without
            padding, ``token_type_ids`` where the tokenizer has them, and the labels if known.
        rows: of each feature, what metrics and submission files need.
    """

    def __init__(self, features: Sequence[Feature], rows: Sequence[Row]) -> None:
        self.features = features
        self.rows = rows

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> Feature:
        return self.features[index]


@dataclass
class Collator:
    """Features of any family -> a batch of int64 tensors (labels of stsb: float32).

    ``input_ids``, ``attention_mask`` and, where there are any, ``token_type_ids`` are ``[B, T]``,
    of COPA ``[B, 2, T]``; ``labels`` is ``[B]``, or ``[B, T]`` padded with -100 for one label per
    token.

    Args:
        tokenizer: of the model.
        length: pad to this many tokens; to the longest of the batch if None.
        multiple_of: and on to a multiple of this.
    """

    tokenizer: PreTrainedTokenizerBase
    length: int | None = None
    multiple_of: int = 1

    def __call__(self, features: Sequence[Feature]) -> dict[str, Tensor]:
        columns = {name: [feature[name] for feature in features] for name in features[0]}
        choices = isinstance(columns["input_ids"][0], list)
        if choices:
            for name in _INPUTS & columns.keys():
                columns[name] = [row for rows in columns[name] for row in rows]
        columns["attention_mask"] = [np.ones(len(row)) for row in columns["input_ids"]]
        width = self._width(max(map(len, columns["input_ids"])))
        filling = {
            "input_ids": self.tokenizer.pad_token_id,
            "token_type_ids": self.tokenizer.pad_token_type_id,
            "attention_mask": 0,
            "labels": IGNORE,
        }
        batch = {
            name: _pad(rows, width, filling[name]) if np.ndim(rows[0]) else torch.tensor(rows)
            for name, rows in columns.items()
        }
        if choices:
            for name in (_INPUTS | {"attention_mask"}) & batch.keys():
                batch[name] = batch[name].view(len(features), -1, width)  # [B * C, T] -> [B, C, T]
        return batch

    def _width(self, longest: int) -> int:
        if self.length is not None:
            return self.length
        return -(-longest // self.multiple_of) * self.multiple_of


def _pad(rows: Sequence[Any], width: int, value: int) -> Tensor:
    table = torch.full((len(rows), width), value, dtype=torch.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = torch.as_tensor(row)
    return table


_INPUTS = {"input_ids", "token_type_ids"}


Encoded = TypeVar("Encoded", bound=Examples[Any])


class TaskData(ABC, Generic[Row, Encoded]):
    """The data of one data set as a trainer takes it; each family has its own subclass.

    The constructor reads no file: :meth:`load` does.

    Attributes:
        task_type: ``"sequence"``, ``"choice"``, ``"token"`` or ``"qa"``: the head it needs.
        num_labels: outputs of the head.
        label_list: their names, or None where they have none.
        test_key: the metric that tells the best epoch.
        train_dataset, eval_dataset: None without ``--do_train``, ``--do_eval``.
        predict_datasets: what ``--do_predict`` predicts: ``test``, or ``test_wsj`` and
            ``test_brown``, or ``test_matched`` and ``test_mismatched``; of QA ``validation``.
        data_collator: features -> batch.
    """

    task_type: str
    num_labels: int
    label_list: list[str] | None = None
    test_key: str
    data_collator: Collator
    train_dataset: Encoded | None = None
    eval_dataset: Encoded | None = None

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        data_args: DataTrainingArguments,
        training_args: TrainingArguments,
    ) -> None:
        self.tokenizer = tokenizer
        self.data_args = data_args
        self.training_args = training_args
        self.name = data_args.dataset_name
        self.predict_datasets: dict[str, Encoded] = {}

    def load(self) -> Self:
        """Read and encode the splits that the run needs; return the data.

        Raises:
            UserError: a file is missing or malformed, naming it and the line, or has no rows.
        """
        data, run = self.data_args, self.training_args
        # What is held out of one's own files, read() has left out already.
        fraction = None if data.is_own else data.eval_fraction
        held: list[Row] = []
        if run.do_train or (run.do_eval and fraction):
            rows = self._rows("train", data.max_train_samples)
            rows = draw(rows, data.train_size, run.seed)
            if fraction:
                rows, held = held_out(rows, fraction, run.seed, id, self.name)
            if run.do_train:
                self.train_dataset = self.encode(rows, True)
        if run.do_eval:
            split = self.splits("validation")[0]
            self.eval_dataset = self.encode(
                cut(held, data.max_eval_samples) or self._rows(split, data.max_eval_samples)
            )
        if run.do_predict:
            assert data.predict_split is not None
            self.predict_datasets = {
                split: self.encode(self._rows(split, data.max_predict_samples))
                for split in self.splits(data.predict_split)
            }
        return self

    def _rows(self, split: str, limit: int | None) -> list[Row]:
        rows = cut(self.read(split), limit)
        if not rows:
            raise UserError(f"the {split} set of {self.name} has no rows: see to its file")
        return rows

    def splits(self, kind: str) -> tuple[str, ...]:
        """The data sets of ``"validation"`` or ``"test"``."""
        return (kind,)

    @abstractmethod
    def read(self, split: str) -> list[Row]:
        """The rows of a split."""

    @abstractmethod
    def encode(self, rows: Sequence[Row], training: bool = False) -> Encoded:
        """Rows -> features."""

    @abstractmethod
    def write_predictions(self, folder: Path, split: str, logits: Outputs) -> Path:
        """Write what was predicted of a key of ``predict_datasets``; return the file."""

    @property
    def multiple_of(self) -> int:
        """What tensor cores want lengths to be a multiple of, in half precision."""
        return 8 if self.training_args.fp16 or self.training_args.bf16 else 1


def first_output(predictions: Outputs) -> np.ndarray:
    """The logits, without what a model may return beside them."""
    return predictions[0] if isinstance(predictions, tuple) else predictions


def defined(scores: Mapping[str, float | None]) -> dict[str, float]:
    """Scores, 0 where one is undefined: what says the same of every row correlates with nothing."""
    return {name: 0.0 if value is None else value for name, value in scores.items()}


def cut(rows: list[Row], limit: int | None) -> list[Row]:
    """The first ``limit`` rows, all if None."""
    return rows if limit is None else rows[:limit]


def draw(rows: list[Row], size: int | None, seed: int) -> list[Row]:
    """``size`` rows drawn without replacement, in the order of the file; all if None."""
    if size is None:
        return rows
    if size > len(rows):
        raise UserError(f"--train_size {size}: there are only {len(rows)} training rows")
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), size))]


def chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Parts of ``rows`` to tokenize at once, shown on their way."""
    for start in through(range(0, len(rows), _CHUNK), "thousands of rows tokenized"):
        yield rows[start : start + _CHUNK]


def locate(data_dir: str | Path, folder: str, names: Sequence[str]) -> Path:
    """The first of the files ``names`` that exists, in ``data_dir/folder`` or ``data_dir``.

    Raises:
        UserError: there is none.
    """
    for base in (Path(data_dir) / folder, Path(data_dir)):
        for name in names:
            if (base / name).is_file():
                return base / name
    raise UserError(
        f"{data_dir}: there is neither {folder}/{names[0]} nor {names[0]}; put the official file "
        "there, or give its folder with --data_dir"
    )


def read_hub(repository: str, configuration: str | None, split: str) -> list[dict[str, Any]]:
    """A split of a data set on the model hub, or in its cache.

    Raises:
        UserError: the hub does not answer, or has no such split.
    """
    from datasets import load_dataset

    try:
        rows = load_dataset(repository, configuration, split=split).to_list()
        return [without_surrogates(row) for row in rows]
    except (OSError, ValueError, RuntimeError) as error:
        name = "/".join(filter(None, (repository, configuration)))
        raise UserError(
            f"the hub gave no {split} split of {name} ({type(error).__name__}): download the "
            "official files and name their folder with --data_dir"
        ) from error
