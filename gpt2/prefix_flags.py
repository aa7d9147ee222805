"""From flags to a prefix: which variant, how long, and what it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gpt2.train_control import PrefixTuning
from prefix_tuning.errors import UserError
from prefix_tuning.initialization import activations, resize
from prefix_tuning.parametrizations import PARAMETRIZATIONS

if TYPE_CHECKING:
    from gpt2.arguments import ModelArguments

INITS = ("random", "zero", "text")
STARTABLE = ("mlp", "flat")
"""Variants that can start from chosen keys and values; the others start random."""


def parametrization(args: ModelArguments) -> str:
    """The variant that the flags name, or that the original's flags amount to."""
    if args.parametrization is not None:
        return args.parametrization
    if args.prefix_mode == "embedding":
        return "embedding"
    if args.format_mode == "infix":
        return "infix"
    return "flat" if args.init_shallow == "yes" else "mlp"


def reads_source(args: ModelArguments) -> bool:
    """Whether the prefix stands between source and target, which batches then keep apart."""
    return PARAMETRIZATIONS[parametrization(args)].reads_source


def init(args: ModelArguments) -> str:
    """What the prefix starts from, one of :data:`INITS`."""
    from_word = args.init_shallow == "yes" and args.init_shallow_word != "no"
    return args.init or ("text" if from_word else "random")


def check(args: ModelArguments) -> None:
    """Refuse what is impossible, before anything is loaded.

    Raises:
        UserError: naming the flags.
    """
    if args.optim_prefix != "yes":
        raise UserError(f"--optim_prefix no leaves {args.tuning_mode} without a prefix: use yes")
    if args.mid_dim < 1:
        raise UserError(f"--mid_dim {args.mid_dim}: the MLP needs at least one unit")
    if not 0 <= args.prefix_dropout < 1:
        raise UserError(f"--prefix_dropout {args.prefix_dropout}: must be in [0, 1)")
    for name, choices in (
        ("prefix_mode", ("activation", "embedding")),
        ("format_mode", ("cat", "peek", "nopeek", "infix")),
        ("parametrize_emb", ("MLP", "Emb")),
        ("parametrization", (None, *PARAMETRIZATIONS)),
        ("init", (None, *INITS)),
    ):
        if getattr(args, name) not in choices:
            allowed = ", ".join(choice for choice in choices if choice)
            raise UserError(f"--{name} {getattr(args, name)}: use one of {allowed}")
    if args.format_mode == "nopeek":
        raise UserError("--format_mode nopeek: the model would never see the source; use cat")
    _check_variant(args)
    _check_init(args)


def _check_variant(args: ModelArguments) -> None:
    flags = {
        "--prefix_mode embedding": args.prefix_mode == "embedding",
        "--format_mode infix": args.format_mode == "infix",
        "--init_shallow yes": args.init_shallow == "yes",
        "--deep yes": args.deep == "yes" and args.format_mode != "infix",
    }
    given = [flag for flag, is_given in flags.items() if is_given]
    if len(given) > 1:
        raise UserError(f"{given[0]} and {given[1]} exclude each other: they are two variants")
    if args.parametrization is not None and given:
        raise UserError(f"--parametrization {args.parametrization} and {given[0]}: give one")


def _check_init(args: ModelArguments) -> None:
    start, variant = init(args), parametrization(args)
    if args.init is not None and args.init_shallow_word != "no":
        raise UserError(f"--init {args.init} and --init_shallow_word exclude each other: give one")
    if args.init_shallow_word != "no" and args.init_shallow != "yes":
        raise UserError("--init_shallow_word: only with --init_shallow yes; use --init text")
    if start != "random" and variant not in STARTABLE:
        raise UserError(f"--init {start}: a prefix of the variant {variant} can only start random")
    texts = [name for name in ("init_text", "init_file") if getattr(args, name) is not None]
    if texts and args.init != "text":
        raise UserError(f"--{texts[0]}: only with --init text")
    if args.init == "text" and len(texts) != 1:
        raise UserError("--init text: give either --init_text or --init_file")
    if args.init_file is not None and not Path(args.init_file).is_file():
        raise UserError(f"--init_file {args.init_file}: there is no such file")
    if args.init_shallow_word != "no" and args.prefix_dropout:
        raise UserError(
            f"--prefix_dropout {args.prefix_dropout}: the original has none in a prefix started "
            "from --init_shallow_word; with --init text there can be"
        )
    if args.preseqlen < 1 and start != "text":
        raise UserError(f"--preseqlen {args.preseqlen}: a prefix needs at least one slot")
    if args.preseqlen < 0:
        raise UserError(f"--preseqlen {args.preseqlen}: must not be negative")


def word_ids(args: ModelArguments, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens whose keys and values the prefix starts from; none with other starts.

    As in the original, a space stands in front and no special token.

    Raises:
        UserError: the text is empty.
    """
    if init(args) != "text":
        return []
    text, flag = args.init_text, "--init_text"
    if args.init_file is not None:
        flag = f"--init_file {args.init_file}"
        try:
            text = Path(args.init_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{flag} cannot be read as UTF-8 text ({error})") from error
    elif args.init is None:
        text, flag = args.init_shallow_word, "--init_shallow_word"
    if not text or not text.strip():
        raise UserError(f"{flag}: the text to start from is empty")
    return tokenizer(f" {text.strip()}", add_special_tokens=False).input_ids


def length(args: ModelArguments, tokenizer: PreTrainedTokenizerBase) -> int:
    """The prefix length ``P``.

    ``--preseqlen`` if given; otherwise as many slots as the text has tokens. The number of tokens
    of ``--init_shallow_word`` always replaces ``--preseqlen``, as in the original.
    """
    words = word_ids(args, tokenizer)
    if words and (args.init is None or not args.preseqlen):
        return len(words)
    return args.preseqlen


def build(
    args: ModelArguments, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PrefixTuning:
    """Make the prefix that the flags describe, with random parameters."""
    return PrefixTuning(
        model.config,
        preseqlen=length(args, tokenizer),
        deep_param=args.deep == "yes",
        mid_dim=args.mid_dim,
        prefix_dropout=args.prefix_dropout,
        objective_mode=args.objective_mode,
        end_id=tokenizer.eos_token_id,
        parametrization=parametrization(args),
        parametrize_emb=args.parametrize_emb,
    )


def start(
    args: ModelArguments,
    prefix: PrefixTuning,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Bring a new prefix to where the flags let it start.

    Args:
        model: after ``enable_prefix``, on the prefix's device.
    """
    if init(args) == "zero":
        prefix.start_at_zero()
    words, n_slot = word_ids(args, tokenizer), prefix.length
    if not words:
        return
    how = ""
    if n_slot != len(words):
        how = ": the first ones" if n_slot < len(words) else ": again from the first"
    print(f"the prefix of {n_slot} slots starts from a text of {len(words)} tokens{how}")
    ids = torch.tensor([words[:n_slot]], device=model.device)
    prefix.start(resize(activations(model, ids), n_slot))
