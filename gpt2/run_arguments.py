"""The flags of transformers' Trainer, with the original's names and defaults where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from transformers import TrainingArguments

from gpt2.arguments import RunFlags
from harness.only import Only
from harness.trainer import trainer_arguments

REFUSED = {
    "label_smoothing_factor": (
        "the losses are the paper's, chosen by --objective_mode; --label_smoothing smooths them, "
        "in training alone"
    ),
    "train_sampling_strategy": "the order is random; --length_groups yes groups by length",
}

ONLY = {
    "eval_steps": Only(
        "with --evaluate_during_training or --eval_strategy steps",
        lambda args: (
            args.eval_strategy == "steps"
            or (args.eval_strategy == "no" and args.evaluate_during_training)
        ),
    ),
    "eval_delay": Only(
        "with --evaluate_during_training or --eval_strategy",
        lambda args: args.eval_strategy != "no" or args.evaluate_during_training,
    ),
}
"""Fields of Trainer's that are read elsewhere than harness.trainer_flags says."""


@dataclass
class RunArguments(RunFlags, TrainingArguments):  # type: ignore[misc]  # other defaults, same flags
    """What Trainer is told."""


def complete(
    run: RunFlags, rest: Sequence[str], known: Sequence[str], defaults: Mapping[str, Any]
) -> RunArguments:
    """Trainer's arguments: those that were read, and the flags of Trainer among the rest.

    Args:
        known: the flags of the command, among which a mistyped one is looked for.
        defaults: of flags that are not among those read; flags of others than Trainer are ignored.

    Raises:
        UserError: a flag is unknown, or Trainer refuses it.
    """
    names = {field.name for field in fields(RunArguments)}
    others = {name: value for name, value in defaults.items() if name in names}
    return trainer_arguments(RunArguments, run, rest, known, others, REFUSED, ONLY)
