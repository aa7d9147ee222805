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

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.deberta import modeling_deberta as v1
from transformers.models.deberta_v2 import modeling_deberta_v2 as v2

from prefix_tuning.errors import UserError

if TYPE_CHECKING:
    from prefix_tuning.attention import KeyValues

_current: ContextVar[KeyValues | None] = ContextVar("prefix of this forward call", default=None)


@dataclass(frozen=True)
class _PrefixedMask:
    """What the layers get for a mask: which tokens see which ``[B, 1, T, T]``, and the prefix."""

    tokens: Tensor
    prefix: KeyValues


def is_disentangled(model: PreTrainedModel) -> bool:
    """Whether ``model`` is of the family that this file is for."""
    return model.config.model_type in ("deberta", "deberta-v2")


def adapt(model: nn.Module) -> None:
    """Let every encoder and attention in ``model`` take a prefix; weights and names stay.

    Raises:
        UserError: the attention mixes its heads, which no released DeBERTa does.
    """
    layer_idx = 0
    for module in model.modules():
        if getattr(module, "talking_head", False):
            raise UserError(f"{type(model).__name__} cannot carry a prefix: it has talking heads")
        module.__class__ = _SUBCLASSES.get(type(module), type(module))
        if isinstance(module, _PrefixedAttentionV1 | _PrefixedAttentionV2):
            module.layer_idx = layer_idx  # type: ignore[assignment]
            layer_idx += 1


@contextmanager
def handing_down(prefix: KeyValues) -> Iterator[None]:
    """Give the encoders called inside the ``with`` block their prefix."""
    token = _current.set(prefix)
    try:
        yield
    finally:
        _current.reset(token)


class _MaskCarriesPrefix:
    def get_attention_mask(self, attention_mask: Tensor) -> Tensor | _PrefixedMask:
        mask: Tensor = super().get_attention_mask(attention_mask)  # type: ignore[misc]
        prefix = _current.get()
        return mask if prefix is None else _PrefixedMask(mask.bool(), prefix)


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
        query, key, value = self.transpose_for_scores(self.in_proj(hidden_states)).chunk(3, dim=-1)
        value = value + self.transpose_for_scores(self.v_bias[None, None, :])
        query = query + self.transpose_for_scores(self.q_bias[None, None, :])
        factor = 1 + len(self.pos_att_type)
        query = query / (query.shape[-1] * factor) ** 0.5
        bias = None
        if self.relative_attention and self.pos_att_type:
            distances = self.pos_dropout(inputs["rel_embeddings"])
            bias = self.disentangled_att_bias(query, key, inputs["relative_pos"], distances, factor)
        return _attend(self, query, key, value, bias, attention_mask)


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
            ).unflatten(0, (-1, n_head))
        query, key, value = (x.unflatten(0, (-1, n_head)) for x in (query, key, value))
        query = query / (query.shape[-1] * factor) ** 0.5
        return _attend(self, query, key, value, bias, attention_mask)


_SUBCLASSES: dict[type[nn.Module], Any] = {
    v1.DebertaEncoder: _PrefixedEncoderV1,
    v1.DisentangledSelfAttention: _PrefixedAttentionV1,
    v2.DebertaV2Encoder: _PrefixedEncoderV2,
    v2.DisentangledSelfAttention: _PrefixedAttentionV2,
}


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, mask: _PrefixedMask
) -> tuple[Tensor, Tensor]:
    """Attention over prefix and tokens.

    Args:
        module: whose dropout acts on the probabilities.
        query: ``[B, H, T, d]``, scaled; ``key`` and ``value`` as it, of the tokens alone.
        bias: of the relative positions of the tokens ``[B, H, T, T]``.

    Returns:
        the context ``[B, T, H * d]`` and the probabilities ``[B, H, T, P + T]``.
    """
    pair = mask.prefix.lookup(module, key)
    assert pair is not None
    length = pair[0].shape[2]
    scores = query @ torch.cat([pair[0], key], dim=2).transpose(-1, -2)
    if bias is not None:
        scores = scores + nn.functional.pad(bias, (length, 0))
    # A row of padding sees nothing, not even the prefix: the original's softmax leaves it zero.
    is_real = mask.tokens.any(dim=-1, keepdim=True)
    hidden = ~torch.cat([is_real.expand(*is_real.shape[:-1], length), mask.tokens], dim=-1)
    scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    probabilities = module.dropout(scores.softmax(dim=-1).masked_fill(hidden, 0.0))
    context = probabilities @ torch.cat([pair[1], value], dim=2)
    return context.transpose(1, 2).flatten(2), probabilities
