"""The base model with its tokenizer, as the flags name it, and the prefix in front of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase

from harness.models import check_rows, load_model, token_ids, tokenizer_for
from harness.progress import through
from prefix_tuning import checkpoint, initialization
from prefix_tuning.choice import check_independent, parametrization, parse_options
from prefix_tuning.errors import UserError
from prefix_tuning.names import SITES
from prefix_tuning.positions import room
from prefix_tuning.saving import load_headless
from seq2seq import arguments
from seq2seq.arguments import Arguments
from seq2seq.prefixTuning import PrefixTuning


@dataclass(frozen=True)
class Loaded:
    """What a training is built on."""

    tokenizer: PreTrainedTokenizerBase
    base: PreTrainedModel
    trained: torch.nn.Module
    """The base model itself, or the prefix in front of it."""


OVERRIDES = ("encoder_layerdrop", "decoder_layerdrop", "dropout", "attention_dropout")


def device(args: Arguments) -> torch.device:
    """The GPU or CPU that this process computes on.

    Raises:
        UserError: the flags ask for what only a GPU can do, and there is none.
    """
    if args.accelerator != "cpu" and torch.cuda.is_available():
        # Lightning starts one process per device, which this variable tells apart.
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if args.accelerator == "gpu":
        raise UserError("--accelerator gpu: there is no GPU here; leave the flag out")
    if args.fp16:
        raise UserError("--fp16 needs a GPU: use --bf16, or neither")
    return torch.device("cpu")


def load_base(args: Arguments, name: str) -> tuple[PreTrainedTokenizerBase, Any]:
    """Tokenizer and model, the latter in eval mode.

    Raises:
        UserError: they cannot be had, or a flag is about what the model does not have.
    """
    print(f"loading {name} ...", flush=True)
    tokenizer = tokenizer_for(name, args.tokenizer_name, args.cache_dir)
    given = {key: getattr(args, key) for key in OVERRIDES if getattr(args, key) is not None}
    try:
        model = load_model(name, AutoModelForSeq2SeqLM, cache_dir=args.cache_dir, **given)
    except UserError as error:
        # A model's __init__ gets what its configuration does not know.
        if not given or not isinstance(error.__cause__, TypeError):
            raise
        flags = ", ".join(f"--{key}" for key in given)
        raise UserError(f"{name} has no such setting as one of {flags}: leave it out") from error
    check_rows(name, model.config, token_ids(tokenizer))
    ours = {k: v for k, v in vars(model.generation_config).items() if v is not None}
    check_rows(name, model.config, ours)
    return tokenizer, model


def check_positions(model: PreTrainedModel, lengths: Mapping[str, int]) -> None:
    """Raise :class:`UserError` where a length, given by its flag's name, exceeds the positions."""
    limit = room(model.config)
    for flag, length in lengths.items():
        if limit is not None and length > limit:
            raise UserError(f"--{flag} {length}: the model has {limit} positions; lower it")


def source_prefix(args: Arguments, model: PreTrainedModel) -> str:
    """What stands in front of every source: the flag's text, or else the configuration's."""
    if args.source_prefix is not None:
        return args.source_prefix
    of_tasks = getattr(model.config, "task_specific_params", None) or {}
    of_task = of_tasks.get(args.task_mode, {}).get("prefix")
    return of_task or getattr(model.config, "prefix", None) or ""


def check_flags(args: Arguments, folder: str) -> dict[str, Any]:
    """The metadata of a trained prefix, after checking that no flag contradicts it.

    Raises:
        UserError: one does, or ``folder`` holds no prefix.
    """
    meta = checkpoint.read_metadata(Path(folder))
    deep = None if args.use_deep is None else args.use_deep == "yes"
    name, given = meta["parametrization"], args.parametrization
    if given not in (None, name) and not checkpoint.is_export(Path(folder)):
        raise UserError(
            f"{folder} was trained with --parametrization {name}, not {given}: leave the flag out, "
            "the checkpoint knows"
        )
    flags = {
        "preseqlen": ("length", args.preseqlen),
        "mid_dim": ("mid_dim", args.mid_dim),
        "use_deep": ("deep", deep),
        "prefix_sites": ("sites", arguments.sites(args)),
    }
    for flag, (option, value) in flags.items():
        trained = meta.get("options", {}).get(option, value)  # an export has no MLP to speak of
        if value is not None and value != trained:
            raise UserError(
                f"{folder} was trained with --{flag} {_as_flag(trained)}, not "
                f"{_as_flag(value)}: leave the flag out, the checkpoint knows"
            )
    return meta


def _as_flag(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(value) if isinstance(value, list) else str(value)


def own_options(args: Arguments) -> dict[str, Any]:
    """What ``--prefix_options`` says of the parametrisation.

    Raises:
        UserError: it is impossible with BART, or has no such options.
    """
    name = args.parametrization or "mlp"
    check_independent(name, "BART")
    if args.use_lowdata_token == "yes" and not parametrization(name).can_start:
        raise UserError(
            f"--use_lowdata_token yes: a prefix of the parametrisation {name} can only start random"
        )
    return parse_options(name, args.prefix_options)


def make_prefix(
    args: Arguments,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    fit: bool = True,
) -> PrefixTuning:
    """The prefix that training starts from: random, from real words, or a trained one.

    Args:
        model: frozen, after ``enable_prefix``.
        fit: False where a checkpoint to resume from replaces the parameters anyway.

    Raises:
        UserError: a trained prefix is not for this model, or a flag contradicts it.
    """
    if args.prefixModel_name_or_path:
        check_flags(args, args.prefixModel_name_or_path)
        load_headless(args.prefixModel_name_or_path, model)  # is it for this model?
        prefix = PrefixTuning.from_pretrained(args.prefixModel_name_or_path, model.config)
        prefix.dropout.p = args.prefix_dropout
        return prefix
    length, words = args.preseqlen or 1, None
    if args.use_lowdata_token == "yes":
        # The original's word stands in the middle of a text, and its special tokens count.
        words = tokenizer(" " + args.lowdata_token.strip(), return_tensors="pt").input_ids
        length = words.shape[1]
        print(f"the prefix starts from {args.lowdata_token!r}: {length} tokens, so many slots")
    prefix = PrefixTuning(
        model.config,
        model,
        preseqlen=length,
        mid_dim=args.mid_dim,
        prefix_dropout=args.prefix_dropout,
        use_deep=args.use_deep == "yes",
        sites=arguments.sites(args) or SITES,
        parametrization=args.parametrization or "mlp",
        prefix_options=own_options(args),
    )
    if words is not None and fit:
        at = device(args)
        model.to(at)  # type: ignore[arg-type]
        slots = initialization.activations(model, words.to(at))
        shown = partial(through, name="fitted steps")
        prefix.to(at).start(
            slots, steps=200, learning_rate=3e-5, train_embedding=True, progress=shown
        )
    return prefix
