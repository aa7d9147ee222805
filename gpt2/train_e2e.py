"""Launch a run with the original's flags, run names and folders.

Builds the command line of ``run_language_modeling.py``, writes it to ``<folder>/<run>.sh`` so that
it can be repeated, and runs it in this process. Flags unknown here are passed on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpt2 import run_language_modeling
from gpt2.arguments import TUNING_MODES
from gpt2.baselines import WITH_PREFIX
from gpt2.prefix_flags import INITS, STARTABLE, parametrization
from gpt2.run_names import folder_name, length, run_name, schedule, subset
from gpt2.tasks import TASKS
from prefix_tuning.errors import UserError, run_command

BASELINE_FLAGS = {
    "adaptertune": ("adapter_design", "adapter_bottleneck"),
    "finetune-top": ("top_layers",),
    "lora": ("lora_r", "lora_alpha"),
}
DISTILLATION_FLAGS = ("finetuned_model_path", "matching_objective", "distill_positions")
SCRIPT = Path(__file__).with_name("run_language_modeling.py")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,  # --optim is Trainer's, not short for --optim_prefix
    )
    add = parser.add_argument

    def yes_no(name: str, default: str, text: str) -> None:
        add(name, choices=["yes", "no"], default=default, help=text)

    add("--mode", default="data2text", help=f"task: {', '.join(TASKS)}")
    add("--tuning_mode", default="prefixtune", help=f"{', '.join(TUNING_MODES)}")
    yes_no("--optim_prefix", "yes", "optimise a prefix")
    add("--preseqlen", type=int, help="prefix length P (default: 10; --init text: its tokens)")
    add("--prefix_mode", default="activation", help="activation, or embedding: vectors for words")
    add("--parametrize_emb", default="MLP", help="vectors of --prefix_mode embedding: MLP or Emb")
    add("--format_mode", default="cat", help="cat or peek (they train the same), or infix")
    yes_no("--deep", "no", "one more hidden layer in the prefix's MLP")
    add("--parametrization", help="the variant by name, instead of the original's flags")
    add(
        "--notes",
        help="appended to the run name; 'large' in it selects gpt2-large, lowdata_SEED_SIZE or "
        "datalevels_SEED_PERCENT a random subset",
    )
    add("--objective_mode", type=int, default=1, help="how token losses are added up, 0 to 4")
    yes_no("--init_shallow", "no", "optimise keys and values directly, without the MLP")
    add("--init_shallow_word", default="summarize", help="words it starts from; no: random")
    add("--init", help=f"what the prefix starts from: {', '.join(INITS)}")
    add("--init_text", help="the text of --init text")
    add("--init_file", help="a file with the text of --init text")
    yes_no("--use_dropout", "no", "dropout of the frozen model while training")
    add("--seed", type=int, default=101, help="random seed")
    add("--bsz", type=int, default=10, help="batch size")
    add("--epoch", type=int, default=5, help="epochs")
    add("--max_steps", type=int, help="steps instead of epochs (of a number of pairs: 400)")
    add("--eval_steps", type=int, help="steps between evaluations (5000; of a subset: 50)")
    add("--warmup_steps", type=int, help="steps of linear warm-up (none; of a subset: 100)")
    add("--train_size", help="train on a random subset of the pairs: 100, or 10%%")
    add("--sample_seed", type=int, default=0, help="decides which subset")
    add("--lowdata_token", default="summarize", help="word for training on a subset")
    yes_no("--use_lowdata_token", "yes", "use it: finetune puts it in front of the source")
    add("--gradient_accumulation_steps", type=int, default=1, help="batches per update")
    add("--learning_rate", type=float, default=5e-5, help="peak learning rate")
    add("--weight_decay", type=float, default=0.0, help="AdamW's weight decay")
    add("--dropout", type=float, default=0.0, help="dropout on the generated keys and values")
    add("--mid_dim", type=int, default=512, help="hidden width of the prefix's MLP")
    yes_no("--init_random", "no", "recorded in the run name, without effect")
    add("--top_layers", type=int, default=1, help="finetune-top: the original's code")
    add("--train_top", type=int, help="finetune-top: so many top blocks, instead of a code")
    yes_no("--train_embs", "no", "finetune-top with --train_top: train word embeddings too")
    add("--adapter_design", type=int, default=1, help="adaptertune: 1 or 2 adapters a block")
    add("--adapter_bottleneck", type=int, default=100, help="adaptertune: bottleneck width")
    add("--lora_r", type=int, default=4, help="lora: rank of the updates")
    add("--lora_alpha", type=int, default=32, help="lora: the updates are scaled by alpha / r")
    yes_no("--distill", "no", "prefixtune: learn from a fine-tuned teacher, not from the texts")
    add("--finetuned_model_path", help="the teacher, a run of finetune")
    add("--matching_objective", default="kl", help="kl or logits")
    add("--distill_positions", default="target", help="target, or all as the original")
    yes_no("--use_custom_teacher_dropout", "no", "finetune: --dropout is the model's residual one")
    add("--cache_dir", help="where downloaded models are kept")
    add("--dir_name", help="folder of the run's folder, instead of the mode's")
    add("--prefix_model_path", help="refused: the original puts a path of its own in its place")
    add("--use_big", choices=["yes", "no"], default="no", help="of the original's cluster: ignored")
    add("--submit", default="no", help="no: run; print (or anything else): only show the command")
    add("--model_name_or_path", help="base model (default: gpt2-medium, or gpt2-large by --notes)")
    add("--train_file", help="training file (default: the mode's, in data/)")
    add("--eval_file", help="file of the evaluation loss (default: the mode's, in data/)")
    add("--test_file", help="file decoded after training (default: the mode's, in data/)")
    add("--output_dir", help="folder of the run (default: <folder>/<run name>)")
    yes_no("--resume", "yes", "go on with an interrupted run; no: train again")
    return parser


def _check(args: argparse.Namespace) -> None:
    """Refuse by name what cannot be launched."""
    if args.mode not in TASKS:
        raise UserError(f"--mode {args.mode}: only {', '.join(TASKS)} so far")
    if args.tuning_mode not in TUNING_MODES:
        raise UserError(f"--tuning_mode {args.tuning_mode}: only {', '.join(TUNING_MODES)} so far")
    if args.prefix_model_path is not None:
        raise UserError(
            f"--prefix_model_path {args.prefix_model_path}: going on from another prefix is not "
            "implemented (the original puts a path of its own in its place)"
        )
    subset(args)
    if args.submit == "yes":
        raise UserError("--submit yes: the original's cluster is not supported; use no or print")


def _prefix_flags(args: argparse.Namespace) -> dict[str, object]:
    from_word = args.init_shallow == "yes" and args.init is None
    shallow_word = args.init_shallow_word if from_word else "no"
    same = (
        "optim_prefix prefix_mode parametrize_emb format_mode deep parametrization init_shallow "
        "init init_text init_file mid_dim init_random use_dropout objective_mode"
    )
    return {
        **{name: getattr(args, name) for name in same.split()},
        "preseqlen": length(args),
        "init_shallow_word": shallow_word,
        "prefix_dropout": args.dropout,
    }


def _word_flags(args: argparse.Namespace) -> dict[str, object]:
    """What becomes of the word of a low-data run.

    A prefix starts from it, unless the flags say what it starts from, and has as many slots as it
    has tokens; ``finetune`` puts it in front of every source.
    """
    if args.use_lowdata_token == "no":
        return {}
    if args.tuning_mode == "finetune":
        return {"source_prefix": args.lowdata_token}
    if args.tuning_mode not in WITH_PREFIX or args.init or args.init_shallow == "yes":
        return {}
    variant = parametrization(args)
    if variant not in STARTABLE:
        raise UserError(
            f"--lowdata_token {args.lowdata_token}: a prefix of the variant {variant} cannot start "
            "from a word; add --use_lowdata_token no"
        )
    return {"init": "text", "init_text": args.lowdata_token, "preseqlen": 0}


def build_command(args: argparse.Namespace, output_dir: Path) -> list[str]:
    """The arguments of ``run_language_modeling.py``."""
    files, chosen = TASKS[args.mode].files, subset(args)
    base = "gpt2-large" if "large" in (args.notes or "") else "gpt2-medium"
    flags = {
        "output_dir": output_dir,
        "model_name_or_path": args.model_name_or_path or base,
        "task_mode": args.mode,
        "tuning_mode": args.tuning_mode,
        "train_data_file": args.train_file or files["train"],
        "eval_data_file": args.eval_file or files["valid"],
        "test_data_file": args.test_file or files.get("test"),
        "per_device_train_batch_size": args.bsz,
        "per_device_eval_batch_size": 32 if chosen else args.bsz,
        "num_train_epochs": args.epoch,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "learning_rate": args.learning_rate,
        "weight_decay": args.weight_decay,
        "seed": args.seed,
        "logging_dir": output_dir.parent / "runs" / output_dir.name,
        "cache_dir": args.cache_dir,
        "train_top": args.train_top,
        "train_embs": args.train_embs,
        **schedule(args),
    }
    flags |= {name: getattr(args, name) for name in BASELINE_FLAGS.get(args.tuning_mode, ())}
    if args.use_custom_teacher_dropout == "yes":
        flags["teacher_dropout"] = args.dropout
    if args.tuning_mode in WITH_PREFIX:
        flags |= _prefix_flags(args)
    if args.distill == "yes":
        flags |= {name: getattr(args, name) for name in ("distill", *DISTILLATION_FLAGS)}
    if chosen:
        flags["train_size"], flags["sample_seed"] = chosen
        flags |= _word_flags(args)
    command = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    command.append("--evaluate_during_training")
    if args.resume == "yes":
        return [*command, "--resume_from_checkpoint=auto"]
    return [*command, "--overwrite_output_dir"]


def main(argv: Sequence[str] | None = None) -> None:
    """Launch what ``argv`` describes."""
    args, rest = _parser().parse_known_args(argv)
    _check(args)
    folder = Path(args.dir_name or folder_name(args))
    output_dir = Path(args.output_dir or folder / run_name(args))
    command = [*build_command(args, output_dir), *rest]
    line = shlex.join([sys.executable, str(SCRIPT), *command])
    print(line, flush=True)
    run_language_modeling.parse(command)  # a wrong flag ends here, before anything is written
    if args.submit != "no":
        return
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    script = output_dir.with_name(output_dir.name + ".sh")
    script.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    run_language_modeling.main(command)


if __name__ == "__main__":
    run_command(main)
