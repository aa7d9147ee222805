"""Texts in which no n-gram comes twice (Paulus et al. 2018): the tokens that would repeat one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def repeating(tokens: list[int], size: int) -> list[int]:
    """The next tokens that would complete an n-gram which ``tokens`` have already.

    They are those that ``no_repeat_ngram_size`` of transformers forbids.

    Args:
        size: tokens of an n-gram, at least 1.
    """
    n_known = size - 1
    last = tokens[len(tokens) - n_known :] if n_known <= len(tokens) else None
    ends = range(n_known, len(tokens))
    return [tokens[end] for end in ends if tokens[end - n_known : end] == last]


def forbid(logits: Tensor, banned: Sequence[Sequence[int]]) -> None:
    """Overwrite ``logits [N, V]`` with -inf at the tokens that each of the rows must not get."""
    at = [(row, token) for row, tokens in enumerate(banned) for token in tokens]
    if at:
        rows, tokens = torch.tensor(at, device=logits.device).T
        logits[rows, tokens] = -torch.inf
