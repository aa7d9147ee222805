"""Run folders: whether a run starts, goes on or is finished."""

from __future__ import annotations

import argparse
import shutil
import zipfile
from pathlib import Path

from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, write_json

SETTINGS = "run_settings.json"
"""What must not change when a run is resumed."""
HISTORY = "log_history.json"
"""Written last: where it is, the run is finished."""
RESUME = "last.ckpt"
"""Lightning's checkpoint: trained parameters, optimiser, schedule, position in the data."""
BEST = "checkpoint-curr_best"
EPOCHS = "checkpointepoch=*.ckpt"

AGAIN = "to train it again add --overwrite_output_dir"
_FREE = (
    "cache_dir num_workers output_dir overwrite_output_dir do_train do_predict save_steps "
    "save_all_epochs logging_steps logger_name accelerator strategy n_test decode_batch_size "
    "predict_splits test_max_target_length fp16_opt_level use_dropout"
)
"""Flags that may change: the trained weights do not depend on them."""


def settings(args: argparse.Namespace) -> dict[str, object]:
    """The flags that decide what is trained."""
    return {name: value for name, value in vars(args).items() if name not in _FREE.split()}


def prepare(args: argparse.Namespace) -> bool:
    """Look at ``--output_dir`` before anything is loaded, and change nothing.

    Returns:
        whether the run is finished.

    Raises:
        UserError: the folder is not one of ours, or was started with other flags.
    """
    folder = Path(args.output_dir)
    path = folder / SETTINGS
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output_dir {folder} is a file: name a folder")
    if args.overwrite_output_dir:
        return False
    if not path.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(
                f"--output_dir {folder} is not empty and holds no run of this project: name "
                f"another folder; {AGAIN}"
            )
        return False
    before = read_json_object(path)
    for name, value in settings(args).items():
        if before.get(name) != value:
            raise UserError(
                f"{folder} was started with --{name} {before.get(name)}, now it is {value}: use "
                f"the old value; {AGAIN}"
            )
    return (folder / HISTORY).is_file()


def start(args: argparse.Namespace) -> None:
    """Make the folder, without what a new run would take for its own: an old one's checkpoints."""
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (HISTORY, RESUME, "loss.png", "metrics.json"):
        (folder / name).unlink(missing_ok=True)
    for old in (folder / "runs", folder / BEST, *folder.glob(EPOCHS)):
        shutil.rmtree(old, ignore_errors=True)
    write_json(folder / SETTINGS, settings(args))


def checkpoint_to_resume(args: argparse.Namespace) -> Path | None:
    """Where an unfinished run goes on; None where it starts.

    Raises:
        UserError: the checkpoint was cut off, as by a copy that did not end.
    """
    path = Path(args.output_dir) / RESUME
    if args.overwrite_output_dir or not path.is_file():
        return None
    if not zipfile.is_zipfile(path):  # PyTorch's format, whose table is at its end
        raise UserError(f"{path} is damaged: copy it again; {AGAIN}")
    return path
