"""Decode a run: ``gen.py MODE CONTROL SPLIT CHECKPOINT SUBMIT`` as in the original.

What the original guesses from the checkpoint's path (prefix or fine-tuned, base model, prefix
length) is read from the checkpoint itself. Further flags are those of ``run_generation.py``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpt2 import baselines, run_generation
from gpt2.tasks import TASKS
from prefix_tuning import checkpoint
from prefix_tuning.errors import UserError, run_command


def _base_model(folder: Path) -> str:
    """The name of the base model: recorded, or the original's guess from the folder's name."""
    if (folder / baselines.BOTH / "config.json").is_file():
        return str(folder / baselines.BOTH)
    meta = baselines.read_about(folder) or checkpoint.read_metadata(folder)
    recorded = meta["base_model"]["name_or_path"]
    return recorded or ("gpt2-large" if "large" in folder.name else "gpt2-medium")


def main(argv: Sequence[str] | None = None) -> None:
    """Build the arguments of ``run_generation`` and run it in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", help=f"one of {', '.join(TASKS)}")
    parser.add_argument("control", choices=["yes", "no"], help="without effect, as in the original")
    parser.add_argument("split", choices=["train", "valid", "test"])
    parser.add_argument("checkpoint", help="folder of a run, of any tuning mode")
    parser.add_argument("submit", nargs="?", default="no", help="no, or print to only show")
    parser.add_argument("--model_name_or_path", help="base model, if not the one recorded")
    parser.add_argument("--results_dir", default=".", help="where the result folder is made")
    args, rest = parser.parse_known_args(argv)
    folder = Path(args.checkpoint)
    if args.mode not in TASKS:
        raise UserError(f"MODE {args.mode}: only {', '.join(TASKS)} so far")
    if not folder.is_dir():
        raise UserError(f"CHECKPOINT {folder}: there is no such folder")
    if args.submit == "yes":
        raise UserError("SUBMIT yes: the original's cluster is not supported; use no or print")

    command = ["--task_mode", args.mode, "--eval_dataset", args.split]
    command += ["--gen_dir", str(Path(args.results_dir) / TASKS[args.mode].results)]
    if checkpoint.is_prefix_folder(folder) or baselines.needs_base_model(folder):
        base = args.model_name_or_path or _base_model(folder)
        command += ["--model_name_or_path", base, "--prefixModel_name_or_path", str(folder)]
    elif (folder / "config.json").is_file():
        command += ["--model_name_or_path", str(folder)]
    else:
        raise UserError(f"CHECKPOINT {folder} holds neither a prefix nor a model")
    command += rest
    if args.submit == "print":
        print("run_generation.py", *command)
        return
    run_generation.main(command)


if __name__ == "__main__":
    run_command(main)
