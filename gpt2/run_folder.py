"""The folder of a run: whether it may be started, goes on, or is somebody else's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from gpt2.arguments import Arguments
from gpt2.trainer_prefix import best_checkpoints
from harness.folder import last_complete_checkpoint
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, write_json

AGAIN = "add --overwrite_output_dir (to train_e2e.py: --resume no)"
SETTINGS = "run_settings.json"
"""What must not change when a run is resumed."""


def prepare(arguments: Arguments, output_dir: Path) -> Path | None:
    """Decide whether the run starts or goes on; return the checkpoint to go on from."""
    run_args = arguments[2]
    settings, path = settings_of(arguments), output_dir / SETTINGS
    asked = run_args.resume_from_checkpoint
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output_dir {output_dir} is a file: name a folder")
    if run_args.overwrite_output_dir and asked:
        raise UserError("--overwrite_output_dir and --resume_from_checkpoint exclude each other")
    if not path.exists() and asked not in (None, "auto"):
        raise UserError(
            f"--resume_from_checkpoint {asked}: --output_dir {output_dir} holds no run to go on "
            "with; name the folder of the checkpoint's run"
        )
    if run_args.overwrite_output_dir or not path.exists():
        if output_dir.is_dir() and any(output_dir.iterdir()) and not run_args.overwrite_output_dir:
            raise UserError(
                f"--output_dir {output_dir} is not empty and holds no run of this project: name "
                f"another folder, or {AGAIN}"
            )
        return None
    if not asked:
        raise UserError(
            f"--output_dir {output_dir} holds a run: add --resume_from_checkpoint auto to go on "
            f"with it; to train it again {AGAIN}"
        )
    before = read_json_object(path)
    for name, value in settings.items():
        if before.get(name, value) != value:
            raise UserError(
                f"{output_dir} was started with --{name} {before.get(name)}, now it is {value}: "
                f"use the old value; to train it again {AGAIN}"
            )
    if asked == "auto":
        return last_complete_checkpoint(output_dir)
    if not Path(asked, "trainer_state.json").is_file():
        raise UserError(f"--resume_from_checkpoint {asked} holds no complete checkpoint")
    return Path(asked)


def start(output_dir: Path, settings: dict[str, Any]) -> None:
    """Make the folder, without what a new run would take for its own: an old one's checkpoints."""
    output_dir.mkdir(parents=True, exist_ok=True)
    for name in ("log_history.json", "loss.png"):
        (output_dir / name).unlink(missing_ok=True)
    for folder in [*output_dir.glob("checkpoint-*"), *best_checkpoints(output_dir)]:
        shutil.rmtree(folder)
    write_json(output_dir / SETTINGS, settings)


def settings_of(arguments: Arguments) -> dict[str, Any]:
    """The flags that decide what a run computes, as JSON values."""
    model_args, data_args, run_args = arguments
    of_run = (
        "per_device_train_batch_size gradient_accumulation_steps learning_rate weight_decay "
        "num_train_epochs max_steps warmup_steps max_grad_norm seed data_seed length_groups "
        "adam_beta1 adam_beta2 adam_epsilon bf16 fp16"
    )
    settings = {name: getattr(run_args, name) for name in of_run.split()}
    settings["lr_scheduler_type"] = str(run_args.lr_scheduler_type)
    settings["optim"] = run_args.optim.value
    ignored = {"cache_dir", "init_random"}
    settings |= {k: v for k, v in vars(model_args).items() if k not in ignored}
    return settings | {
        "train_data_file": data_args.train_data_file,
        "task_mode": data_args.task_mode,
        "separator": data_args.separator,
        "source_prefix": data_args.source_prefix,
        "train_size": data_args.train_size,
        "sample_seed": data_args.sample_seed,
    }
