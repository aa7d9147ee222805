"""Trainer's arguments: read from a command line, checked, and completed for a run."""

from __future__ import annotations

import argparse
import copy
import difflib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import HfArgumentParser, Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations

from harness.only import Only, check_given
from harness.only import given as given_of
from harness.ranges import SHARE
from harness.trainer_flags import ONLY, REFUSED, check_taken, check_values
from prefix_tuning.errors import UserError

T = TypeVar("T", bound=TrainingArguments)


def trainer_arguments(
    cls: type[T],
    flags: Any,
    rest: Sequence[str],
    known: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
    refused: Mapping[str, str] | None = None,
    only: Mapping[str, Only] | None = None,
) -> T:
    """Trainer's arguments of a command line.

    Args:
        cls: TrainingArguments, or a subclass with fields of its own.
        flags: a dataclass of the flags that the command declares itself, all of them in ``cls``.
        rest: what it did not know of the command line: flags of TrainingArguments.
        known: all flags of the command, among which a mistyped one is looked for.
        defaults: values of further fields of ``cls``, where ``rest`` does not give them.
        refused: fields that this command refuses besides those that all do, and why.
        only: fields that this command reads elsewhere than all do.

    Raises:
        UserError: there is no such flag, it would not do what it says, its number is outside its
            range, or Trainer refuses its value.
    """
    given = _read(rest, known)
    ours = asdict(flags)
    ratio = given.pop("warmup_ratio", None)
    if ratio is not None:
        if given.get("warmup_steps", ours.get("warmup_steps", 0)):
            raise UserError("--warmup_steps and --warmup_ratio exclude each other")
        given["warmup_steps"] = _share_of_steps(ratio)
    refused = dict(refused or {})
    if ratio and "warmup_steps" in refused:
        raise UserError(f"--warmup_ratio {ratio}: {refused['warmup_steps']}")
    check_taken(given, TrainingArguments, {**REFUSED, **refused})
    check_taken(ours, TrainingArguments, refused)
    values = {**(defaults or {}), **ours, **given}
    check_values(values)
    if "MASTER_ADDR" not in os.environ:  # not started by torchrun
        _check_alone()
    try:
        made = cls(**values)
    except (ValueError, ImportError, TypeError, OverflowError) as error:
        raise _refused(error) from error
    asked = {**(defaults or {}), **given}
    asked = {k: v for k, v in asked.items() if v != getattr(TrainingArguments, k, None)}
    check_given({**ONLY, **(only or {})}, {**given_of(flags), **asked}, made)
    _try_optimizer(made)
    _check_processes(made)
    installed = get_available_reporting_integrations()
    for name in made.report_to or ():
        if name not in installed:
            raise UserError(
                f"--report_to {name}: its package is not installed, or there is none of that name; "
                f"use none or {', '.join(installed)}"
            )
    return made


@cache
def _parser() -> HfArgumentParser:
    dataclass: Any = TrainingArguments
    parser = HfArgumentParser(dataclass, allow_abbrev=False)
    if "--warmup_ratio" not in parser._option_string_actions:  # older versions have it
        parser.add_argument("--warmup_ratio", type=float)
    for action in parser._actions:  # none but those given
        action.default, action.required = argparse.SUPPRESS, False
    return parser


def _read(rest: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """The flags of TrainingArguments that are given, and ``warmup_ratio``."""
    parser = _parser()
    for action in parser._actions:  # a flag that may also be unset is as good without a value
        if getattr(action.type, "__name__", "") == "string_to_bool" and action.nargs is None:
            action.nargs, action.const = "?", True
    values, unknown = parser.parse_known_args(list(rest))
    if unknown:
        name = unknown[0].split("=")[0]
        options = [text for action in parser._actions for text in action.option_strings]
        close = difflib.get_close_matches(name, [*known, *options], n=1)
        advice = f"did you mean {close[0]}?" if close else "--help lists them"
        raise UserError(f"{name}: there is no such flag; {advice}")
    return vars(values)


def _share_of_steps(ratio: float) -> float:
    """``--warmup_steps`` for a share of all steps: Trainer takes what is below 1 for one."""
    SHARE.check("warmup_ratio", ratio)
    return min(ratio, math.nextafter(1.0, 0.0))


def _refused(error: Exception) -> UserError:
    return UserError(f"Trainer refuses these flags: {' '.join(str(error).split())}")


def _check_alone() -> None:
    n_process = int(os.environ.get("WORLD_SIZE", "1"))
    if n_process > 1:
        raise UserError(
            f"WORLD_SIZE is {n_process}, but Trainer sees one process, and each would train for "
            f"itself: start them with torchrun --nproc_per_node {n_process}, and add --use_cpu "
            "where there is no GPU"
        )


def _check_processes(args: TrainingArguments) -> None:
    """Every process takes part, each with the whole model."""
    for name, flag in (("FSDP", "--use_fsdp"), ("DEEPSPEED", "--use_deepspeed")):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() in ("1", "true", "yes"):
            raise UserError(f"accelerate launch {flag}: {REFUSED['fsdp']}")
    if args.world_size == 1:
        _check_alone()
    if args.ddp_find_unused_parameters is None:  # all parameters of a prefix take part
        args.ddp_find_unused_parameters = False


def _try_optimizer(args: TrainingArguments) -> None:
    """Make optimiser and schedule of one number, so that what they refuse shows now."""
    try:
        made, options = Trainer.get_optimizer_cls_and_kwargs(args)
        optimizer = made([torch.nn.Parameter(torch.zeros(1))], **options)
        get_scheduler(
            args.lr_scheduler_type, optimizer, 1, 10, scheduler_specific_kwargs=_options_of(args)
        )
        if args.optim_args:
            plain = Trainer.get_optimizer_cls_and_kwargs(_without_optim_args(args))
            if plain == (made, options):
                raise UserError(f"--optim_args {args.optim_args}: {args.optim} has none of these")
    except UserError:
        raise
    except Exception as error:  # whatever a library says to options that are not its own
        raise UserError(
            f"Trainer refuses --optim, --lr_scheduler_type or their options: "
            f"{' '.join(str(error).split())}"
        ) from error


def _options_of(args: TrainingArguments) -> dict[str, Any]:
    options: Any = args.lr_scheduler_kwargs or {}
    if not isinstance(options, dict):
        raise UserError(f"--lr_scheduler_kwargs {options}: give a JSON object")
    return options


def _without_optim_args(args: TrainingArguments) -> TrainingArguments:
    plain = copy.copy(args)
    plain.optim_args = None
    return plain


def check_batches(args: TrainingArguments, n_row: int) -> None:
    """Refuse ``--dataloader_drop_last`` where it leaves nothing of ``n_row`` rows to train on."""
    size = args.train_batch_size * args.world_size
    if args.dataloader_drop_last and n_row < size:
        raise UserError(
            f"--dataloader_drop_last: {n_row} training rows fill no batch of {size}, so that "
            "nothing is trained: lower --per_device_train_batch_size, or leave the flag out"
        )


def set_up(args: TrainingArguments, logging_dir: str | Path) -> None:
    """Say where TensorBoard's files go, and compute on one GPU of a process."""
    if args.report_to == ["tensorboard"]:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(logging_dir)
    args.dataloader_pin_memory = args.dataloader_pin_memory and args.n_gpu > 0
    if args.n_gpu > 0:
        # Both would have the host wait for the GPU in every step; SafeTrainer looks when it logs.
        args.logging_nan_inf_filter = args.fp16  # whose scaler skips steps
        args.accelerator_config.non_blocking = True  # type: ignore[union-attr]
    if args.n_gpu > 1:
        print("several GPUs seen: using the first; start with torchrun to use all")
        args._n_gpu = 1
