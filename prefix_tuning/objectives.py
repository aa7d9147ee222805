"""The losses: negative log-likelihood of target tokens, and the five ways to add it up.

The language-model head is the most expensive matrix of a small model, and only target positions
need it: hidden states are selected before the head, which gives the same numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from transformers import PreTrainedModel

from prefix_tuning.attention import has_plain_head, run
from prefix_tuning.key_values import Front

IGNORE = -100
"""Label of a position that has no loss."""

OBJECTIVE_MODES = range(5)


def scatter_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Token losses where they belong.

    Args:
        logits: ``[N, V]``, one row per target in row-major order of ``labels[:, 1:]``.
        labels: ``[B, T]`` int64, :data:`IGNORE` where there is no loss.

    Returns:
        fp32 ``[B, T - 1]``: the loss (nats) of predicting ``labels[:, t + 1]``, 0 where ignored.
    """
    shifted = labels[:, 1:]
    is_target = shifted != IGNORE
    losses = cross_entropy(logits.float(), shifted[is_target], reduction="none")
    return losses.new_zeros(shifted.shape).masked_scatter(is_target, losses)


def target_logits(
    model: PreTrainedModel, prefix: Front, inputs: dict[str, Any], is_target: Tensor
) -> Tensor:
    """Logits at the positions that have a loss, with the head on these alone.

    Models that change their logits after the head (soft caps, scales, biases) run it everywhere.

    Args:
        model: after ``enable_prefix``.
        inputs: keyword arguments of its ``forward``.
        is_target: bool ``[B, T]``, T being the (decoder's) tokens.

    Returns:
        ``[N, V]``, in row-major order of ``is_target``.
    """
    if not has_plain_head(model):
        return run(model, prefix, inputs).logits[is_target]
    body = run(model, prefix, inputs, model.base_model)
    return model.get_output_embeddings()(body.last_hidden_state[is_target])


def target_nll(
    model: PreTrainedModel,
    prefix: Front,
    input_ids: Tensor,
    labels: Tensor,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """Token losses ``[B, T - 1]`` of :func:`scatter_nll`, with the head on targets only."""
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    before_target = pad(labels[:, 1:] != IGNORE, (0, 1), value=False)
    return scatter_nll(target_logits(model, prefix, inputs, before_target), labels)


def objective(mode: int, nll: Tensor, labels: Tensor, input_ids: Tensor, end_id: int) -> Tensor:
    """Add token losses up as objective mode ``mode`` of the original does.

    ====  =====================================================  =========================
    mode  value                                                  returned
    ====  =====================================================  =========================
    0     sum over batch / number of targets in the batch        scalar
    1     sum over the sentence (the original's default)         ``[B]``
    2     sum / (T - 1), source and padding counted              ``[B]``
    3     sum / most targets of any sentence of the batch        ``[B]``
    4     sum / number of input ids that are not ``end_id``      ``[B]``
    ====  =====================================================  =========================

    Mode 4 counts padding, as the original does. The trainer takes the mean of what is returned.
    """
    n_target = (labels[:, 1:] != IGNORE).sum(dim=1)
    if mode == 0:
        return nll.sum() / n_target.sum()
    divisor: Tensor | int
    if mode == 1:
        divisor = 1
    elif mode == 2:
        divisor = nll.shape[1]
    elif mode == 3:
        divisor = n_target.max()
    elif mode == 4:
        divisor = (input_ids != end_id).sum(dim=1)
    else:
        raise ValueError(f"objective mode {mode}: use one of {[*OBJECTIVE_MODES]}")
    return nll.sum(dim=1) / torch.as_tensor(divisor, device=nll.device)
