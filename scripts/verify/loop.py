"""What two trajectories are compared by, and the optimiser of the plain loops."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scripts.verify.checks import Difference

Weights = dict[str, Tensor]
LOSSES, WEIGHTS = 2e-5, 1e-4
"""Bounds, relative: single precision, of which Adam makes more where a gradient is nearly 0."""


@dataclass
class Trajectory:
    """A training run: what it starts from and reads, its losses, and where it ends.

    Attributes:
        start, end: the trained parameters.
        batches: what identifies the examples of every step, in the order of their rows.
        losses: of every step.
    """

    start: Weights = field(default_factory=dict)
    batches: list[Sequence[Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    end: Weights = field(default_factory=dict)


def copied(weights: Mapping[str, Tensor]) -> Weights:
    """Parameters as they are now."""
    return {name: value.detach().clone() for name, value in weights.items()}


def by_hand(
    start: Mapping[str, Tensor],
    batches: Sequence[Any],
    loss_of: Callable[[Weights, int, Any], Tensor],
    learning_rate: float,
) -> Trajectory:
    """A plain loop: AdamW without decay, gradients clipped to norm 1, a rate that falls linearly.

    Args:
        loss_of: the loss of a batch, from the parameters, the step and the batch.
    """
    weights = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.Adam(weights.values(), betas=(0.9, 0.999), eps=1e-8)
    run = Trajectory(copied(start), list(batches))
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - step / len(batches))
        loss = loss_of(weights, step, batch)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.stack([w.grad.norm() for w in weights.values() if w.grad is not None]).norm()
        for weight in weights.values():
            if weight.grad is not None:
                weight.grad *= min(1.0, 1.0 / (norm.item() + 1e-6))
        optimizer.step()
        run.losses.append(loss.item())
    run.end = copied(weights)
    return run


def differences(found: Trajectory, expected: Trajectory) -> Iterator[Difference]:
    """The largest relative difference of any loss and of any parameter matrix at the end.

    That of a matrix is relative to its largest entry.
    """
    steps = abs(len(found.losses) - len(expected.losses))
    yield Difference("steps that are missing", steps, 0)
    pairs = zip(found.losses, expected.losses, strict=False)
    apart = max((abs(a - b) / abs(b) for a, b in pairs), default=torch.inf)
    yield Difference(f"losses of {len(expected.losses)} steps, relative", apart, LOSSES)
    if found.end.keys() != expected.end.keys():
        yield Difference("parameters of other names", torch.inf, 0)
        return
    moved = [(value - expected.start[n]).abs().max().item() for n, value in expected.end.items()]
    yield Difference("parameters that training left where they were", moved.count(0.0), 0)
    relative = [
        ((found.end[n] - value).abs().max() / value.abs().max()).item()
        for n, value in expected.end.items()
    ]
    yield Difference("weights at the end, relative", max(relative, default=torch.inf), WEIGHTS)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what a run prints from the table."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
