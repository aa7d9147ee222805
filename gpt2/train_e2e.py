"""Launch a run with the original's flags, run names and folders.

Builds the command line of ``run_language_modeling.py``, writes it to ``<folder>/<run>.sh`` so that
it can be repeated, and runs it in this process. Flags unknown here are passed on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpt2 import run_language_modeling
from gpt2.arguments import TUNING_MODES
from gpt2.baselines import WITH_PREFIX
from gpt2.data import DEFAULT_FILES, READERS
from prefix_tuning.errors import UserError, run_command

RUN_FOLDERS = {
    "data2text": "save_e2e_models_convcheck",
    "webnlg": "webnlg_models",
    "triples": "triples_models",
    "writingPrompts": "wp_models",
    "cnndm": "cnndm_models",
    "xsum": "xsum_models",
    "sentiment": "sentiment_models",
    "topic": "topic_models",
    "classify-sentiment": "classification_models",
    "classify-topic": "classification_models",
}
SUBSET_FOLDERS = {
    "lowdata": "e2e_lowdata_models_prefixtune",
    "datalevels": "e2e_datalevels_models",
}
LATER: tuple[tuple[str, type, object], ...] = (
    ("init_shallow_word", str, "summarize"),
    ("parametrize_emb", str, "MLP"),
    ("prefix_model_path", str, None),
)
"""Flags of the original that matter only together with a mode that is refused so far."""


def _top_note(args: argparse.Namespace) -> str:
    if args.train_top is None:
        return f"l={args.top_layers}"
    return f"l=top{args.train_top}" + ("+embs" if args.train_embs == "yes" else "")


NOTES: dict[str, Callable[[argparse.Namespace], str]] = {
    "adaptertune": lambda args: f"a={args.adapter_design}_b={args.adapter_bottleneck}",
    "finetune-top": _top_note,
    "finetune": lambda args: f"uctd={args.use_custom_teacher_dropout}",
    "lora": lambda args: f"r={args.lora_r}_alpha={args.lora_alpha}",
}
"""Tuning mode -> what its runs say in their names."""
BASELINE_FLAGS = {
    "adaptertune": ("adapter_design", "adapter_bottleneck"),
    "finetune-top": ("top_layers",),
    "lora": ("lora_r", "lora_alpha"),
}
DISTILLATION_FLAGS = ("finetuned_model_path", "matching_objective", "distill_positions")
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
    add("--preseqlen", type=int, default=10, help="prefix length P")
    add("--prefix_mode", default="activation", help="activation")
    add("--format_mode", default="cat", help="cat or peek (they train the same)")
    add(
        "--notes",
        help="appended to the run name; 'large' in it selects gpt2-large, lowdata_SEED_SIZE or "
        "datalevels_SEED_PERCENT a random subset",
    )
    add("--objective_mode", type=int, default=1, help="how token losses are added up, 0 to 4")
    yes_no("--init_shallow", "no", "optimise keys and values directly (not implemented yet)")
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
    later = parser.add_argument_group("for variants that are not implemented yet")
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
    if args.init_shallow == "yes":
        raise UserError("--init_shallow yes is not implemented yet")
    if args.prefix_model_path is not None:
        raise UserError(f"--prefix_model_path {args.prefix_model_path} is not implemented yet")
    subset(args)
    if args.submit == "yes":
        raise UserError("--submit yes: the original's cluster is not supported; use no or print")


def subset(args: argparse.Namespace) -> tuple[str, int] | None:
    """Size and seed of the random subset that is trained on; None for the whole file.

    Raises:
        UserError: the notes say ``lowdata`` or ``datalevels``, but not as the original reads them.
    """
    notes = args.notes or ""
    kind = next((word for word in ("lowdata", "datalevels") if word in notes), None)
    if kind is None:
        return (args.train_size, args.sample_seed) if args.train_size else None
    parts = notes.split("_")
    if len(parts) != 3 or kind not in parts[0] or not all(p.isdecimal() for p in parts[1:]):
        what = "size" if kind == "lowdata" else "percent"
        raise UserError(f"--notes {notes}: expected {kind}_SEED_{what.upper()}, {kind}_0_50 say")
    if args.train_size:
        raise UserError(f"--train_size {args.train_size}: --notes {notes} says it already")
    return parts[2] + ("%" if kind == "datalevels" else ""), int(parts[1])


def schedule(args: argparse.Namespace) -> dict[str, int | None]:
    """The flags of the schedule, with the original's defaults for subsets."""
    chosen = subset(args)
    defaults: dict[str, int | None] = {"max_steps": None, "eval_steps": 5000, "warmup_steps": None}
    if chosen:
        defaults |= {"eval_steps": 50, "warmup_steps": 100}
        defaults["max_steps"] = None if chosen[0].endswith("%") else 400
    given = {name: getattr(args, name) for name in defaults}
    return {name: defaults[name] if value is None else value for name, value in given.items()}


def _subset_note(args: argparse.Namespace) -> str:
    """What a run on a subset says in its name; the original glues it to what stands before."""
    if not subset(args):
        return ""
    plan = schedule(args)
    if args.train_size:
        return f"_n={args.train_size}_ss={args.sample_seed}_t={args.lowdata_token}"
    note = f"ev={plan['eval_steps']}_ws={plan['warmup_steps']}_t={args.lowdata_token}"
    if "lowdata" in args.notes:
        return f"st={plan['max_steps']}_{note}"
    return f"{note}_u={args.use_lowdata_token}"


def run_folder(args: argparse.Namespace) -> str:
    """The original's folder for runs of this kind."""
    if args.mode == "data2text":
        for word, folder in SUBSET_FOLDERS.items():
            if word in (args.notes or ""):
                return folder
    return RUN_FOLDERS[args.mode]


def run_name(args: argparse.Namespace) -> str:
    """The original's name of a run. It does say ``o=`` twice."""
    notes = [args.notes] if args.notes else []
    if args.tuning_mode in NOTES:
        notes.append(NOTES[args.tuning_mode](args))
    words = "_".join(notes) + _subset_note(args)
    notes = [words.removeprefix("_")] if words else []
    notes.append(f"o={args.objective_mode}")
    if args.distill == "yes":
        notes.append(f"distill_o={args.matching_objective}")
    notes.append(f"o={args.objective_mode}")
    return (
        f"{args.mode}{args.tuning_mode}_{args.optim_prefix[:1]}_{args.preseqlen}"
        f"_{args.prefix_mode[:3]}_{args.format_mode[:3]}"
        f"_b={args.bsz * args.gradient_accumulation_steps}-e={args.epoch}_d={args.dropout}"
        f"_u={args.use_dropout}_lr={args.learning_rate}_w={args.weight_decay}_s={args.seed}"
        f"_r={args.init_random[:1]}_m={args.mid_dim}_{'_'.join(notes)}"
    )


def _word_flags(args: argparse.Namespace) -> dict[str, str]:
    """What becomes of the word of a low-data run: it stands in front of every source."""
    if args.use_lowdata_token == "no":
        return {}
    if args.tuning_mode in WITH_PREFIX:
        raise UserError(
            "--use_lowdata_token yes: a prefix that starts from a word is not implemented yet; add "
            "--use_lowdata_token no"
        )
    return {"source_prefix": args.lowdata_token} if args.tuning_mode == "finetune" else {}


def build_command(args: argparse.Namespace, output_dir: Path) -> list[str]:
    """The arguments of ``run_language_modeling.py``."""
    files, chosen = DEFAULT_FILES[args.mode], subset(args)
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
    if chosen:
        flags["train_size"], flags["sample_seed"] = chosen
        flags |= _word_flags(args)
    if args.distill == "yes":
        flags |= {name: getattr(args, name) for name in ("distill", *DISTILLATION_FLAGS)}
    if args.use_custom_teacher_dropout == "yes":
        flags["teacher_dropout"] = args.dropout
    for name in BASELINE_FLAGS.get(args.tuning_mode, ()):
        flags[name] = getattr(args, name)
    if args.tuning_mode in WITH_PREFIX:
        flags |= {
            "optim_prefix": args.optim_prefix,
            "preseqlen": args.preseqlen,
            "prefix_mode": args.prefix_mode,
            "format_mode": args.format_mode,
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
    folder = Path(args.dir_name or run_folder(args))
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
