"""What is in a folder: a prefix of some kind, what a system says it is, a whole model, nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefix_tuning import checkpoint

PREFIXES = ("checkpoint", "export", "original")
"""The kinds of folder that hold a prefix; see :mod:`prefix_tuning.checkpoint`."""


@dataclass(frozen=True)
class Trained:
    """What a folder holds.

    Attributes:
        folder: looked into.
        kind: one of :data:`PREFIXES`; a kind that a system knows; ``model``, all the weights of a
            model; or ``nothing``.
        needs_base: whether it is a part, which works inside or in front of a base model.
        metadata: what it says of itself (JSON values).
    """

    folder: Path
    kind: str
    needs_base: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def is_prefix(self) -> bool:
        """Whether it stands in front of a base model."""
        return self.kind in PREFIXES

    @property
    def base_model(self) -> str | None:
        """The name of the base model it was trained on, where that was recorded."""
        name = (self.metadata.get("base_model") or {}).get("name_or_path")
        return name or None

    @property
    def dtype(self) -> str | None:
        """The precision of the base model it was trained on, where that was recorded."""
        return (self.metadata.get("base_model") or {}).get("dtype")

    @property
    def task(self) -> dict[str, Any]:
        """The task's own part of the metadata."""
        return self.metadata.get("task") or {}


Detector = Callable[[Path], Trained | None]
"""Recognises the folders of one system; None for any other."""


def describe(folder: Path, *detectors: Detector) -> Trained:
    """Look into a folder.

    Args:
        detectors: of the system that asks, for kinds of folder that only it knows.

    Raises:
        UserError: a file that says what the folder is cannot be read.
    """
    for detect in detectors:
        found = detect(folder)
        if found is not None:
            return found
    if checkpoint.is_prefix_folder(folder):
        meta = checkpoint.read_metadata(folder)
        kind = "original" if meta.get("original") else "checkpoint"
        if checkpoint.is_export(folder):
            kind = "export"
        return Trained(folder, kind, needs_base=True, metadata=meta)
    if (folder / "config.json").is_file():
        return Trained(folder, "model")
    return Trained(folder, "nothing")


def note_task(folder: Path | str, trained_for: str | None, asked: str) -> None:
    """Say so where a folder is decoded as another task than it was trained for."""
    if trained_for not in (None, asked):
        print(
            f"note: {folder} was trained for {trained_for}, and is decoded as {asked}", flush=True
        )
