"""What a run is called and where it goes, from the flags of ``train_e2e.py``.

Names and folders are the original's. Its notes also say what a run trains on, so the random subset
and the schedule that comes with one are read here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from gpt2.tasks import TASKS
from prefix_tuning.errors import UserError

SUBSET_FOLDERS = {
    "lowdata": "e2e_lowdata_models_prefixtune",
    "datalevels": "e2e_datalevels_models",
}


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


def length(args: argparse.Namespace) -> int:
    """The prefix length; 0 means as many slots as the text has tokens."""
    if args.preseqlen is None:
        return 0 if args.init == "text" else 10
    return args.preseqlen


def folder_name(args: argparse.Namespace) -> str:
    """The original's folder for runs of this kind."""
    if args.mode == "data2text":
        for word, folder in SUBSET_FOLDERS.items():
            if word in (args.notes or ""):
                return folder
        if args.format_mode == "infix":
            return "ablation_e2e_infix_models"
        if args.prefix_mode == "embedding":
            return "ablation_e2e_emb_models"
    return TASKS[args.mode].runs


def run_name(args: argparse.Namespace) -> str:
    """The original's name of a run. It does say ``o=`` twice."""
    notes = [args.notes] if args.notes else []
    if args.tuning_mode in NOTES:
        notes.append(NOTES[args.tuning_mode](args))
    if args.prefix_mode == "embedding":
        notes.append(f"p={args.parametrize_emb}" if notes else args.parametrize_emb)
    words = "_".join(notes) + _subset_note(args)
    notes = [words.removeprefix("_")] if words else []
    if args.init_shallow == "yes":
        notes.append(f"s=yes_w={'no' if args.init else args.init_shallow_word}")
    own = {"deep": args.deep == "yes", "init": args.init, "parametrization": args.parametrization}
    notes += [f"{name}={getattr(args, name)}" for name, given in own.items() if given]
    notes.append(f"o={args.objective_mode}")
    if args.distill == "yes":
        notes.append(f"distill_o={args.matching_objective}")
    notes.append(f"o={args.objective_mode}")
    return (
        f"{args.mode}{args.tuning_mode}_{args.optim_prefix[:1]}_{length(args)}"
        f"_{args.prefix_mode[:3]}_{args.format_mode[:3]}"
        f"_b={args.bsz * args.gradient_accumulation_steps}-e={args.epoch}_d={args.dropout}"
        f"_u={args.use_dropout}_lr={args.learning_rate}_w={args.weight_decay}_s={args.seed}"
        f"_r={args.init_random[:1]}_m={args.mid_dim}_{'_'.join(notes)}"
    )
