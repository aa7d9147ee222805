"""The flags of ``finetune.py``, and which combinations mean something."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefix_tuning.errors import UserError
from prefix_tuning.names import SITES
from seq2seq.decoding import PRESETS, Search

TUNING_MODES = ("prefixtune", "finetune")
VAL_METRICS = {"summarization": ("rouge2", "loss"), "translation": ("bleu", "loss")}
"""Task -> what can choose the best checkpoint; the first does unless another is named."""
SCHEDULES = ("linear", "cosine", "cosine_w_restarts", "polynomial")
YES_NO = ("yes", "no")
PREDICT_SPLITS = ("test", "val")


def parser() -> argparse.ArgumentParser:
    """All flags, with the original's names and defaults.

    None stands for "not given": the default then depends on the checkpoint or on other flags.
    """
    result = argparse.ArgumentParser(
        description="Train a prefix (or the model) on summaries; decode and score a test set."
    )
    _add_model(result.add_argument)
    _add_prefix(result.add_argument)
    _add_data(result.add_argument)
    _add_training(result.add_argument)
    _add_decoding(result.add_argument)
    _add_run(result.add_argument)
    return result


def _add_model(add: Any) -> None:
    add("--model_name_or_path", help="base model, or fine-tuned model (default: the checkpoint's)")
    add("--prefixModel_name_or_path", help="trained prefix to decode with, or to start from")
    add("--tokenizer_name", help="tokenizer, if not the model's")
    add("--cache_dir", help="where downloaded models are kept")
    add("--tuning_mode", default="prefixtune", help=f"one of {', '.join(TUNING_MODES)}")
    for name in ("encoder_layerdrop", "decoder_layerdrop", "dropout", "attention_dropout"):
        add(f"--{name}", type=float, help="of the base model, if not its configuration's")
    add("--gradient_checkpointing", action="store_true", help="less memory, a third more time")
    add("--freeze_encoder", action="store_true", help="in fine-tuning")
    add("--freeze_embeds", action="store_true", help="in fine-tuning")
    add("--config_name", default="", help=argparse.SUPPRESS)


def _add_prefix(add: Any) -> None:
    add("--preseqlen", type=int, help="prefix length (default: 1)")
    add("--mid_dim", type=int, help="hidden width of the prefix's MLPs (default: 512)")
    add("--use_deep", choices=YES_NO, help="one more hidden layer in the MLPs (default: no)")
    add("--prefix_sites", help=f"attentions with a prefix (default: {','.join(SITES)})")
    add("--parametrization", help="mlp, flat, or one that is registered (default: mlp)")
    add("--prefix_options", help="options of that parametrisation by name, as rank=4,scale=0.5")
    add("--prefix_dropout", type=float, default=0.0, help="on generated keys and values")
    add("--use_lowdata_token", default="no", choices=YES_NO, help="start from --lowdata_token")
    add("--lowdata_token", default="summarize", help="words whose tokens decide the prefix length")
    add("--optim_prefix", default="yes", choices=YES_NO, help="yes: a prefix is what is trained")
    add("--prefix_mode", default="activation", help="activation; embedding is not implemented")
    add("--format_mode", default="cat", help="cat, peek or nopeek, which are the same here")
    add("--use_dropout", default="no", choices=YES_NO, help="no effect: BART's own is always on")


def _add_data(add: Any) -> None:
    add("--data_dir", required=True, help="folder of the splits, file, or data set of the hub")
    add("--dataset_config", help="configuration of the hub's data set")
    add("--source_column", help="column of the sources in CSV, JSONL and on the hub")
    add("--target_column", help="column of the targets")
    add("--source_prefix", help='in front of every source, as T5\'s "summarize: " (default: its)')
    add("--max_source_length", type=int, help="tokens (default: 512)")
    for split, length in (("max", 56), ("val_max", 142), ("test_max", 142)):
        add(f"--{split}_target_length", type=int, default=length, help="tokens")
    add("--n_train", type=int, default=-1, help="use the first so many; -1 for all")
    add("--n_val", type=int, default=500, help="the same of the validation set")
    add("--n_test", "--limit", type=int, default=-1, help="the same of each decoded set")
    add("--task_mode", default="summarization", help=f"one of {', '.join(VAL_METRICS)}")
    add("--src_lang", default="", help="language of the sources, for tokenizers that have one")
    add("--tgt_lang", default="", help="language of the targets")
    add("--sortish_sampler", action="store_true", help="batches of like lengths")
    add("--max_tokens_per_batch", type=int, help="batches of so many padded tokens")
    add("--num_workers", type=int, default=4, help="processes that tokenise")


def _add_training(add: Any) -> None:
    add("--learning_rate", type=float, default=5e-5)
    add("--lr_scheduler", default="linear", choices=SCHEDULES)
    add("--weight_decay", type=float, default=0.0)
    add("--adam_epsilon", type=float, default=1e-8)
    add("--warmup_steps", type=int, default=0)
    add("--adafactor", action="store_true", help="instead of AdamW")
    add("--num_train_epochs", type=int, default=3)
    add("--max_steps", type=int, default=-1, help="optimiser steps, instead of epochs")
    add("--train_batch_size", type=int, default=10)
    add("--eval_batch_size", type=int, default=10)
    add("--gradient_accumulation_steps", type=int, default=1)
    add("--max_grad_norm", type=float, default=0.0, help="0: no clipping, as in the original")
    add("--label_smoothing", type=float, default=0.0, help="makes the loss a sum over tokens")
    add("--label_smoothing_mean", default="no", choices=YES_NO, help="a mean instead")
    add("--fp16", action="store_true", help="16-bit floats (mixed precision)")
    add("--bf16", action="store_true", help="bfloat16 (mixed precision)")
    add("--fp16_opt_level", help=argparse.SUPPRESS)
    add("--seed", type=int, default=42)


def _add_decoding(add: Any) -> None:
    add("--search", default="paper", choices=list(PRESETS), help="preset of the beam search")
    add("--eval_beams", type=int, help="beams, if not the preset's")
    add("--length_penalty", type=float, help="if not the preset's")
    add("--eval_min_gen_length", type=int, help="tokens, if not the preset's")
    add("--eval_max_gen_length", type=int, help="tokens, if not the preset's")
    add("--no_repeat_ngram_size", type=int, help="if not the preset's")
    add("--decode_batch_size", type=int, default=16, help="with --do_predict")


def _add_run(add: Any) -> None:
    add("--output_dir", help="folder of the run")
    add("--overwrite_output_dir", action="store_true", help="train again where a run already is")
    add("--do_train", action="store_true")
    add("--do_predict", action="store_true", help="decode and score --predict_splits")
    add("--predict_splits", default="test", help=f"one or both of {','.join(PREDICT_SPLITS)}")
    add("--save_steps", type=int, default=1000, help="steps between checkpoints to resume from")
    add("--save_all_epochs", default="no", choices=YES_NO, help="keep checkpointepoch=N.ckpt")
    add("--save_top_k", type=int, default=1, help=argparse.SUPPRESS)
    add("--val_metric", help="chooses the best checkpoint: rouge2, bleu or loss")
    add("--early_stopping_patience", type=int, default=-1, help="validations; -1: never stop")
    add("--logging_steps", type=int, default=50, help="steps between logged losses")
    loggers = ("default", "wandb", "wandb_shared", "none")
    add("--logger_name", default="default", choices=loggers, help="default: TensorBoard")
    add("--devices", "--gpus", type=int, default=1)
    add("--accelerator", default="auto", choices=("auto", "cpu", "gpu"))
    add("--strategy", default="auto", choices=("auto", "ddp"), help="for several devices")
    add("--n_tpu_cores", type=int, default=0, help=argparse.SUPPRESS)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the command line, before anything is loaded.

    Raises:
        UserError: a flag is missing or makes no sense, naming it.
    """
    args = parser().parse_args(argv)
    if args.val_metric is None and args.task_mode in VAL_METRICS:
        args.val_metric = VAL_METRICS[args.task_mode][0]
    check(args)
    return args


def search(args: argparse.Namespace) -> Search:
    """The beam search that the flags ask for.

    Raises:
        UserError: it is impossible, naming the flag.
    """
    given = {
        "num_beams": args.eval_beams,
        "length_penalty": args.length_penalty,
        "min_length": args.eval_min_gen_length,
        "max_length": args.eval_max_gen_length,
        "no_repeat_ngram_size": args.no_repeat_ngram_size,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    return Search(**{**asdict(PRESETS[args.search]), **chosen})


def sites(args: argparse.Namespace) -> list[str] | None:
    """The attentions named by ``--prefix_sites``; None where it is not given.

    Raises:
        UserError: there is no such attention.
    """
    if args.prefix_sites is None:
        return None
    return _some_of("prefix_sites", args.prefix_sites, SITES)


def predict_splits(args: argparse.Namespace) -> list[str]:
    """The splits named by ``--predict_splits``.

    Raises:
        UserError: one is not decoded.
    """
    return _some_of("predict_splits", args.predict_splits, PREDICT_SPLITS)


def _some_of(flag: str, value: str, known: Sequence[str]) -> list[str]:
    names = [name.strip() for name in value.split(",")]
    if not set(names) <= set(known):
        raise UserError(f"--{flag} {value}: give one or more of {','.join(known)}")
    return [name for name in known if name in names]


def check(args: argparse.Namespace) -> None:
    """Refuse by name what is impossible or not implemented."""
    if not (args.do_train or args.do_predict):
        raise UserError("nothing to do: add --do_train, --do_predict or both")
    if len(predict_splits(args)) > 1 and Path(args.data_dir).is_file():
        raise UserError(
            f"--predict_splits {args.predict_splits}: --data_dir {args.data_dir} is one file "
            "and would be both; name one split, or give a folder"
        )
    if args.do_train and not args.output_dir:
        raise UserError("--output_dir is missing: name the folder of the run")
    if args.do_train and not args.model_name_or_path:
        raise UserError("--model_name_or_path is missing: name the base model")
    if args.tuning_mode not in TUNING_MODES:
        raise UserError(f"--tuning_mode {args.tuning_mode}: only {', '.join(TUNING_MODES)} so far")
    if args.task_mode not in VAL_METRICS:
        raise UserError(f"--task_mode {args.task_mode}: only {', '.join(VAL_METRICS)} so far")
    if args.val_metric not in VAL_METRICS[args.task_mode]:
        raise UserError(
            f"--val_metric {args.val_metric}: for {args.task_mode} use one of "
            f"{', '.join(VAL_METRICS[args.task_mode])}"
        )
    if args.tuning_mode == "prefixtune":
        _check_prefix(args)
    elif args.prefixModel_name_or_path:
        raise UserError("--prefixModel_name_or_path belongs to --tuning_mode prefixtune")
    _check_numbers(args)
    _check_lengths(args)
    _check_batches(args)
    search(args)
    if args.fp16 and args.bf16:
        raise UserError("--fp16 and --bf16 exclude each other")
    if args.config_name:
        raise UserError(f"--config_name {args.config_name}: the model brings its own; leave it out")
    if args.n_tpu_cores:
        raise UserError(f"--n_tpu_cores {args.n_tpu_cores}: only CPUs and GPUs are supported")
    if args.save_top_k != 1:
        raise UserError(f"--save_top_k {args.save_top_k}: use --save_all_epochs yes to keep all")


def _check_prefix(args: argparse.Namespace) -> None:
    sites(args)
    if args.optim_prefix != "yes":
        raise UserError("--optim_prefix no leaves prefixtune nothing to train: use yes")
    if args.prefix_mode != "activation":
        raise UserError(f"--prefix_mode {args.prefix_mode}: only activation; BART has no other")
    if args.format_mode not in ("cat", "peek", "nopeek"):
        raise UserError(f"--format_mode {args.format_mode}: an encoder-decoder has only cat")
    if args.preseqlen is not None and args.preseqlen < 1:
        raise UserError(f"--preseqlen {args.preseqlen}: a prefix needs at least one slot")
    if args.mid_dim is not None and args.mid_dim < 1:
        raise UserError(f"--mid_dim {args.mid_dim}: the MLPs need at least one unit")
    if args.use_lowdata_token == "yes" and args.do_train and args.prefixModel_name_or_path:
        raise UserError("--use_lowdata_token yes and --prefixModel_name_or_path exclude each other")
    if args.use_lowdata_token == "yes" and not args.lowdata_token.strip():
        raise UserError("--lowdata_token is empty: give words to start from")


def _check_numbers(args: argparse.Namespace) -> None:
    at_least_one = (
        "train_batch_size eval_batch_size decode_batch_size gradient_accumulation_steps "
        "num_train_epochs save_steps logging_steps devices"
    )
    for name in at_least_one.split():
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: must be at least 1")
    for name in ("n_train", "n_val", "n_test", "max_steps"):
        if getattr(args, name) == 0:
            raise UserError(f"--{name} 0: nothing would be left; use -1 for all")
    if args.max_steps < -1:
        raise UserError(f"--max_steps {args.max_steps}: give a number of steps, or -1 for epochs")
    not_negative = "warmup_steps weight_decay max_grad_norm num_workers adam_epsilon"
    for name in not_negative.split():
        if not getattr(args, name) >= 0:  # nan neither
            raise UserError(f"--{name} {getattr(args, name)}: must not be negative")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed {args.seed}: must be from 0 to {2**32 - 1}")
    layerdrop = ("encoder_layerdrop", "decoder_layerdrop")
    for name in ("prefix_dropout", "label_smoothing", "dropout", "attention_dropout", *layerdrop):
        if not 0 <= (getattr(args, name) or 0) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: must be in [0, 1)")
    least = 1e-7 if args.lr_scheduler == "polynomial" else 0  # where the polynomial ends
    if not args.learning_rate > least:
        raise UserError(f"--learning_rate {args.learning_rate}: must be above {least}")


def _check_lengths(args: argparse.Namespace) -> None:
    for name in ("max_source_length", "max_target_length"):
        if getattr(args, name) is not None and getattr(args, name) < 3:
            raise UserError(f"--{name} {getattr(args, name)}: start, end and a token make three")
    for name in ("val_max_target_length", "test_max_target_length"):
        if args.max_target_length > getattr(args, name):
            raise UserError(
                f"--max_target_length {args.max_target_length} exceeds --{name} "
                f"{getattr(args, name)}: raise that one"
            )


def _check_batches(args: argparse.Namespace) -> None:
    if args.max_tokens_per_batch is None:
        return
    if args.max_tokens_per_batch < 1:
        raise UserError(f"--max_tokens_per_batch {args.max_tokens_per_batch}: must be positive")
    if args.sortish_sampler:
        raise UserError("--max_tokens_per_batch and --sortish_sampler exclude each other")
    if args.devices > 1:
        raise UserError("--max_tokens_per_batch works on one device only: use --sortish_sampler")
