"""A prefix for DeBERTa, versions 1 to 3, whose attention bypasses ``AttentionInterface``.

The disentangled attention of He et al. (2021) adds terms for the relative position of query and
key to the scores. A prefix slot has no position: P-tuning v2 gives it the content term alone, at
the common scale ``sqrt(d * (1 + number of position terms))``, and lets padding attend to nothing.

The encoder hands its mask to every layer untouched, so the mask is what the prefix travels with
(:class:`_PrefixedMask`), also into a layer that is recomputed during backward. Between the model's
``forward`` and its encoder there is no such argument; a context variable bridges that gap, and
every thread has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.deberta import modeling_deberta as v1
from transformers.models.deberta_v2 import modeling_deberta_v2 as v2

from prefix_tuning.doors import Door
from prefix_tuning.errors import UserError
from prefix_tuning.key_values import Front

_current: ContextVar[Front | None] = ContextVar("front of this forward call", default=None)


@dataclass(frozen=True)
class _PrefixedMask:
    """What the layers get for a mask: which tokens see which ``[B, 1, T, T]``, and the front."""

    tokens: Tensor
    front: Front


class DisentangledDoor(Door):
    """The door of DeBERTa, versions 1 to 3."""

    def open(self, model: PreTrainedModel, backend: str) -> None:
        """Let every encoder and attention in ``model`` take a front.

        Raises:
            UserError: the attention mixes its heads, which no released DeBERTa does.
        """
        layer_idx = 0
        for module in model.modules():
            if getattr(module, "talking_head", False):
                name = type(model).__name__
                raise UserError(f"{name} cannot carry a prefix: it has talking heads")
            module.__class__ = _SUBCLASSES.get(type(module), type(module))
            if isinstance(module, _PrefixedAttentionV1 | _PrefixedAttentionV2):
                module.layer_idx = layer_idx  # type: ignore[assignment]
                layer_idx += 1

    def is_open(self, model: PreTrainedModel) -> bool:
        """Always: no setting of the library takes the classes away again."""
        return True

    def enter(self, forward: Callable[..., Any], front: Front, inputs: dict[str, Any]) -> Any:
        """Give the encoders called by ``forward`` their front."""
        token = _current.set(front)
        try:
            return forward(**inputs)
        finally:
            _current.reset(token)


class _MaskCarriesPrefix:
    def get_attention_mask(self, attention_mask: Tensor) -> Tensor | _PrefixedMask:
        mask: Tensor = super().get_attention_mask(attention_mask)  # type: ignore[misc]
        front = _current.get()
        return mask if front is None else _PrefixedMask(mask.bool(), front)


class _PrefixedEncoderV1(_MaskCarriesPrefix, v1.DebertaEncoder):
    pass


class _PrefixedEncoderV2(_MaskCarriesPrefix, v2.DebertaV2Encoder):
    pass


class _PrefixedAttentionV1(v1.DisentangledSelfAttention):
    def forward(
        self, hidden_states: Tensor, attention_mask: Any, *args: Any, **inputs: Any
    ) -> tuple[Tensor, Tensor | None]:
        if not isinstance(attention_mask, _PrefixedMask):
            return super().forward(hidden_states, attention_mask, *args, **inputs)
        # [B, T, H * 3d] -> [B, H, T, 3d] -> three times [B, H, T, d]
        query, key, value = self.transpose_for_scores(self.in_proj(hidden_states)).chunk(3, dim=-1)
        value = value + self.transpose_for_scores(self.v_bias[None, None, :])
        query = query + self.transpose_for_scores(self.q_bias[None, None, :])
        factor = 1 + len(self.pos_att_type)
        query = query / (query.shape[-1] * factor) ** 0.5
        bias = None
        if self.relative_attention and self.pos_att_type:
            distances = self.pos_dropout(inputs["rel_embeddings"])
            bias = self.disentangled_att_bias(query, key, inputs["relative_pos"], distances, factor)
        front, tokens = attention_mask.front, attention_mask.tokens
        return front.attend(_disentangled, self, query, key, value, tokens, position_bias=bias)


class _PrefixedAttentionV2(v2.DisentangledSelfAttention):
    def forward(
        self, hidden_states: Tensor, attention_mask: Any, *args: Any, **inputs: Any
    ) -> tuple[Tensor, Tensor | None]:
        if not isinstance(attention_mask, _PrefixedMask):
            return super().forward(hidden_states, attention_mask, *args, **inputs)
        n_head = self.num_attention_heads
        query, key, value = (
            self.transpose_for_scores(projection(hidden_states), n_head)  # [B * H, T, d]
            for projection in (self.query_proj, self.key_proj, self.value_proj)
        )
        terms = {"c2p", "p2c"} & set(self.pos_att_type)
        factor = 1 + len(terms)
        bias = None
        if self.relative_attention and terms:
            distances = self.pos_dropout(inputs["rel_embeddings"])
            bias = self.disentangled_attention_bias(
                query, key, inputs["relative_pos"], distances, factor
            ).unflatten(0, (-1, n_head))  # [B * H, T, T] -> [B, H, T, T]
        # [B * H, T, d] -> [B, H, T, d]
        query, key, value = (x.unflatten(0, (-1, n_head)) for x in (query, key, value))
        query = query / (query.shape[-1] * factor) ** 0.5
        front, tokens = attention_mask.front, attention_mask.tokens
        return front.attend(_disentangled, self, query, key, value, tokens, position_bias=bias)


_SUBCLASSES: dict[type[nn.Module], Any] = {
    v1.DebertaEncoder: _PrefixedEncoderV1,
    v1.DisentangledSelfAttention: _PrefixedAttentionV1,
    v2.DebertaV2Encoder: _PrefixedEncoderV2,
    v2.DisentangledSelfAttention: _PrefixedAttentionV2,
}


def _disentangled(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    position_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Attention over what stands in front (``P`` slots) and the tokens behind it.

    Args:
        module: whose dropout acts on the probabilities.
        query: ``[B, H, T, d]``, scaled.
        key: ``[B, H, P + T, d]``; ``value`` likewise.
        mask: bool ``[B, 1, T, P + T]``, what may be seen.
        position_bias: of the relative positions ``[B, H, T, P + T]``.

    Returns:
        the context ``[B, T, H * d]`` and the probabilities ``[B, H, T, P + T]``.
    """
    scores = query @ key.transpose(-1, -2)  # [B, H, T, P + T]
    if position_bias is not None:
        scores = scores + position_bias
    # A row of padding sees nothing, not even the prefix: the original's softmax leaves it zero.
    is_real = mask[..., -query.shape[2] :].any(dim=-1, keepdim=True)  # [B, 1, T, 1]
    hidden = ~(mask & is_real)
    scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    probabilities = module.dropout(scores.softmax(dim=-1).masked_fill(hidden, 0.0))
    context = probabilities @ value
    return context.transpose(1, 2).flatten(2), probabilities  # [B, H, T, d] -> [B, T, H * d]
