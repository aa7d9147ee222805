"""What is put into transformers: attention functions, their masks, a check of every call.

The attention functions put what stands in front before the keys and values they are given. They
are registered (``AttentionInterface``) beside mask functions of the same name
(``AttentionMaskInterface``), without which transformers would pass no mask at all.

The models of transformers hand down every keyword that they do not know, and their attentions
ignore it: ``model(**inputs, prefix=...)`` before ``enable_prefix(model)`` would compute the bare
model's logits. The one place that all of them pass is the call of a ``PreTrainedModel``, so a check
stands there; no other argument is looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import (
    AttentionMaskInterface,
    eager_mask,
    flash_attention_mask,
    sdpa_mask,
)
from transformers.modeling_flash_attention_utils import _flash_attention_forward

from prefix_tuning.doors import Door, not_through_the_interface
from prefix_tuning.errors import UserError
from prefix_tuning.key_values import Attended, Backend, Front


def _eager(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **kwargs: Any
) -> Attended:
    # The model's own function: it knows about soft caps, sinks and fp32 softmax.
    forward = sys.modules[type(module).__module__].eager_attention_forward
    return forward(module, query, key, value, mask, **kwargs)


def _flash(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if kwargs.get("position_bias") is not None:
        raise UserError("flash attention knows no position bias: use attn_implementation='sdpa'")
    # A causal mask of flash attention is aligned at the last key, so all queries see the prefix.
    output = _flash_attention_forward(
        query.transpose(1, 2),  # [B, H, T, d] -> [B, T, H, d], as are key and value
        key.transpose(1, 2),
        value.transpose(1, 2),
        mask,
        query_length=query.shape[2],
        is_causal=getattr(module, "is_causal", True),
        dropout=dropout,
        softmax_scale=scaling,
        softcap=kwargs.get("softcap"),
        attn_implementation="flash_attention_2",
    )
    return output, None


def _with_front(backend: Backend) -> Backend:
    """The attention function that a backend becomes when something may stand in front."""

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        prefix: Front | None = None,
        **kwargs: Any,
    ) -> Attended:
        if prefix is None:
            return backend(module, query, key, value, attention_mask, **kwargs)
        return prefix.attend(backend, module, query, key, value, attention_mask, **kwargs)

    return attention


def _explicit_sdpa_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    # Without a mask, causal attention with more keys than queries would keep the first keys only.
    kwargs.update(allow_is_causal_skip=False, allow_is_bidirectional_skip=False)
    return sdpa_mask(*args, **kwargs)


class Registered(NamedTuple):
    """A backend under the name that transformers knows it by."""

    name: str
    attention: Backend
    mask: Callable[..., Any]


# None of our names may contain "flash": transformers would take it for a kernel to download.
BACKENDS = {
    "sdpa": Registered(
        "prefix_tuning_sdpa", _with_front(sdpa_attention_forward), _explicit_sdpa_mask
    ),
    "eager": Registered("prefix_tuning_eager", _with_front(_eager), eager_mask),
    "flash_attention_2": Registered("prefix_tuning_fa2", _with_front(_flash), flash_attention_mask),
}
"""Attention implementation of a model -> the one that it gets."""
_FUNCTIONS = {ours.name: ours.attention for ours in BACKENDS.values()}
for _ours in BACKENDS.values():
    AttentionInterface.register(_ours.name, _ours.attention)
    AttentionMaskInterface.register(_ours.name, _ours.mask)


class WouldIgnore(UserError):
    """A model was given a prefix that it does not use."""


def _call(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
    prefix = kwargs.get("prefix")
    if prefix is not None and isinstance(prefix, Front | nn.Module) and not _is_enabled(self):
        raise WouldIgnore(
            f"{type(self).__name__} would ignore the prefix it was given: call "
            "prefix_tuning.enable_prefix(model) first"
        )
    return nn.Module.__call__(self, *args, **kwargs)


def _is_enabled(model: PreTrainedModel) -> bool:
    """Whether it is an enabled model, or the body of one, which shares its configuration."""
    backend = model.config._attn_implementation or ""
    return hasattr(model, "_prefix_base") or backend.startswith("prefix_tuning_")


PreTrainedModel.__call__ = _call  # type: ignore[method-assign]


class InterfaceDoor(Door):
    """The door of every family whose attention goes through ``AttentionInterface``.

    What stands in front travels as the keyword argument ``prefix`` of one forward call.
    """

    def open(self, model: PreTrainedModel, backend: str) -> None:
        """Set the attention implementation to the one registered here."""
        name = BACKENDS[backend].name
        model.set_attn_implementation(name)
        if model.config._attn_implementation != name:
            detail = "its implementation cannot be set"
            raise not_through_the_interface(type(model), detail)

    def is_open(self, model: PreTrainedModel) -> bool:
        """Whether the model's attention is still ours."""
        name = model.config._attn_implementation
        registered = AttentionInterface._global_mapping.get(name)
        return registered is not None and registered is _FUNCTIONS.get(name)

    def enter(self, forward: Callable[..., Any], front: Front, inputs: dict[str, Any]) -> Any:
        """Hand ``front`` down by keyword."""
        return forward(**inputs, prefix=front)
