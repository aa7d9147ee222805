"""What a run says about itself: how much is trained, and a picture of the loss."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prefix_tuning.prefix import Prefix


def n_parameters(module: nn.Module, trainable_only: bool = False) -> int:
    """Number of parameters, tied ones counted once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)


def peak_memory() -> int:
    """Bytes of memory this process has held at most: of the GPU if it uses one, else resident."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def parameter_lines(base: nn.Module, prefix: Prefix | None) -> list[str]:
    """One line each: what is trained, and what is stored for inference, beside the base model."""
    total, trained = n_parameters(base), n_parameters(base, trainable_only=True)
    lines = [f"base model            {total:>15,} parameters{'' if trained else ', frozen'}"]
    if prefix is not None:
        trained += n_parameters(prefix, trainable_only=True)
    lines.append(f"trained parameters    {trained:>15,} ({trained / total:.2%} of the base model)")
    if prefix is not None and not prefix.reads_source:
        stored = len(prefix.sites) * prefix.length * prefix.shape.features
        lines.append(
            f"stored parameters     {stored:>15,} ({stored / total:.2%} of the base model, "
            f"{4 * stored / 1e6:.2f} MB in fp32)"
        )
    return lines


def draw_loss(history: Sequence[dict[str, Any]], path: Path, score: str | None = None) -> bool:
    """Draw training and evaluation loss over steps; return whether there was anything to draw.

    Args:
        history: a Trainer's ``log_history``.
        score: a metric of the evaluation to draw as well, with an axis of its own.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
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
