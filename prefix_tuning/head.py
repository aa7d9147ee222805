"""The head of a frozen language model on a CPU, a part of the vocabulary at a time.

The logits ``[N, 50257]`` of GPT-2 are 56 MB for the targets of ten texts of E2E, and a loss and its
gradient make four tensors of that size. A part of the vocabulary stays in the processor's cache.
What a row needs of it goes on to the next: its largest logit, a sum of exponentials, a gradient
(the online softmax of Milakov & Gimelshein 2018).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from prefix_tuning.attention import has_plain_head
from prefix_tuning.guard import is_watched

PART = 1024
"""Tokens of a part: its logits for some hundred rows fit into the cache of a core."""


@dataclass(frozen=True)
class Head:
    """A frozen head: ``weight [V, D]`` and perhaps ``bias [V]``."""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, model: Any) -> Head | None:
        """The head of a model after ``enable_prefix``; None where it is to be called as it is.

        So it is if it is not on a CPU, trained, quantised, shared among processes, watched by a
        hook or no plain linear layer, or if the logits are not its output alone.
        """
        head = model.get_output_embeddings() if has_plain_head(model) else None
        if type(head) is not nn.Linear or is_watched(head) or torch.compiler.is_compiling():
            return None
        weight = head.weight.data
        if type(weight) is not Tensor or weight.device.type != "cpu":
            return None
        return None if any(p.requires_grad for p in head.parameters()) else cls(weight, head.bias)

    @property
    def is_fp32(self) -> bool:
        """Whether :meth:`nll` computes in fp32, as losses of whole logits do in any case."""
        return self.weight.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")

    def parts(self, hidden: Tensor) -> Iterator[Tensor]:
        """The logits of ``hidden [N, D]``, ``[N, PART]`` at a time; the last may be smaller."""
        for start in range(0, len(self.weight), PART):
            part = slice(start, start + PART)
            bias = None if self.bias is None else self.bias[part]
            yield linear(hidden, self.weight[part], bias)

    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy (nats) ``[N]`` of hidden states, fp32 ``[N, D]``, and int64 ``[N]``."""
        return _NegativeLogLikelihood.apply(hidden, targets, self)


class _NegativeLogLikelihood(torch.autograd.Function):
    """Computes the gradient on the way: of the logits it would need, nothing is kept."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
        total, of_target = hidden.new_zeros(2, len(hidden), 1)
        largest = total - torch.inf
        mean = torch.zeros_like(hidden)  # of the rows of the weight, by probability
        for start, logits in zip(range(0, len(head.weight), PART), head.parts(hidden), strict=True):
            place = targets[:, None] - start
            inside = (place >= 0) & (place < logits.shape[1])
            found = logits.gather(1, place.clamp(0, logits.shape[1] - 1))
            of_target = torch.where(inside, found, of_target)
            before, largest = largest, torch.maximum(largest, logits.amax(1, keepdim=True))
            shrink = (before - largest).exp_()
            weights = logits.sub_(largest).exp_()
            total = total * shrink + weights.sum(1, keepdim=True)
            if ctx.needs_input_grad[0]:
                mean.mul_(shrink).addmm_(weights, head.weight[start : start + PART])
        if ctx.needs_input_grad[0]:
            # d nll / d hidden = sum_v p(v) W[v] - W[target]
            ctx.save_for_backward(mean.div_(total).sub_(head.weight[targets]))
        return (largest + total.log() - of_target).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (of_hidden,) = ctx.saved_tensors
        return grad[:, None] * of_hidden, None, None
