"""What a run says about itself: how much is trained, and a picture of the loss."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from prefix_tuning.files import write_json
from prefix_tuning.prefix import Prefix

SIZES = "sizes.json"
"""File of a run folder: its numbers of parameters."""


def n_parameters(module: nn.Module, trainable_only: bool = False) -> int:
    """Number of parameters, tied ones counted once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)


def peak_memories() -> dict[str, int]:
    """Bytes this process has held at most: ``process`` (resident) and, if it uses one, ``gpu``."""
    if sys.platform == "win32":
        peak = psutil.Process().memory_info().peak_wset
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak *= 1 if sys.platform == "darwin" else 1024
    memories = {"process": peak}
    if torch.cuda.is_initialized():
        memories["gpu"] = torch.cuda.max_memory_allocated()
    return memories


def peak_memory() -> int:
    """The one of :func:`peak_memories` that limits a run: of the GPU if it uses one."""
    memories = peak_memories()
    return memories.get("gpu", memories["process"])


@dataclass(frozen=True)
class Sizes:
    """Numbers of parameters: what is frozen, what is trained, what is stored."""

    base: int
    """Of the base model."""
    trained: int
    """Of base model and prefix (and head) together."""
    is_frozen: bool
    """Whether nothing of the base model is trained."""
    stored: int | None = None
    """Keys and values that are kept for inference; None where they depend on the source."""
    prompts: int | None = None
    """Those of ``trained`` that are not a head."""

    def lines(self) -> list[str]:
        """One line each."""
        frozen = ", frozen" if self.is_frozen else ""
        lines = [
            f"base model            {self.base:>15,} parameters{frozen}",
            f"trained parameters    {self.trained:>15,} ({self._share(self.trained)})",
        ]
        if self.prompts is not None:
            lines.append(f"  of them prompts     {self.prompts:>15,}, the rest is the head")
        if self.stored is not None:
            lines.append(
                f"stored parameters     {self.stored:>15,} ({self._share(self.stored)}, "
                f"{4 * self.stored / 1e6:.2f} MB in fp32)"
            )
        return lines

    def _share(self, count: int) -> str:
        return f"{count / self.base:.2%} of the base model"

    def write(self, folder: Path) -> None:
        """Keep ``base``, ``trained`` and, if there are such, ``stored`` in :data:`SIZES`."""
        counts = {"base": self.base, "trained": self.trained, "stored": self.stored}
        write_json(folder / SIZES, {k: v for k, v in counts.items() if v is not None})


def sizes(base: nn.Module, prefix: Prefix | None) -> Sizes:
    """How much is trained and stored of a base model with a prefix, or of a baseline."""
    trained, stored = n_parameters(base, trainable_only=True), None
    is_frozen = trained == 0
    if prefix is not None:
        trained += n_parameters(prefix, trainable_only=True)
        if not prefix.reads_source:
            stored = len(prefix.sites) * prefix.length * prefix.shape.features
    return Sizes(n_parameters(base), trained, is_frozen, stored)


def draw_loss(history: Sequence[dict[str, Any]], path: Path, score: str | None = None) -> bool:
    """Draw training and evaluation loss over steps; return whether there was anything to draw.

    Args:
        history: a Trainer's ``log_history``.
        score: a metric of the evaluation to draw as well, with an axis of its own.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Margins by hand: a layout that looks for them draws the picture twice.
    margins = {"left": 0.14, "right": 0.88 if score else 0.97, "bottom": 0.15, "top": 0.96}
    figure, axes = pyplot.subplots(figsize=(6, 3.5), gridspec_kw=margins)
    lines = []
    right = axes.twinx() if score else axes
    for plot, key, label, color in (
        (axes, "loss", "training loss", "C0"),
        (axes, "eval_loss", "evaluation loss", "C1"),
        (right, f"eval_{score}", f"evaluation {score}", "C2"),
    ):
        points = [(log["step"], log[key]) for log in history if key in log]
        if points:
            lines += plot.plot(*zip(*points, strict=True), marker=".", label=label, color=color)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats)")
    if score:
        right.set_ylabel(score)
    right.legend(handles=lines)
    drawn = bool(lines)
    if drawn:
        figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return drawn
