"""Which of transformers' TrainingArguments the runs take, and within which numbers.

Every field of the installed version stands in one of two tables, in ``trainer_flags.json``: those
that work here, and those that would do nothing, or something else than they say; these are refused,
with the reason. A field of a newer version that stands in neither is refused too, and a test names
it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.only import Only
from harness.ranges import (
    COUNT,
    COUNT_OR_NONE,
    EPOCHS,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    STEPS,
    Range,
    check_all,
)
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json

RANGES: dict[str, Range] = {
    **dict.fromkeys(
        (
            *("per_device_train_batch_size", "per_device_eval_batch_size", "save_total_limit"),
            *("gradient_accumulation_steps", "eval_accumulation_steps", "torch_empty_cache_steps"),
            *("ddp_bucket_cap_mb", "ddp_timeout", "dataloader_prefetch_factor"),
        ),
        COUNT,
    ),
    "max_steps": STEPS,
    "num_train_epochs": EPOCHS,
    "dataloader_num_workers": Range(0, 1024, "must be from 0 to 1024"),
    **dict.fromkeys(("learning_rate", "save_steps", "logging_steps", "eval_steps"), POSITIVE),
    **dict.fromkeys(("weight_decay", "adam_epsilon", "max_grad_norm", "eval_delay"), NOT_NEGATIVE),
    "warmup_steps": COUNT_OR_NONE,
    **dict.fromkeys(("adam_beta1", "adam_beta2"), FRACTION),
    "label_smoothing_factor": SHARE,
    **dict.fromkeys(("seed", "data_seed"), SEED),
}
"""The numbers that a field takes."""

_TABLES = read_json(Path(__file__).with_suffix(".json"))
TAKEN = {*RANGES, *_TABLES["taken"]}
"""The fields that do what they say."""
REFUSED: dict[str, str] = {name: why for why, names in _TABLES["refused"].items() for name in names}
"""The fields that are refused, and why."""


def _by_steps(what: str) -> Only:
    return Only(f"with --{what} steps", lambda args: getattr(args, what) == "steps")


_ADAM = Only(
    "with an --optim that has it, as adamw_torch",
    lambda args: any(kind in args.optim for kind in ("adam", "lion")),
)
_TRACKIO = Only("with --report_to trackio", lambda args: "trackio" in args.report_to)

ONLY: dict[str, Only] = {
    "eval_steps": _by_steps("eval_strategy"),
    "save_steps": _by_steps("save_strategy"),
    "logging_steps": _by_steps("logging_strategy"),
    "eval_delay": Only("with --eval_strategy", lambda args: args.eval_strategy != "no"),
    "save_total_limit": Only(
        "with --save_strategy", lambda args: args.save_strategy != "no", idle=(None,)
    ),
    "warmup_steps": Only(
        "with an --lr_scheduler_type that warms up, as constant_with_warmup",
        lambda args: args.lr_scheduler_type != "constant",
        idle=(0,),
    ),
    "lr_scheduler_kwargs": Only(
        "with an --lr_scheduler_type that has options, as cosine_with_min_lr",
        lambda args: args.lr_scheduler_type not in ("constant", "constant_with_warmup"),
    ),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon"), _ADAM),
    "dataloader_persistent_workers": Only(
        "with --dataloader_num_workers", lambda args: args.dataloader_num_workers
    ),
    "project": _TRACKIO,
    **dict.fromkeys(
        [f"trackio_{part}_id" for part in ("space", "bucket", "static_space")], _TRACKIO
    ),
    "run_name": Only(
        "with a --report_to that names runs, as wandb",
        lambda args: set(args.report_to) - {"none", "tensorboard"},
    ),
}
"""The fields that are read only beside others."""


def check_taken(given: Mapping[str, Any], cls: type, refused: Mapping[str, str]) -> None:
    """Refuse fields of TrainingArguments that do not do here what they say.

    Args:
        given: values of fields by name; one that equals the field's default passes.
        cls: TrainingArguments.
        refused: fields, and why.

    Raises:
        UserError: naming the flag and the reason.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    for name, value in given.items():
        if name not in defaults or value == defaults[name]:
            continue
        if name in refused:
            _refuse(name, value, refused[name])
        if name not in TAKEN | REFUSED.keys():
            _refuse(name, value, "this flag of a newer transformers is not known to work here")


def _refuse(name: str, value: Any, why: str) -> None:
    shown = "" if value is True else f" {getattr(value, 'value', value)}"
    raise UserError(f"--{name}{shown}: {why}")


def unknown(names: Iterable[str]) -> list[str]:
    """The fields that stand in neither table."""
    return sorted(set(names) - TAKEN - REFUSED.keys())


def check_values(values: Mapping[str, Any]) -> None:
    """Hold fields to their ranges, and choices to what works here.

    Raises:
        UserError: naming the flag.
    """
    check_all(RANGES, values)
    if values.get("save_strategy") == "best":
        raise UserError("--save_strategy best: checkpoints are to go on from; use steps or epoch")
    schedule = values.get("lr_scheduler_type")
    if schedule in ("reduce_lr_on_plateau", "greedy"):
        raise UserError(
            f"--lr_scheduler_type {schedule}: the rate cannot follow the evaluations "
            "here; use linear, cosine, ..."
        )
