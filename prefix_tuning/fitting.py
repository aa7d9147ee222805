"""Fitting the MLPs of a prefix to keys and values that it shall start from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from tqdm import tqdm

from prefix_tuning.prefix import Prefix


def bar(steps: range) -> Iterable[int]:
    """``steps``, with a bar on a terminal."""
    return tqdm(steps, "fitting the prefix", leave=False, disable=None)


def fit(
    prefix: Prefix,
    slots: Mapping[str, Tensor],
    steps: int = 500,
    learning_rate: float = 1e-4,
    train_embedding: bool = False,
    progress: Callable[[range], Iterable[int]] = bar,
) -> list[float]:
    """Train the MLPs of ``prefix`` until it generates ``slots``.

    Adam on the mean squared error, summed over sites. The defaults are the original's for GPT-2;
    for BART it is 200 steps at 3e-5 with the embeddings.

    Args:
        slots: per site ``[P, 2LHd]``.
        train_embedding: train ``wte`` too.
        progress: what shows the steps on their way.

    Returns:
        the loss before every step.
    """
    names = ("control_trans", "wte") if train_embedding else ("control_trans",)
    parameters = [p for name, p in prefix.named_parameters() if name.startswith(names)]
    # Fused: half the time on a CPU, where the MLP of GPT-2 medium takes minutes.
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    losses = []
    for _ in progress(range(steps)):
        errors = [mse_loss(prefix.slots(site), slots[site]) for site in prefix.sites]
        loss = torch.stack(errors).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    prefix.zero_grad()
    return losses
