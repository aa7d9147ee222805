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
from prefix_tuning.head import Head
from prefix_tuning.key_values import Front

IGNORE = -100
"""Label of a position that has no loss."""

OBJECTIVE_MODES = range(5)


def target_positions(labels: Tensor, multiple: int = 1) -> Tensor:
    """Where the next token is a target: int64 ``[N]``, places in ``labels [B, T]`` read row by row.

    Their number depends on what is in ``labels``, so on a GPU this waits for it: a data collator
    is the place to call it.

    Args:
        multiple: ``N`` becomes a multiple of it, so that few shapes are met. What is added is the
            last position of all, which has no next token and therefore no loss.
    """
    at = _flat(_next(labels) != IGNORE)
    return pad(at, (0, -len(at) % multiple), value=labels.numel() - 1)


def scatter_nll(
    logits: Tensor, labels: Tensor, at: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Token losses where they belong.

    Args:
        logits: ``[N, V]``, one row for each of ``at``.
        labels: ``[B, T]`` int64, :data:`IGNORE` where there is no loss.
        at: int64 ``[N]``, :func:`target_positions` when not given.
        smoothing: ``eps`` in [0, 1) of label smoothing over the vocabulary (Szegedy et al. 2016):
            the loss is ``(1 - eps)`` times that of the target, and ``eps`` times the mean over all
            ``V`` tokens.

    Returns:
        fp32 ``[B, T - 1]``: the loss (nats) of predicting ``labels[:, t + 1]``, 0 where ignored.
    """
    at = target_positions(labels) if at is None else at
    targets = _next(labels).flatten().index_select(0, at)
    losses = cross_entropy(
        logits.float(),
        targets,
        reduction="none",
        ignore_index=IGNORE,
        label_smoothing=smoothing,
    )
    return _scatter(losses, labels, at)


def target_logits(
    model: PreTrainedModel, prefix: Front, inputs: dict[str, Any], at: Tensor
) -> Tensor:
    """Logits at the positions that have a loss, with the head on these alone.

    Models that change their logits after the head (soft caps, scales, biases) run it everywhere.

    Args:
        model: after ``enable_prefix``.
        inputs: keyword arguments of its ``forward``.
        at: int64 ``[N]``, as :func:`target_positions`, or bool ``[B, T]``, T being the (decoder's)
            tokens. How many are true is not known before a GPU has computed it.

    Returns:
        ``[N, V]``, in the order of ``at``.
    """
    at = _flat(at) if at.dtype is torch.bool else at
    if not has_plain_head(model):
        logits = run(model, prefix, inputs).logits
        return logits.flatten(0, 1).index_select(0, at)  # [B, T, V] -> [N, V]
    return model.get_output_embeddings()(_hidden(model, prefix, inputs, at))


def target_nll(
    model: PreTrainedModel,
    prefix: Front,
    input_ids: Tensor,
    labels: Tensor,
    attention_mask: Tensor | None = None,
    at: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Token losses ``[B, T - 1]`` of :func:`scatter_nll`, with the head on targets only.

    With ``at`` no shape depends on what the tensors hold.
    """
    if attention_mask is None:
        # Without one transformers looks at ids and positions, and the host waits for their GPU.
        attention_mask = torch.ones_like(input_ids)
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    at = target_positions(labels) if at is None else at
    head = Head.of(model)
    if head is None or smoothing or not head.is_fp32:
        return scatter_nll(target_logits(model, prefix, inputs, at), labels, at, smoothing)
    hidden = _hidden(model, prefix, inputs, at)
    targets = _next(labels).flatten().index_select(0, at)
    losses = head.nll(hidden, targets.clamp(min=0)).masked_fill(targets == IGNORE, 0.0)
    return _scatter(losses, labels, at)


def _hidden(model: PreTrainedModel, prefix: Front, inputs: dict[str, Any], at: Tensor) -> Tensor:
    hidden = run(model, prefix, inputs, model.base_model).last_hidden_state
    return hidden.flatten(0, 1).index_select(0, at)  # [B, T, D] -> [N, D]


def _next(labels: Tensor) -> Tensor:
    return pad(labels[:, 1:], (0, 1), value=IGNORE)


def _scatter(losses: Tensor, labels: Tensor, at: Tensor) -> Tensor:
    everywhere = losses.new_zeros(labels.numel()).index_add(0, at, losses)
    return everywhere.view_as(labels)[:, :-1]  # [B * T] -> [B, T - 1]


def _flat(is_target: Tensor) -> Tensor:
    return is_target.flatten().nonzero().squeeze(1)


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
    sums = nll.sum() if mode == 0 else nll.sum(dim=1)
    return sums / divisor(mode, labels, input_ids, end_id)


def divisor(mode: int, labels: Tensor, input_ids: Tensor, end_id: int) -> Tensor | int:
    """What :func:`objective` divides sums of token losses by: one number, or ``[B]``."""
    n_target = (labels[:, 1:] != IGNORE).sum(dim=1)
    if mode == 0:
        return n_target.sum()
    if mode == 1:
        return 1
    if mode == 2:
        return labels.shape[1] - 1  # a number is no tensor, which would be copied to a GPU
    if mode == 3:
        return n_target.max()
    if mode == 4:
        return (input_ids != end_id).sum(dim=1)
    raise ValueError(f"objective mode {mode}: use one of {[*OBJECTIVE_MODES]}")
