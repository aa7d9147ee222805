"""What the runs of transformers' Trainer share."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from transformers import (
    HfArgumentParser,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from prefix_tuning.errors import UserError

T = TypeVar("T", bound=TrainingArguments)


class LogWithEveryCheckpoint(TrainerCallback):
    """A resumed run logs the same losses as an uninterrupted one only if none is half collected."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        control.should_log = control.should_log or control.should_save
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        return self.on_step_end(args, state, control)


def trainer_arguments(
    cls: type[T],
    flags: Any,
    rest: Sequence[str],
    known: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> T:
    """Trainer's arguments of a command line.

    Args:
        cls: TrainingArguments, or a subclass with fields of its own.
        flags: a dataclass of the flags that the command declares itself, all of them in ``cls``.
        rest: what it did not know of the command line: flags of ``cls``.
        known: all flags of the command, among which a mistyped one is looked for.
        defaults: values of further fields of ``cls``, where ``rest`` does not give them.

    Raises:
        UserError: there is no such flag, or Trainer refuses a value.
    """
    dataclass: Any = cls
    parser = HfArgumentParser(dataclass, allow_abbrev=False)
    for action in parser._actions:  # none but those given
        action.default, action.required = argparse.SUPPRESS, False
    values, unknown = parser.parse_known_args(list(rest))
    if unknown:
        name = unknown[0].split("=")[0]
        options = [text for action in parser._actions for text in action.option_strings]
        close = difflib.get_close_matches(name, [*known, *options], n=1)
        advice = f"did you mean {close[0]}?" if close else "--help lists them"
        raise UserError(f"{name}: there is no such flag; {advice}")
    try:
        return cls(**{**(defaults or {}), **asdict(flags), **vars(values)})
    except (ValueError, ImportError) as error:
        raise UserError(f"Trainer refuses these flags: {' '.join(str(error).split())}") from error


def set_up(args: TrainingArguments, logging_dir: str | Path) -> None:
    """Say where TensorBoard's files go, and compute on one GPU of a process."""
    if args.report_to == ["tensorboard"]:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(logging_dir)
    args.dataloader_pin_memory = args.n_gpu > 0
    if args.n_gpu > 1:
        print("several GPUs seen: using the first; start with torchrun to use all")
        args._n_gpu = 1
