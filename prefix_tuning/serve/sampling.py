"""Drawing the next token so that a row's text does not depend on the rows beside it."""

from __future__ import annotations

import torch
from torch import Tensor


def draw(logits: Tensor, uniform: Tensor, temperature: Tensor, top_p: Tensor) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution.

    One number between 0 and 1 decides the token, so a generator of its own for every row gives the
    same text in any batch and on any device.

    Args:
        logits: ``[B, V]``.
        uniform: fp64 ``[B]`` in [0, 1).
        temperature: fp64 ``[B]``, what logits are divided by; more than 0.
        top_p: fp64 ``[B]`` in (0, 1]: only the most probable tokens that together have at least
            this probability may be drawn (Holtzman et al. 2020).

    Returns:
        int64 ``[B]``.
    """
    probabilities = (logits.double() / temperature[:, None]).softmax(dim=1)
    if bool((top_p < 1).any()):
        ranked, order = probabilities.sort(dim=1, descending=True)
        before = ranked.cumsum(dim=1) - ranked
        dropped = torch.zeros_like(ranked, dtype=torch.bool)
        dropped.scatter_(1, order, before >= top_p[:, None])
        probabilities = probabilities.masked_fill(dropped, 0.0)
    cumulative = probabilities.cumsum(dim=1)
    target = uniform[:, None] * cumulative[:, -1:]
    # The first token whose cumulative probability exceeds the target, never one of probability 0.
    return torch.searchsorted(cumulative, target, right=True).clamp(max=logits.shape[1] - 1)[:, 0]
