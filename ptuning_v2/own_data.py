"""Data of one's own: its flags, and what a run on it does unless flags say otherwise.

The original's defaults are those of transformers, and its scripts name every flag. The learning
rate here is that of the README's measurement on SST-2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from harness.flags import flag
from harness.own_files import has_split, is_hub_name, read_rows
from harness.ranges import FRACTION
from prefix_tuning.errors import UserError
from prefix_tuning.files import numbered_lines
from ptuning_v2.tasks.utils import OWN

BATCH = 16
FEWEST_UPDATES = 300
FEWEST_PASSES = 5
MOST_EVALUATIONS = 20
HELD_OUT = 0.1


@dataclass(kw_only=True)
class OwnData:
    """Data of one's own, for classification, tagging and qa."""

    train_file: str | None = flag(
        None,
        "file to train on (CSV, TSV, JSON, JSONL, parquet, CoNLL columns, SQuAD's JSON), folder, "
        "or data set of the hub",
    )
    validation_file: str | None = flag(
        None,
        "file to choose the best epoch on (default: the validation split of a folder, or a part of "
        "--train_file)",
    )
    test_file: str | None = flag(
        None, "file to predict, whose labels may be missing; the answers of qa may not"
    )
    eval_fraction: float | None = flag(
        None,
        "share of the training rows that is held out to evaluate on (default: of --train_file "
        "without --validation_file 0.1, of --data_dir none; 0: none)",
        within=FRACTION,
    )
    text_column: str | None = flag(None, "column of the text, or the words (default: guessed)")
    text_pair_column: str | None = flag(None, "column of the second text of a pair")
    label_column: str | None = flag(None, "column of the label, or the tags (default: guessed)")

    @property
    def files(self) -> dict[str, str]:
        """What is named, by its flag."""
        names = ("train_file", "validation_file", "test_file")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def check(self, task_name: str) -> None:
        """Refuse what cannot be, before anything is read.

        Raises:
            UserError: a file is missing, or is not for this family of tasks.
        """
        for name, file in self.files.items():
            if task_name not in (*OWN, "qa"):
                raise UserError(
                    f"--{name} {file}: --task_name {task_name} reads the official files of "
                    f"--data_dir; files of one's own are for {', '.join(OWN)} and qa"
                )
            if not (Path(file).exists() or is_hub_name(file)):
                raise UserError(f"--{name} {file}: there is no such file")
        if self.text_pair_column and task_name == "tagging":
            raise UserError(f"--text_pair_column {self.text_pair_column}: tagging has one text")
        if self.text_pair_column and not self.text_column:
            raise UserError(
                f"--text_pair_column {self.text_pair_column}: name the first text of the pair too, "
                "with --text_column"
            )
        if self.validation_file and self.eval_fraction:
            raise UserError("--validation_file and --eval_fraction: give one of them")

    def check_columns(self, task_name: str) -> None:
        """Refuse names of columns that the task does not read.

        Raises:
            UserError: there is one.
        """
        for name in ("text_column", "text_pair_column", "label_column"):
            if getattr(self, name) is not None and task_name not in OWN:
                raise UserError(
                    f"--{name} {getattr(self, name)}: --task_name {task_name} has columns of its "
                    f"own; those of one's own files can be named for {' and '.join(OWN)}"
                )

    def missing(self, train: bool, evaluate: bool, predict: bool) -> str | None:
        """The flag that should name what is to be done; None if there is none."""
        if train and not self.train_file:
            return "--train_file"
        if evaluate and not (self.validation_file or (self.train_file and self.eval_fraction)):
            return "--validation_file"
        return "--test_file" if predict and not self.test_file else None

    def defaults(
        self, task_name: str, goes_on: bool, prefix: bool | None, others: bool
    ) -> dict[str, object]:
        """Values of flags by name, by the size of the training file.

        Args:
            task_name: the family of tasks.
            goes_on: whether something trained is given.
            prefix: whether a prefix is asked for; None if it is not said.
            others: whether shallow prompts or the head alone are.
        """
        trains = self.train_file is not None
        validation = self.validation_file
        if trains and not validation and self.eval_fraction is None:
            validation = self.train_file if has_split(str(self.train_file), "valid") else None
        evaluates = bool(validation or (trains and self.eval_fraction != 0))
        found: dict[str, object] = {
            "do_train": trains and not goes_on,
            "do_eval": evaluates,
            "do_predict": self.test_file is not None,
            "pad_to_max_length": False,
            "per_device_eval_batch_size": 32,
        }
        if task_name == "qa":
            found["dataset_name"] = "squad"
        if not trains:
            return found
        fraction = HELD_OUT if self.eval_fraction is None else self.eval_fraction
        fraction = 0.0 if validation else fraction
        rows = math.ceil(count_rows(str(self.train_file)) * (1 - fraction))
        batch = min(BATCH, rows)
        updates = math.ceil(rows / batch)  # of a pass
        passes = max(FEWEST_PASSES, math.ceil(FEWEST_UPDATES / updates))
        every = math.ceil(passes / MOST_EVALUATIONS) * updates
        found |= {
            "per_device_train_batch_size": batch,
            "num_train_epochs": passes,
            "eval_strategy": "steps" if evaluates else "no",
            "save_strategy": "steps",
            **dict.fromkeys(("save_steps", "logging_steps"), every),
            **({"eval_steps": every} if evaluates else {}),
            "eval_fraction": fraction or None,
            "validation_file": validation,
        }
        if task_name != "qa":  # its learning rate falls by a part every epoch, without warm-up
            found["warmup_steps"] = 0.1
        if prefix is None and not (others or goes_on):
            found |= {"prefix": True, "pre_seq_len": 16}
        # The whole encoder takes transformers' own rate.
        return found if prefix is False and not others else {**found, "learning_rate": 1e-2}


def count_rows(data: str) -> int:
    """How many rows there are to train on, before they are checked."""
    if is_columns(data):
        return max(1, sum(not line.strip() for line, _ in numbered_lines(Path(data))))
    return max(1, sum(1 for _ in read_rows(data)))


def is_columns(data: str) -> bool:
    """Whether this is a file of words in CoNLL's columns, by its ending."""
    return Path(data).suffix in (".txt", ".conll", ".bio")
