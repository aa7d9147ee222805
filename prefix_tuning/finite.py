"""Logits that are not finite predict nothing, though argmax, topk and sampling choose something."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from prefix_tuning.errors import NOT_FINITE, UserError


def usable_rows(logits: Tensor) -> Tensor:
    """Which rows of ``logits [B, V]`` have a choice in them, bool ``[B]``.

    A token that is forbidden has -inf; nan and inf are the model's.
    """
    return (logits < torch.inf).all(dim=1)


def check_logits(logits: Tensor) -> None:
    """Refuse a batch of logits, or of scores made of them, ``[B, V]``.

    Raises:
        UserError: a row has nan or inf in it.
    """
    usable = usable_rows(logits)
    if not usable.all():
        n_bad = len(usable) - int(usable.sum())
        raise UserError(f"the logits of {n_bad} of {len(usable)} rows are {NOT_FINITE}")


class FiniteLogits(LogitsProcessor):
    """:func:`check_logits` for every step of ``generate``."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        check_logits(scores)
        return scores


def finite_logits() -> LogitsProcessorList:
    """What ``generate`` takes as ``logits_processor``."""
    return LogitsProcessorList([FiniteLogits()])
