"""The losses: negative log-likelihood of target tokens, and the five ways to add it up.

The language-model head is the most expensive matrix of a small model, and only target positions
need it: hidden states are selected before the head, which gives the same numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from prefix_tuning.attention import KeyValues, prefixed_inputs

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


def target_nll(
    model: PreTrainedModel,
    prefix: KeyValues,
    input_ids: Tensor,
    labels: Tensor,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """Token losses ``[B, T - 1]`` of :func:`scatter_nll`, with the head on targets only.

    ``model`` has been through ``enable_prefix``. Models that change their logits after the head
    (soft caps, scales) run it on every position.
    """
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    is_target = labels[:, 1:] != IGNORE
    if model._has_plain_head:
        body = model.base_model(**prefixed_inputs(model, prefix, inputs))
        logits = model.get_output_embeddings()(body.last_hidden_state[:, :-1][is_target])
    else:
        logits = model(prefix=prefix, **inputs).logits[:, :-1][is_target]
    return scatter_nll(logits, labels)


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
