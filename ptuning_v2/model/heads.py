"""What stands on the encoder: one head for each kind of task, and its loss."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PretrainedConfig
from transformers.activations import ACT2FN

from prefix_tuning.objectives import IGNORE
from ptuning_v2.model.prefix_encoder import init_weights


class TaskType(Enum):
    """The kinds of task, by what the head says something about."""

    TOKEN_CLASSIFICATION = "token"
    SEQUENCE_CLASSIFICATION = "sequence"
    QUESTION_ANSWERING = "qa"
    MULTIPLE_CHOICE = "choice"

    @property
    def pools(self) -> bool:
        """Whether the head reads one vector of a text instead of one for each token."""
        return self in (TaskType.SEQUENCE_CLASSIFICATION, TaskType.MULTIPLE_CHOICE)


class ContextPooler(torch.nn.Module):
    """The trained pooler of families whose encoder has none: first token, dense, activation."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(getattr(config, "pooler_dropout", 0.0))
        self.dense = torch.nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[getattr(config, "pooler_hidden_act", "gelu")]
        self.apply(init_weights)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[B, T, D]`` -> ``[B, D]``."""
        return self.activation(self.dense(self.dropout(hidden[:, 0])))


def head_dropout(config: PretrainedConfig) -> float:
    """Dropout in front of the classifier."""
    of_deberta = getattr(config, "cls_dropout", None)
    return config.hidden_dropout_prob if of_deberta is None else of_deberta


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of one or several labels for each text.

    Args:
        logits: ``[B, C]``.
        labels: scores ``[B]`` if ``C`` is 1 (squared error), classes ``[B]`` int64 with negative
            numbers for unknown (cross-entropy), or ``[B, C]`` float for independent labels.
    """
    if logits.shape[1] == 1:
        return functional.mse_loss(logits.view(-1), labels.view(-1).to(logits.dtype))
    if labels.is_floating_point():
        return functional.binary_cross_entropy_with_logits(logits, labels)
    labels = labels.view(-1)
    known = labels >= 0  # perhaps none, which a GPU need not be asked
    total = functional.cross_entropy(
        logits, labels.where(known, IGNORE), ignore_index=IGNORE, reduction="sum"
    )
    return total / known.sum().clamp(min=1)


def token_loss(logits: Tensor, labels: Tensor, attention_mask: Tensor) -> Tensor:
    """Cross-entropy over the real tokens with a label.

    Args:
        logits: ``[B, T, C]``.
        labels: ``[B, T]`` int64, -100 where there is none.
        attention_mask: ``[B, T]``.
    """
    targets = labels.masked_fill(attention_mask == 0, IGNORE)
    logits = logits.flatten(0, 1)  # [B, T, C] -> [B * T, C]
    return functional.cross_entropy(logits, targets.view(-1), ignore_index=IGNORE)


def span_loss(start_logits: Tensor, end_logits: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Mean of the cross-entropies of the two ends of an answer.

    Padding competes in the softmax, as in the original; positions behind the text are ignored.

    Args:
        start_logits, end_logits: ``[B, T]``.
        start, end: ``[B]`` int64.
    """
    width = start_logits.shape[1]
    ends = zip((start_logits, end_logits), (start, end), strict=True)
    losses = [
        functional.cross_entropy(logits, at.view(-1).clamp(0, width), ignore_index=width)
        for logits, at in ends
    ]
    return (losses[0] + losses[1]) / 2
