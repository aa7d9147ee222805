"""The flags of ``finetune.py``, and which combinations mean something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.flags import Parser, exclude
from harness.only import check_only
from harness.own_data import Columns
from prefix_tuning.errors import UserError
from prefix_tuning.names import SITES
from seq2seq.flag_groups import (
    PREDICT_SPLITS,
    SCHEDULES,
    TUNING_MODES,
    VAL_METRICS,
    DataArguments,
    DecodingArguments,
    ModelArguments,
    OptimizationArguments,
    PrefixArguments,
    RunArguments,
)
from seq2seq.only import ONLY
from seq2seq.search import PRESETS, Search

__all__ = ["SCHEDULES", "TUNING_MODES", "Arguments", "parse", "predict_splits", "search", "sites"]

ORIGINAL_BASE = "facebook/bart-large"
"""The base model of all that the original trained, which its folders do not name."""


@dataclass(kw_only=True)
class Arguments(
    RunArguments,
    DecodingArguments,
    OptimizationArguments,
    DataArguments,
    PrefixArguments,
    ModelArguments,
):
    """All flags, checked when they are made.

    Raises:
        UserError: a flag is missing, impossible or not implemented, naming it.
    """

    def __post_init__(self) -> None:
        if self.val_metric is None and self.task_mode in VAL_METRICS:
            self.val_metric = VAL_METRICS[self.task_mode][0]
        _check_task(self)
        if self.tuning_mode == "prefixtune":
            _check_prefix(self)
        else:
            for name in ("prefixModel_name_or_path", "prefix_bank"):
                if getattr(self, name) is not None:
                    raise UserError(f"--{name} belongs to --tuning_mode prefixtune")
        _check_numbers(self)
        _check_lengths(self)
        _check_batches(self)
        search(self)
        exclude(fp16=self.fp16, bf16=self.bf16)
        _check_ignored(self)
        check_only(ONLY, self)
        _check_unsupported(self)


HELP = """\
Train a prefix (or the model) on summaries; decode and score a test set.

    python seq2seq/finetune.py --do_train --do_predict --data_dir xsum --output_dir run
"""


def parse(argv: Sequence[str] | None, given: Mapping[str, Any] | None = None) -> Arguments:
    """Parse and check the command line, before anything is loaded.

    Args:
        argv: of ``finetune.py``.
        given: values of flags that ``argv`` may replace, by name.

    Raises:
        UserError: a flag is missing or makes no sense, naming it.
    """
    parser = Parser(
        Arguments,
        description=HELP,
        given=given,
    )
    (args,) = parser.read(argv)
    return args


def search(args: DecodingArguments) -> Search:
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


def sites(args: PrefixArguments) -> list[str] | None:
    """The attentions named by ``--prefix_sites``; None where it is not given.

    Raises:
        UserError: there is no such attention.
    """
    if args.prefix_sites is None:
        return None
    return _some_of("prefix_sites", args.prefix_sites, SITES)


def predict_splits(args: RunArguments) -> list[str]:
    """The splits named by ``--predict_splits``.

    Raises:
        UserError: one is not decoded.
    """
    return _some_of("predict_splits", args.predict_splits, PREDICT_SPLITS)


def held_out_share(args: DataArguments) -> float:
    """The share of the sources that is validated on; 0 where the data have splits of their own."""
    if not Path(args.data_dir).is_file():
        return 0.0
    return 0.1 if args.eval_fraction is None else args.eval_fraction


def _some_of(flag: str, value: str, known: Sequence[str]) -> list[str]:
    names = [name.strip() for name in value.split(",")]
    if not set(names) <= set(known):
        raise UserError(f"--{flag} {value}: give one or more of {','.join(known)}")
    return [name for name in known if name in names]


def _check_task(args: Arguments) -> None:
    if not (args.do_train or args.do_predict):
        raise UserError("nothing to do: add --do_train, --do_predict or both")
    if len(predict_splits(args)) > 1 and Path(args.data_dir).is_file():
        raise UserError(
            f"--predict_splits {args.predict_splits}: --data_dir {args.data_dir} is one file "
            "and would be both; name one split, or give a folder"
        )
    if args.eval_fraction is not None and not Path(args.data_dir).is_file():
        raise UserError(
            f"--eval_fraction {args.eval_fraction}: --data_dir {args.data_dir} is not one file, "
            "and has a split to validate on; leave it out"
        )
    if args.eval_fraction is not None and not args.do_train:
        raise UserError("--eval_fraction: only with --do_train; all of the file is decoded")
    Columns(args.source_column, args.target_column)
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


def _check_prefix(args: Arguments) -> None:
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
    if args.prefix_bank is not None:
        if args.do_train or args.prefixModel_name_or_path:
            other = "--do_train" if args.do_train else "--prefixModel_name_or_path"
            raise UserError(f"--prefix_bank and {other} exclude each other: a bank only decodes")
        if not Path(args.prefix_bank).is_dir():
            raise UserError(f"--prefix_bank {args.prefix_bank}: there is no such folder")
    if args.use_lowdata_token == "yes" and not args.lowdata_token.strip():
        raise UserError("--lowdata_token is empty: give words to start from")


def _check_numbers(args: Arguments) -> None:
    """What the ranges of the flags do not say."""
    for name in ("n_train", "n_val", "n_test", "max_steps"):
        if getattr(args, name) == 0:
            raise UserError(f"--{name} 0: nothing would be left; use -1 for all")
    least = 1e-7 if args.lr_scheduler == "polynomial" else 0  # where the polynomial ends
    if not args.learning_rate > least:
        raise UserError(f"--learning_rate {args.learning_rate}: must be above {least}")


def _check_lengths(args: DataArguments) -> None:
    for name in ("max_source_length", "max_target_length"):
        if getattr(args, name) is not None and getattr(args, name) < 3:
            raise UserError(f"--{name} {getattr(args, name)}: start, end and a token make three")
    for name in ("val_max_target_length", "test_max_target_length"):
        if args.max_target_length > getattr(args, name):
            raise UserError(
                f"--max_target_length {args.max_target_length} exceeds --{name} "
                f"{getattr(args, name)}: raise that one"
            )


def _check_batches(args: Arguments) -> None:
    if args.max_tokens_per_batch is None:
        return
    if args.max_tokens_per_batch < 1:
        raise UserError(f"--max_tokens_per_batch {args.max_tokens_per_batch}: must be positive")
    if args.sortish_sampler:
        raise UserError("--max_tokens_per_batch and --sortish_sampler exclude each other")
    if args.devices > 1:
        raise UserError("--max_tokens_per_batch works on one device only: use --sortish_sampler")


def _check_ignored(args: Arguments) -> None:
    """Refuse what would have no effect."""
    if args.adafactor and args.adam_epsilon != OptimizationArguments.adam_epsilon:
        raise UserError("--adam_epsilon is AdamW's: leave it out, or leave out --adafactor")
    if args.use_lowdata_token == "no" and args.lowdata_token != PrefixArguments.lowdata_token:
        raise UserError(f"--lowdata_token {args.lowdata_token}: needs --use_lowdata_token yes")
    if args.label_smoothing_mean == "yes" and args.label_smoothing == 0:
        raise UserError("--label_smoothing_mean yes: needs --label_smoothing")


def _check_unsupported(args: Arguments) -> None:
    if args.config_name:
        raise UserError(f"--config_name {args.config_name}: the model brings its own; leave it out")
    if args.n_tpu_cores:
        raise UserError(f"--n_tpu_cores {args.n_tpu_cores}: only CPUs and GPUs are supported")
    if args.save_top_k != 1:
        raise UserError(f"--save_top_k {args.save_top_k}: use --save_all_epochs yes to keep all")
