"""Launch a run with the original's flags, run names and folders.

Builds the command line of ``finetune.py``, writes it to ``<folder>/<run>.sh`` so that it can be
repeated, and runs it in this process. Flags unknown here are passed on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(ROOT))

from prefix_tuning.errors import UserError, run_command
from seq2seq import arguments, finetune
from seq2seq.decoding import PRESETS
from seq2seq.predict import ORIGINAL_BASE

SCRIPT = Path(__file__).with_name("finetune.py")


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
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument

    def yes_no(name: str, default: str, text: str) -> None:
        add(name, choices=["yes", "no"], default=default, help=text)

    add("--mode", required=True, help=f"task: {', '.join(MODES)}")
    add("--tuning_mode", default="prefixtune", help="prefixtune or finetune")
    yes_no("--optim_prefix", "yes", "optimise a prefix")
    add("--preseqlen", type=int, help="prefix length P (training: 5 if not given)")
    add("--prefix_mode", default="activation", help="activation")
    add("--format_mode", default="cat", help="cat")
    add("--notes", help="appended to the run name; lowdata_SEED_SIZE selects a low-data sample")
    add("--lowdata_token", default="summarize", help="words a low-data prefix starts from")
    yes_no("--use_lowdata_token", "yes", "start a low-data prefix from words")
    add("--max_steps", type=int, help="steps instead of epochs")
    add("--warmup_steps", type=int, help="steps of linear warm-up (default: 100 in low data, or 0)")
    yes_no("--do_train", "yes", "no: decode the test set with a trained model")
    yes_no("--fp16", "no", "train in 16-bit floats with loss scaling")
    add("--seed", type=int, default=101, help="random seed")
    add("--bsz", type=int, default=10, help="batch size")
    add("--epoch", type=int, default=5, help="epochs")
    add("--gradient_accumulation_steps", type=int, default=1, help="batches per update")
    add("--learning_rate", type=float, default=5e-5, help="peak learning rate")
    add("--weight_decay", type=float, default=0.0, help="AdamW's weight decay")
    add("--dropout", type=float, default=0.0, help="dropout on the generated keys and values")
    add("--label_smoothing", type=float, default=0.0, help="smoothing of the training loss")
    add("--length_pen", type=float, help="length penalty (default: the search's)")
    add("--search", choices=list(PRESETS), help="how texts are searched for (default: the mode's)")
    add("--mid_dim", type=int, help="hidden width of the MLPs (training: 512 if not given)")
    add("--use_deep", choices=["yes", "no"], help="one more hidden layer in the MLPs")
    add("--max_source_length", type=int, help="source tokens (default: the mode's)")
    add("--prefix_model_path", help="folder of a trained prefix, to decode")
    add("--finetune_model_path", help="folder of a fine-tuned model, to decode")
    add("--model_name_or_path", help=f"base model (default: the checkpoint's, or {ORIGINAL_BASE})")
    add("--data_dir", help="folder, file or hub name of the data (default: data/<the mode's>)")
    add("--dir_name", help="folder of the run's folder, instead of the mode's")
    add("--output_dir", help="folder of the run (default: <folder>/<run name>)")
    yes_no("--resume", "yes", "go on with an interrupted run; no: train again")
    add("--submit", default="no", help="no: run; print (or anything else): only show the command")
    ignored = parser.add_argument_group("accepted, without effect as in the original")
    for name in ("use_dropout", "use_big", "parametrize_emb", "adapter_design", "top_layers"):
        ignored.add_argument(f"--{name}", help=argparse.SUPPRESS)
    ignored.add_argument("--eval_steps", help=argparse.SUPPRESS)
    return parser


def _check(args: argparse.Namespace) -> None:
    """Refuse by name what is impossible, and fill in what a training needs."""
    if args.mode not in MODES:
        raise UserError(f"--mode {args.mode}: use one of {', '.join(MODES)}")
    if args.submit == "yes":
        raise UserError("--submit yes: the original's cluster is not supported; use no or print")
    if args.do_train == "yes":
        for name, default in (("preseqlen", 5), ("mid_dim", 512), ("use_deep", "no")):
            if getattr(args, name) is None:  # in decoding, the checkpoint knows
                setattr(args, name, default)
        for name in ("prefix_model_path", "finetune_model_path"):
            if getattr(args, name):
                raise UserError(f"--{name} is decoded, not trained: add --do_train no")
        return
    wanted = "prefix_model_path" if args.tuning_mode == "prefixtune" else "finetune_model_path"
    if not getattr(args, wanted):
        raise UserError(f"--do_train no with {args.tuning_mode} needs --{wanted}")


def _low_data(args: argparse.Namespace) -> tuple[str, str] | None:
    """Seed and size of a low-data run, which its notes name."""
    parts = (args.notes or "").split("_")
    if "lowdata" not in parts[0]:
        return None
    if len(parts) != 3 or not all(part.isdigit() for part in parts[1:]):
        raise UserError(f"--notes {args.notes}: a low-data run is called lowdata_SEED_SIZE")
    return parts[1], parts[2]


def run_name(args: argparse.Namespace) -> str:
    """The original's name of a run."""
    name = (
        f"{args.mode}{args.tuning_mode}_{args.optim_prefix[:1]}_{args.preseqlen}"
        f"_{args.prefix_mode[:3]}_{args.format_mode[:3]}"
        f"_b={args.bsz * args.gradient_accumulation_steps}-e={args.epoch}_d={args.dropout}"
        f"_l={args.label_smoothing}_lr={args.learning_rate}_w={args.weight_decay}_s={args.seed}"
        f"_d={args.use_deep[:1]}_m={args.mid_dim}"
    )
    return f"{name}_{args.notes}" if args.notes else name


def _run_folder(args: argparse.Namespace) -> Path:
    """Of a training, or of what a decode leaves besides its texts."""
    if args.do_train != "yes":
        source = _named(Path(args.prefix_model_path or args.finetune_model_path))
        penalty = args.length_pen
        if penalty is None:
            penalty = PRESETS[args.search or MODES[args.mode].search].length_penalty
        return source.with_name(f"{source.name}_decode_eval_{penalty}")
    folder = MODES[args.mode].folder
    if _low_data(args):
        folder = f"{args.mode}_lowdata_{args.tuning_mode}"
    return Path(args.dir_name or folder) / run_name(args)


def _named(path: Path) -> Path:
    """``path``, or the folder itself where it is only a way to it, as ``.`` is."""
    return path.resolve() if path.name in ("", "..") else path


def _data_dir(args: argparse.Namespace) -> str | Path:
    low_data = _low_data(args)
    if args.data_dir:
        return args.data_dir
    if low_data:
        seed, size = low_data
        return ROOT / "data" / f"lowdata_{args.mode}" / f"{args.mode}_{size}_{seed}"
    return ROOT / "data" / MODES[args.mode].data


def build_command(args: argparse.Namespace, output_dir: Path) -> list[str]:
    """The arguments of ``finetune.py``."""
    mode, training = MODES[args.mode], args.do_train == "yes"
    knows = not training and args.tuning_mode == "prefixtune"  # the checkpoint that is decoded
    low_data = _low_data(args) is not None
    flags = {
        "model_name_or_path": args.model_name_or_path or (None if knows else ORIGINAL_BASE),
        "output_dir": output_dir,
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
    command = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    command.append("--do_train" if training else "--do_predict")
    if args.fp16 == "yes":
        command.append("--fp16")
    if training and args.resume == "no":
        command.append("--overwrite_output_dir")
    return command


def main(argv: Sequence[str] | None = None) -> None:
    """Launch what ``argv`` describes."""
    args, rest = _parser().parse_known_args(argv)
    _check(args)
    output_dir = _named(Path(args.output_dir or _run_folder(args)))
    command = [*build_command(args, output_dir), *rest]
    line = shlex.join([sys.executable, str(SCRIPT), *command])
    print(line, flush=True)
    arguments.parse(command)  # a wrong flag ends here, before anything is written
    if args.submit != "no":
        return
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    script = output_dir.with_name(output_dir.name + ".sh")
    script.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    finetune.main(command)


if __name__ == "__main__":
    run_command(main)
