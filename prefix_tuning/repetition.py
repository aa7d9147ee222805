"""Texts in which no n-gram comes twice (Paulus et al. 2018): the tokens that would repeat one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor


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
    """Overwrite ``logits [N, V]`` with -inf at the tokens that each of the rows must not get.

    Tokens of a prompt that the head does not know are never generated anyway.
    """
    n_known = logits.shape[1]
    at = [(row, token) for row, tokens in enumerate(banned) for token in tokens if token < n_known]
    if at:
        rows, tokens = torch.tensor(at, device=logits.device).T
        logits[rows, tokens] = -torch.inf


class NoRepeats(LogitsProcessor):
    """The rule for ``generate``, whose own one would count padding, and prompts always.

    Args:
        before: per prompt the tokens that count besides those of its output.
        width: tokens of the prompts in ``input_ids``, padding included.
    """

    def __init__(self, before: Sequence[list[int]], width: int, size: int) -> None:
        self.before, self.width, self.size = before, width, size

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        n_beam, scores = len(scores) // len(self.before), scores.clone()
        outputs = enumerate(input_ids[:, self.width :].tolist())
        texts = ([*self.before[i // n_beam], *output] for i, output in outputs)
        forbid(scores, [repeating(text, self.size) for text in texts])
        return scores
