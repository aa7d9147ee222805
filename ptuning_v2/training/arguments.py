"""From the flags of a run to the arguments of transformers' Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import TrainingArguments

from harness.only import Only
from harness.trainer import trainer_arguments


@dataclass
class RunArguments(TrainingArguments):
    """Trainer's arguments, and what it no longer knows itself."""

    output_dir: str = ""
    overwrite_output_dir: bool = False
    logging_dir: str | None = None
    cuda_graphs: str = "no"


_FALLS = "the learning rate of ner, srl and qa falls by 5 % every epoch, without warm-up"
_SCHEDULE = dict.fromkeys(("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"), _FALLS)
REFUSED: dict[str, dict[str, str]] = {
    "ner": _SCHEDULE,
    "srl": _SCHEDULE,
    "qa": {**_SCHEDULE, "label_smoothing_factor": "answers are places, not labels"},
}
"""By family of tasks: flags of Trainer that would have no effect, and why."""

ONLY = {"logging_dir": Only("with --report_to tensorboard", lambda a: "tensorboard" in a.report_to)}
"""A flag of ours that is read only beside one of Trainer's."""


def training_arguments(
    run: object, rest: Sequence[str], known: Sequence[str], task_name: str
) -> RunArguments:
    """Trainer's arguments.

    Args:
        task_name: the family of tasks.
        run: the flags that are declared here (``ptuning_v2.arguments.RunFlags``).
        rest: the others of the command line.
        known: the names of all that are declared here.

    Raises:
        UserError: Trainer has no such flag, or refuses a value.
    """
    refused = REFUSED.get(task_name)
    return trainer_arguments(RunArguments, run, rest, known, refused=refused, only=ONLY)
