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
from gpt2.data import DEFAULT_FILES, READERS
from gpt2.prefixes import INITS
from prefix_tuning.errors import UserError, run_command

RUN_FOLDERS = {
    "data2text": "save_e2e_models_convcheck",
    "webnlg": "webnlg_models",
    "triples": "triples_models",
}
LATER: tuple[tuple[str, type, object], ...] = (
    ("lowdata_token", str, "summarize"),
    ("use_lowdata_token", str, "yes"),
    ("adapter_design", int, 1),
    ("adapter_bottleneck", int, 100),
    ("top_layers", int, 1),
    ("finetuned_model_path", str, None),
    ("matching_objective", str, "kl"),
    ("prefix_model_path", str, None),
)
"""Flags of the original that matter only together with a mode that is refused so far."""
SCRIPT = Path(__file__).with_name("run_language_modeling.py")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument

    def yes_no(name: str, default: str, text: str) -> None:
        add(name, choices=["yes", "no"], default=default, help=text)

    add("--mode", default="data2text", help=f"task: {', '.join(READERS)}")
    add("--tuning_mode", default="prefixtune", help=f"{', '.join(TUNING_MODES)}")
    yes_no("--optim_prefix", "yes", "optimise a prefix")
    add("--preseqlen", type=int, help="prefix length P (default: 10; --init text: its tokens)")
    add("--prefix_mode", default="activation", help="activation, or embedding: vectors for words")
    add("--parametrize_emb", default="MLP", help="vectors of --prefix_mode embedding: MLP or Emb")
    add("--format_mode", default="cat", help="cat or peek (they train the same), or infix")
    yes_no("--deep", "no", "one more hidden layer in the prefix's MLP")
    add("--parametrization", help="the variant by name, instead of the original's flags")
    add("--notes", help="appended to the run name; 'large' in it selects gpt2-large")
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
    add("--max_steps", type=int, help="steps instead of epochs")
    add("--eval_steps", type=int, default=5000, help="steps between evaluations")
    add("--warmup_steps", type=int, help="steps of linear warm-up (default: none)")
    add("--gradient_accumulation_steps", type=int, default=1, help="batches per update")
    add("--learning_rate", type=float, default=5e-5, help="peak learning rate")
    add("--weight_decay", type=float, default=0.0, help="AdamW's weight decay")
    add("--dropout", type=float, default=0.0, help="dropout on the generated keys and values")
    add("--mid_dim", type=int, default=512, help="hidden width of the prefix's MLP")
    yes_no("--init_random", "no", "recorded in the run name, without effect")
    yes_no("--distill", "no", "distil from a fine-tuned teacher (not implemented yet)")
    yes_no("--use_custom_teacher_dropout", "no", "not implemented yet")
    add("--cache_dir", help="where downloaded models are kept")
    add("--dir_name", help="folder of the run's folder, instead of the mode's")
    later = parser.add_argument_group("for variants and baselines that are not implemented yet")
    for name, kind, default in LATER:
        later.add_argument(f"--{name}", type=kind, default=default, help="%(default)s")
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
    """Refuse what only a later version can do, by name."""
    if args.mode not in READERS:
        raise UserError(f"--mode {args.mode}: only {', '.join(READERS)} so far")
    if args.tuning_mode not in TUNING_MODES:
        raise UserError(f"--tuning_mode {args.tuning_mode}: only {', '.join(TUNING_MODES)} so far")
    for name in ("distill", "use_custom_teacher_dropout"):
        if getattr(args, name) == "yes":
            raise UserError(f"--{name} yes is not implemented yet")
    if args.prefix_model_path is not None:
        raise UserError(f"--prefix_model_path {args.prefix_model_path} is not implemented yet")
    for word in ("lowdata", "datalevels"):
        if word in (args.notes or ""):
            raise UserError(f"--notes {args.notes}: {word} runs are not implemented yet")
    if args.submit == "yes":
        raise UserError("--submit yes: the original's cluster is not supported; use no or print")


def _length(args: argparse.Namespace) -> int:
    """The prefix length; 0 means as many slots as the text has tokens."""
    if args.preseqlen is None:
        return 0 if args.init == "text" else 10
    return args.preseqlen


def _run_folder(args: argparse.Namespace) -> str:
    if args.mode == "data2text" and args.format_mode == "infix":
        return "ablation_e2e_infix_models"
    if args.mode == "data2text" and args.prefix_mode == "embedding":
        return "ablation_e2e_emb_models"
    return RUN_FOLDERS[args.mode]


def run_name(args: argparse.Namespace) -> str:
    """The original's name of a run. It does say ``o=`` twice."""
    notes = [args.notes] if args.notes else []
    if args.tuning_mode == "finetune":
        notes.append(f"uctd={args.use_custom_teacher_dropout}")
    if args.prefix_mode == "embedding":
        notes.append(f"p={args.parametrize_emb}" if notes else args.parametrize_emb)
    if args.init_shallow == "yes":
        notes.append(f"s=yes_w={'no' if args.init else args.init_shallow_word}")
    own = {"deep": args.deep == "yes", "init": args.init, "parametrization": args.parametrization}
    notes += [f"{name}={getattr(args, name)}" for name, given in own.items() if given]
    notes += [f"o={args.objective_mode}"] * 2
    return (
        f"{args.mode}{args.tuning_mode}_{args.optim_prefix[:1]}_{_length(args)}"
        f"_{args.prefix_mode[:3]}_{args.format_mode[:3]}"
        f"_b={args.bsz * args.gradient_accumulation_steps}-e={args.epoch}_d={args.dropout}"
        f"_u={args.use_dropout}_lr={args.learning_rate}_w={args.weight_decay}_s={args.seed}"
        f"_r={args.init_random[:1]}_m={args.mid_dim}_{'_'.join(notes)}"
    )


def build_command(args: argparse.Namespace, output_dir: Path) -> list[str]:
    """The arguments of ``run_language_modeling.py``."""
    files = DEFAULT_FILES[args.mode]
    base = "gpt2-large" if "large" in (args.notes or "") else "gpt2-medium"
    flags = {
        "output_dir": output_dir,
        "model_name_or_path": args.model_name_or_path or base,
        "task_mode": args.mode,
        "tuning_mode": args.tuning_mode,
        "train_data_file": args.train_file or files["train"],
        "eval_data_file": args.eval_file or files["valid"],
        "test_data_file": args.test_file or files["test"],
        "per_device_train_batch_size": args.bsz,
        "per_device_eval_batch_size": args.bsz,
        "num_train_epochs": args.epoch,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "learning_rate": args.learning_rate,
        "weight_decay": args.weight_decay,
        "seed": args.seed,
        "eval_steps": args.eval_steps,
        "logging_dir": output_dir.parent / "runs" / output_dir.name,
        "max_steps": args.max_steps,
        "warmup_steps": args.warmup_steps,
        "cache_dir": args.cache_dir,
    }
    if args.tuning_mode == "prefixtune":
        from_word = args.init_shallow == "yes" and args.init is None
        shallow_word = args.init_shallow_word if from_word else "no"
        flags |= {
            "optim_prefix": args.optim_prefix,
            "preseqlen": _length(args),
            "prefix_mode": args.prefix_mode,
            "parametrize_emb": args.parametrize_emb,
            "format_mode": args.format_mode,
            "deep": args.deep,
            "parametrization": args.parametrization,
            "init_shallow": args.init_shallow,
            "init_shallow_word": shallow_word,
            "init": args.init,
            "init_text": args.init_text,
            "init_file": args.init_file,
            "mid_dim": args.mid_dim,
            "init_random": args.init_random,
            "use_dropout": args.use_dropout,
            "prefix_dropout": args.dropout,
            "objective_mode": args.objective_mode,
        }
    command = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    command.append("--evaluate_during_training")
    if args.resume == "yes":
        return [*command, "--resume_from_checkpoint=auto"]
    return [*command, "--overwrite_output_dir"]


def main(argv: Sequence[str] | None = None) -> None:
    """Launch what ``argv`` describes."""
    args, rest = _parser().parse_known_args(argv)
    _check(args)
    folder = Path(args.dir_name or _run_folder(args))
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
