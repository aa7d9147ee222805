"""What stands in the folder of a run, and which flags and files its weights depend on."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness import manifest
from harness.folder import SETTINGS, RunFolder
from harness.only import unread
from harness.stop import Diverged
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, write_json
from seq2seq.arguments import Arguments
from seq2seq.data import split_file
from seq2seq.only import ONLY

HISTORY = "log_history.json"
"""Written last: where it is, the run is finished."""
RESUME = "last.ckpt"
"""Lightning's checkpoint: trained parameters, optimiser, schedule, position in the data."""
NEXT = "next.ckpt"
"""The same while it is written, beside the one that it is to replace."""
BEST = "checkpoint-curr_best"
HELD_OUT = "held_out.jsonl"
"""What a run validates on and does not train on, where its data are one file."""
EPOCHS = "checkpointepoch=*.ckpt"

_FREE = {
    *("accelerator", "cache_dir", "decode_batch_size", "do_predict", "do_train", "fp16_opt_level"),
    *("logger_name", "logging_steps", "n_test", "num_workers", "output_dir"),
    *("overwrite_output_dir", "overwrite_results", "predict_splits", "save_all_epochs"),
    *("save_steps", "strategy", "test_max_target_length", "use_dropout"),
}
"""Flags that may change: the trained weights do not depend on them."""


def of(args: Arguments) -> RunFolder:
    """The folder that ``--output_dir`` names."""
    ours = (RESUME, NEXT, f"{NEXT}.tmp", "*.manifest.json", "loss.png", "metrics.json", "runs")
    data, free = _data(args), _FREE | unread(ONLY, args)
    if any(name.startswith("data_dir/") for name in data):
        free = free | {"data_dir"}  # its files decide, wherever they are
    return RunFolder(
        Path(args.output_dir or ""),
        settings={name: value for name, value in vars(args).items() if name not in free},
        finished=HISTORY,
        leftovers=(*ours, HELD_OUT, BEST, EPOCHS),
        overwrite=args.overwrite_output_dir,
        checkpoints=_checkpoints,
        older=_older_fault,
        data=data,
    )


def as_begun(args: Arguments) -> Arguments:
    """The flags; a run of a version that held nothing out of one file goes on so."""
    folder = of(args)
    if args.overwrite_output_dir or not (folder.path / SETTINGS).is_file():
        return args
    held_nothing_out = "eval_fraction" not in folder.recorded() and Path(args.data_dir).is_file()
    return replace(args, eval_fraction=0.0) if held_nothing_out else args


def _data(args: Arguments) -> dict[str, Path | None]:
    """The files that decide what is trained, by flag."""
    found: dict[str, Path | None] = {}
    for split in ("train", "val"):
        try:
            path = split_file(args.data_dir, split)
        except UserError:  # said where it is read; a finished run needs it no more
            continue
        if path is not None:
            found[f"data_dir/{path.name}"] = path
            if path.suffix == ".source":
                target = path.with_suffix(".target")
                found[f"data_dir/{target.name}"] = target
    if args.prefixModel_name_or_path:
        weights = Path(args.prefixModel_name_or_path) / "model.safetensors"
        found["prefixModel_name_or_path"] = weights if weights.is_file() else None
    return found


def _checkpoints(folder: Path) -> list[Path]:
    """Where an unfinished run goes on, the newest first."""
    last, newer = folder / RESUME, folder / NEXT
    # Its manifest alone says that there was one.
    found = [last] if last.exists() or manifest.manifest_of(last).is_file() else []
    # Killed before the newer one had taken the place of the older: it is complete or ignored.
    if newer.is_file() and manifest.manifest_of(newer).is_file():
        found.insert(0, newer)
    return found


def _older_fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint of a version that wrote no manifests."""
    # PyTorch's format has its table at its end.
    return None if zipfile.is_zipfile(checkpoint) else "is damaged"


def next_checkpoint(folder: Path) -> Path:
    """Where the next checkpoint is to be written; :func:`keep` makes it the one to resume from."""
    manifest.manifest_of(folder / NEXT).unlink(missing_ok=True)
    return folder / f"{NEXT}.tmp"


def keep(written: Path, run: str, step: int) -> None:
    """A checkpoint takes the place of the older one, of which both are there until then.

    Args:
        written: at :func:`next_checkpoint`.
        run: the identity of the run.
        step: of the optimiser.
    """
    newer = written.with_name(NEXT)
    os.replace(written, newer)
    manifest.seal(newer, run, step)
    last = written.with_name(RESUME)
    content = read_json_object(manifest.manifest_of(newer))
    content["files"] = {RESUME: content["files"][NEXT]}
    write_json(manifest.manifest_of(last), content)
    # Until the next line the older one does not fit its manifest; the newer one is complete.
    os.replace(newer, last)
    manifest.manifest_of(newer).unlink()


def whole(folder: Path, save: Callable[[Path], object]) -> None:
    """Write a folder that takes the place of an older one when it is complete."""
    temporary, old = (folder.with_name(folder.name + end) for end in (".tmp", ".old"))
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save(temporary)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def diverged(args: Arguments, what: str) -> Diverged:
    """The error of a run of which something is not a finite number."""
    kept = _checkpoints(Path(args.output_dir or ""))
    return Diverged.because(what, kept[0] if kept else None)
