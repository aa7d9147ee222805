"""Launch a run with the original's flags, run names and folders.

Builds the command line of ``finetune.py``, writes it to ``<folder>/<run>.sh`` so that it can be
repeated, and runs it in this process. Flags unknown here are passed on.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(ROOT))

from harness.flags import Parser, command, flag, like, one_of, yes_no
from harness.launch import launch, subset_note
from harness.only import check_only
from prefix_tuning.errors import UserError, run_command
from seq2seq import arguments, finetune
from seq2seq.arguments import ORIGINAL_BASE, Arguments
from seq2seq.only import LAUNCHED
from seq2seq.own_data import defaults
from seq2seq.search import PRESETS

SCRIPT = Path(__file__).with_name("finetune.py")

UNUSED = "accepted: without effect, as in the original"
"""Help of flags that the original's command lines have."""


@dataclass(frozen=True)
class Mode:
    """Where a task's data and runs are, and how many tokens its texts may have."""

    data: str
    folder: str
    source: int = 512
    train_target: int = 56
    val_target: int = 142
    test_target: int = 142
    search: str = "paper"
    task_mode: str = "summarization"


OWN = "own"
"""The mode of one's own pairs, of which the run is ``trained/<name of the file>``."""
MODES = {
    # The paper cuts sources at 512 tokens; the released code's last version at 1024.
    "xsum": Mode("xsum", "xsum_models", 512, 60, 60, 100),
    "xsum_news": Mode("xsum_news", "xsum_news_models", 512, 60, 60, 100),
    "xsum_news_sport": Mode("xsum_topic-news-sports", "xsum_news_sport_models", 512, 60, 60, 100),
    "cnn_dm": Mode("cnn_dm", "cnndm_models", 512, 56, 142, 142, "cnn_dm"),
    "e2e": Mode("e2e", "save_e2e_models"),
    "webnlg": Mode("webnlg", "webnlg_models"),
    "triples": Mode("triples", "triples_models"),
    "translation": Mode(
        "translation", "translation_models", 512, 142, 142, 142, "translation", "translation"
    ),
    OWN: Mode("own", "trained", 512, 142, 142, 142),
}


@dataclass(kw_only=True)
class LaunchArguments:
    """The launcher, with the original's names."""

    mode: str = flag("", f"task: {', '.join(MODES)} (default with --data_dir: own)")
    tuning_mode: str = like(Arguments, "tuning_mode")
    optim_prefix: str = like(Arguments, "optim_prefix")
    preseqlen: int | None = like(Arguments, "preseqlen", help="prefix length (default: 5)")
    prefix_mode: str = like(Arguments, "prefix_mode")
    format_mode: str = like(Arguments, "format_mode")
    notes: str | None = flag(
        None, "appended to the run name; lowdata_SEED_SIZE selects a low-data sample"
    )
    lowdata_token: str = like(Arguments, "lowdata_token")
    use_lowdata_token: str = yes_no("yes", "start a low-data prefix from --lowdata_token")
    max_steps: int | None = like(Arguments, "max_steps", None)
    warmup_steps: int | None = like(
        Arguments,
        "warmup_steps",
        None,
        help="optimiser steps of linear warm-up (default: 0; 100 in low-data runs)",
    )
    do_train: str = yes_no("yes", "train; no: decode the test set with a trained model")
    fp16: str = yes_no("no", "compute in 16-bit floats (mixed precision, needs a GPU)")
    seed: int = like(Arguments, "seed", 101)
    bsz: int = like(Arguments, "train_batch_size")
    epoch: int = like(Arguments, "num_train_epochs", 5)
    gradient_accumulation_steps: int = like(
        Arguments, "gradient_accumulation_steps", aliases=("--gradient_accumulation_step",)
    )
    learning_rate: float = like(Arguments, "learning_rate")
    weight_decay: float = like(Arguments, "weight_decay")
    dropout: float = like(Arguments, "prefix_dropout")
    label_smoothing: float = like(Arguments, "label_smoothing")
    length_pen: float | None = like(Arguments, "length_penalty")
    search: str | None = like(
        Arguments, "search", None, help="preset of the beam search (default: the mode's)"
    )
    mid_dim: int | None = like(Arguments, "mid_dim")
    use_deep: str | None = like(Arguments, "use_deep")
    max_source_length: int | None = like(
        Arguments, "max_source_length", help="tokens to cut sources at (default: the mode's)"
    )
    prefix_model_path: str | None = flag(None, "folder of a trained prefix to decode with")
    finetune_model_path: str | None = flag(None, "folder of a fine-tuned model to decode with")
    model_name_or_path: str | None = flag(
        None, f"base model (default: the checkpoint's, or {ORIGINAL_BASE})"
    )
    data_dir: str | None = like(
        Arguments,
        "data_dir",
        None,
        help="folder of the splits, file, or data set of the hub (default: data/<the mode's>)",
    )
    dir_name: str | None = flag(None, "folder to make the run's folder in (default: the mode's)")
    output_dir: str | None = flag(None, "folder of the run (default: <folder>/<run name>)")
    resume: str = yes_no("yes", "go on with an interrupted run; no: train again")
    submit: str = flag("no", "no: run; print (or anything else): only show the command")
    use_dropout: str | None = flag(None, UNUSED)
    use_big: str | None = flag(None, UNUSED)
    parametrize_emb: str | None = flag(None, UNUSED)
    adapter_design: str | None = flag(None, UNUSED)
    top_layers: str | None = flag(None, UNUSED)
    eval_steps: str | None = flag(None, UNUSED)

    def __post_init__(self) -> None:
        """Refuse by name what is impossible, and fill in what a training needs."""
        self.mode = self.mode or OWN
        if self.mode == OWN and not self.data_dir:
            modes = "|".join(mode for mode in MODES if mode != OWN)
            raise UserError(f"name the task, --mode {modes}, or your own pairs, --data_dir FILE")
        one_of(MODES, mode=self.mode)
        check_only(LAUNCHED, self)
        wanted = "prefix_model_path" if self.tuning_mode == "prefixtune" else "finetune_model_path"
        if self.do_train == "yes":  # in decoding, the checkpoint knows
            self.preseqlen = 5 if self.preseqlen is None else self.preseqlen
            self.mid_dim = 512 if self.mid_dim is None else self.mid_dim
            self.use_deep = self.use_deep or "no"
            if getattr(self, wanted):
                raise UserError(f"--{wanted} is decoded, not trained: add --do_train no")
        elif not getattr(self, wanted):
            raise UserError(f"--do_train no with {self.tuning_mode} needs --{wanted}")

    @property
    def low_data(self) -> tuple[int, str] | None:
        """Seed and size of a low-data run, which its notes name."""
        return subset_note(self.notes, "lowdata", "size")


HELP = """\
Train a prefix for BART, or the model itself, with the original's run names and folders.

    python seq2seq/train_bart.py --mode xsum --preseqlen 200 --do_train yes --bsz 16 --epoch 30

Flags unknown here are those of finetune.py.
"""


def read(
    argv: Sequence[str] | None, given: Mapping[str, Any] | None = None
) -> tuple[LaunchArguments, list[str]]:
    """What ``argv`` says, and its flags that are unknown here, which are those of ``finetune.py``.

    Args:
        given: values of flags of both kinds that ``argv`` may replace, by name.

    Raises:
        UserError: it cannot be launched.
    """
    words = sys.argv[1:] if argv is None else [*argv]
    (args,), rest = Parser(LaunchArguments, description=HELP, given=given).read_known(words)
    if args.mode == OWN and args.do_train == "yes":
        run = arguments.parse(rest, training_flags(args, _run_folder(args)))
        recipe = defaults(run, words)
        (args,), rest = Parser(LaunchArguments, defaults=recipe, given=given).read_known(words)
    return args, rest


def run_name(args: LaunchArguments) -> str:
    """The original's name of a run."""
    deep = (args.use_deep or "no")[:1]
    name = (
        f"{args.mode}{args.tuning_mode}_{args.optim_prefix[:1]}_{args.preseqlen}"
        f"_{args.prefix_mode[:3]}_{args.format_mode[:3]}"
        f"_b={args.bsz * args.gradient_accumulation_steps}-e={args.epoch}_d={args.dropout}"
        f"_l={args.label_smoothing}_lr={args.learning_rate}_w={args.weight_decay}_s={args.seed}"
        f"_d={deep}_m={args.mid_dim}"
    )
    return f"{name}_{args.notes}" if args.notes else name


def _run_folder(args: LaunchArguments) -> Path:
    """The folder of a training, or of what a decode leaves besides its texts."""
    if args.do_train != "yes":
        source = _named(Path(args.prefix_model_path or args.finetune_model_path or ""))
        penalty = args.length_pen
        if penalty is None:
            penalty = PRESETS[args.search or MODES[args.mode].search].length_penalty
        return source.with_name(f"{source.name}_decode_eval_{penalty}")
    folder = MODES[args.mode].folder
    if args.mode == OWN and args.data_dir and not (args.dir_name or args.low_data):
        return Path(folder) / Path(args.data_dir).stem
    if args.low_data:
        folder = f"{args.mode}_lowdata_{args.tuning_mode}"
    return Path(args.dir_name or folder) / run_name(args)


def _named(path: Path) -> Path:
    """``path``, or the folder itself where it is only a way to it, as ``.`` is."""
    return path.resolve() if path.name in ("", "..") else path


def _data_dir(args: LaunchArguments) -> str:
    if args.data_dir:
        return args.data_dir
    data = ROOT / "data"
    if args.low_data:
        seed, size = args.low_data
        return str(data / f"lowdata_{args.mode}" / f"{args.mode}_{size}_{seed}")
    return str(data / MODES[args.mode].data)


def training_flags(args: LaunchArguments, output_dir: Path) -> dict[str, Any]:
    """The flags of ``finetune.py``, by name; None where its default holds."""
    mode, training = MODES[args.mode], args.do_train == "yes"
    knows = not training and args.tuning_mode == "prefixtune"  # the checkpoint that is decoded
    low_data = args.low_data is not None
    flags: dict[str, Any] = {
        "model_name_or_path": args.model_name_or_path or (None if knows else ORIGINAL_BASE),
        "output_dir": str(output_dir),
        "data_dir": _data_dir(args),
        "task_mode": mode.task_mode,
        "tuning_mode": args.tuning_mode,
        "search": args.search or mode.search,
        "length_penalty": args.length_pen,
        "max_source_length": args.max_source_length or (None if knows else mode.source),
        "max_target_length": mode.train_target,
        "val_max_target_length": mode.val_target,
        "test_max_target_length": mode.test_target,
        "train_batch_size": args.bsz,
        "eval_batch_size": args.bsz if training else 8,
        "num_train_epochs": args.epoch,
        "max_steps": args.max_steps,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "learning_rate": args.learning_rate,
        "weight_decay": args.weight_decay,
        "warmup_steps": 100 if low_data and args.warmup_steps is None else args.warmup_steps,
        "label_smoothing": args.label_smoothing,
        "seed": args.seed,
    }
    if args.tuning_mode == "prefixtune":
        flags |= {
            "optim_prefix": args.optim_prefix,
            "preseqlen": args.preseqlen,
            "prefix_mode": args.prefix_mode,
            "format_mode": args.format_mode,
            "mid_dim": args.mid_dim,
            "use_deep": args.use_deep,
            "prefix_dropout": args.dropout,
            "prefixModel_name_or_path": args.prefix_model_path,
        }
        if low_data:
            flags |= {
                "lowdata_token": args.lowdata_token,
                "use_lowdata_token": args.use_lowdata_token,
            }
    if args.finetune_model_path:
        flags["model_name_or_path"] = args.finetune_model_path
    flags["do_train" if training else "do_predict"] = True
    flags["fp16"] = args.fp16 == "yes"
    flags["overwrite_output_dir"] = training and args.resume == "no"
    return {k: v for k, v in flags.items() if v is not None and v is not False}


def main(argv: Sequence[str] | None = None) -> None:
    """Launch what ``argv`` describes."""
    start(*read(argv))


def start(args: LaunchArguments, rest: Sequence[str] = ()) -> None:
    """Launch a run.

    Args:
        rest: further arguments of ``finetune.py``.
    """
    output_dir = _named(Path(args.output_dir or _run_folder(args)))
    given = training_flags(args, output_dir)
    launch(
        SCRIPT,
        [*command(given), *rest],
        output_dir,
        check=lambda: arguments.parse(rest, given),
        run=finetune.run,
        submit=args.submit,
    )


if __name__ == "__main__":
    run_command(main)
