"""Checkpoints that are complete or not: a manifest, written last, says what belongs to one.

A checkpoint is a folder, with ``manifest.json`` inside, or a single file, with
``<name>.manifest.json`` beside it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, usual_mode, write_json

MANIFEST = "manifest.json"
SET_ASIDE = "set-aside-"
"""How the names of checkpoints begin that cannot be used."""


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content(path: Path) -> str:
    """A digest of a file, or of all files of a folder and their names."""
    if not path.is_dir():
        return digest(path)
    files = [p for p in sorted(path.rglob("*")) if p.is_file()]
    names = [f"{p.relative_to(path).as_posix()} {digest(p)}\n" for p in files]
    return hashlib.sha256("".join(names).encode()).hexdigest()


def manifest_of(checkpoint: Path) -> Path:
    """Where the manifest of a checkpoint is, or would be."""
    if checkpoint.is_dir():
        return checkpoint / MANIFEST
    return checkpoint.with_name(f"{checkpoint.name}.{MANIFEST}")


def _files(checkpoint: Path) -> Iterator[tuple[str, Path]]:
    if checkpoint.is_dir():
        for path in sorted(checkpoint.rglob("*")):
            if path.is_file() and path != checkpoint / MANIFEST:
                yield path.relative_to(checkpoint).as_posix(), path
    else:
        yield checkpoint.name, checkpoint


def seal(checkpoint: Path, run: str, step: int) -> None:
    """Bring a checkpoint to the disk, then its manifest.

    Args:
        run: the identity of the run that wrote it.
        step: of the optimiser.
    """
    files = {}
    for name, path in _files(checkpoint):
        path.chmod(usual_mode())
        _sync(path)
        files[name] = {"size": path.stat().st_size, "sha256": digest(path)}
    for folder in {path.parent for _, path in _files(checkpoint)}:
        _sync(folder)
    path = manifest_of(checkpoint)
    write_json(path, {"run": run, "step": step, "files": files})
    _sync(path.parent)


def _sync(path: Path) -> None:
    if os.name == "nt":  # has no such call for what is open to be read, nor for folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fault(checkpoint: Path, run: str | None = None) -> str | None:
    """What is wrong with a checkpoint that has a manifest, as "is damaged"; None if nothing.

    Args:
        run: the identity of the run that it must be of, if any.
    """
    manifest = manifest_of(checkpoint)
    if not manifest.is_file():
        return f"lacks {manifest.name}, so it was not written to its end"
    try:
        content = read_json_object(manifest)
        files = {str(n): (int(f["size"]), str(f["sha256"])) for n, f in content["files"].items()}
        owner = content["run"]
    except (UserError, AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return f"is damaged ({manifest.name})"
    if not files:
        return f"is damaged ({manifest.name})"
    root = checkpoint if checkpoint.is_dir() else checkpoint.parent
    for name, (size, sha256) in files.items():
        path = root / name
        if not path.is_file():
            return f"lacks {name}"
        if path.stat().st_size != size or digest(path) != sha256:
            return "is damaged" if path == checkpoint else f"is damaged ({name})"
    if run is not None and owner != run:
        return "is of another run"
    return None


def set_aside(checkpoint: Path) -> Path:
    """Rename a checkpoint, and its manifest with it; return where it is now."""
    taken = {path.name for path in checkpoint.parent.glob(f"{SET_ASIDE}*")}
    names = (f"{SET_ASIDE}{n}{checkpoint.name}" for n in ("", *(f"{i}-" for i in range(2, 10000))))
    target = checkpoint.with_name(next(name for name in names if name not in taken))
    manifest = manifest_of(checkpoint)
    is_file = not checkpoint.is_dir()
    if checkpoint.exists():
        os.replace(checkpoint, target)
    if is_file and manifest.is_file():
        os.replace(manifest, manifest_of(target))
    return target
