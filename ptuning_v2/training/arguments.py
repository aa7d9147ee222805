"""From the flags of a run to the arguments of transformers' Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import TrainingArguments

from harness.trainer import trainer_arguments
from prefix_tuning.errors import UserError


@dataclass
class RunArguments(TrainingArguments):
    """Trainer's arguments, and what it no longer knows itself."""

    output_dir: str = ""
    overwrite_output_dir: bool = False
    logging_dir: str | None = None


def training_arguments(run: object, rest: Sequence[str], known: Sequence[str]) -> RunArguments:
    """Trainer's arguments.

    Args:
        run: the flags that are declared here (``ptuning_v2.arguments.RunFlags``).
        rest: the others of the command line.
        known: the names of all that are declared here.

    Raises:
        UserError: Trainer has no such flag, or refuses a value.
    """
    result = trainer_arguments(RunArguments, run, rest, known)
    if result.load_best_model_at_end:
        raise UserError("--load_best_model_at_end: leave it out, the best epoch is kept anyway")
    return result
