"""What stands in the folder of a run, and which flags its weights depend on."""

from __future__ import annotations

import zipfile
from pathlib import Path

from harness.folder import RunFolder
from seq2seq.arguments import Arguments

HISTORY = "log_history.json"
"""Written last: where it is, the run is finished."""
RESUME = "last.ckpt"
"""Lightning's checkpoint: trained parameters, optimiser, schedule, position in the data."""
BEST = "checkpoint-curr_best"
EPOCHS = "checkpointepoch=*.ckpt"

_FREE = {
    "accelerator",
    "cache_dir",
    "decode_batch_size",
    "do_predict",
    "do_train",
    "fp16_opt_level",
    "logger_name",
    "logging_steps",
    "n_test",
    "num_workers",
    "output_dir",
    "overwrite_output_dir",
    "predict_splits",
    "save_all_epochs",
    "save_steps",
    "strategy",
    "test_max_target_length",
    "use_dropout",
}
"""Flags that may change: the trained weights do not depend on them."""


def of(args: Arguments) -> RunFolder:
    """The folder that ``--output_dir`` names."""
    return RunFolder(
        Path(args.output_dir or ""),
        settings={name: value for name, value in vars(args).items() if name not in _FREE},
        finished=HISTORY,
        leftovers=(RESUME, "loss.png", "metrics.json", "runs", BEST, EPOCHS),
        overwrite=args.overwrite_output_dir,
        checkpoints=_checkpoints,
        older=_fault,
    )


def _checkpoints(folder: Path) -> list[Path]:
    """Where an unfinished run goes on."""
    return [folder / RESUME] if (folder / RESUME).is_file() else []


def _fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint that has no manifest."""
    # PyTorch's format has its table at its end.
    return None if zipfile.is_zipfile(checkpoint) else "is damaged"
