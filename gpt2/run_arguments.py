"""The flags of transformers' Trainer, with the original's names and defaults where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from transformers import HfArgumentParser, TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from gpt2.arguments import RunFlags, check_run
from harness.flags import Parser
from prefix_tuning.errors import UserError


@dataclass
class RunArguments(RunFlags, TrainingArguments):
    """What Trainer is told."""


def complete(
    run: RunFlags, rest: Sequence[str], parser: Parser, defaults: Mapping[str, Any]
) -> RunArguments:
    """Trainer's arguments: those that were read, and the flags of Trainer among the rest.

    Raises:
        UserError: a flag is unknown, or Trainer refuses it.
    """
    trainer = HfArgumentParser([RunArguments])
    names = {field.name for field in fields(RunArguments)}
    trainer.set_defaults(**{k: v for k, v in (*defaults.items(), *vars(run).items()) if k in names})
    values, unknown = trainer.parse_known_args(list(rest))
    if unknown:
        parser.refuse_unknown(unknown, trainer)
    try:
        made = RunArguments(**vars(values))
    except (ValueError, ImportError) as error:  # combinations that Trainer refuses
        raise UserError(" ".join(str(error).split())) from error
    check_run(made)
    installed = get_available_reporting_integrations()
    for name in made.report_to:
        if name not in installed:
            raise UserError(
                f"--report_to {name}: its package is not installed, or there is none of that name; "
                f"use none or {', '.join(installed)}"
            )
    return made
