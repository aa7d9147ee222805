"""What a run's numbers depend on: flags that must not change when it goes on, and data files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.identity import settings_of
from harness.only import unread
from ptuning_v2.arguments import Arguments
from ptuning_v2.only import ONLY

FREE = {
    *("use_fast_tokenizer", "cache_dir", "config_name", "tokenizer_name", "use_auth_token"),
    *("data_dir", "max_predict_samples", "predict_split", "overwrite_cache"),
    *("dataset_config_name", "train_file", "validation_file", "test_file"),
    "cuda_graphs",
}
"""The flags that may change when a run goes on, besides those of Trainer."""


def settings(args: Arguments) -> dict[str, Any]:
    """What must not change when a run goes on, as JSON values: every flag but the free ones."""
    parts = (args.model_args, args.data_args, args.training_args, args.qa_args)
    free = FREE | unread(ONLY, *parts)
    found = [settings_of(part, free) for part in parts]
    merged = {name: value for part in found for name, value in part.items()}
    return {**merged, "world_size": args.training_args.world_size}


def data_files(args: Arguments) -> dict[str, Path | None]:
    """The data set's files below ``--data_dir``, by name: their content must not change either.

    A folder of the data set's own name, as the official archives have it, is looked into alone.
    """
    if args.data_args.is_own:
        named = {k: Path(v) for k, v in args.data_args.files.items() if k != "test_file"}
        return {k: v for name, path in named.items() for k, v in _content(name, path).items()}
    if args.data_args.data_dir is None:
        return {"data_dir": None}
    folder = Path(args.data_args.data_dir)
    wanted = args.data_args.dataset_name.replace("_", "")
    own = [p for p in folder.iterdir() if p.is_dir() and _plain(p.name) == wanted]
    files = [p for base in own or [folder] for p in base.rglob("*") if p.is_file()]
    files += [p for p in folder.iterdir() if own and p.is_file()]
    return {f"data_dir/{p.relative_to(folder).as_posix()}": p for p in sorted(files)}


def _content(name: str, path: Path) -> dict[str, Path | None]:
    """A file, or the files of a folder, by name; a data set of the hub has no files here."""
    if not path.is_dir():
        return {name: path if path.is_file() else None}
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return {f"{name}/{p.relative_to(path).as_posix()}": p for p in files}


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
