"""What stands in front of the attentions of a frozen transformer during one forward call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from prefix_tuning.errors import UserError
from prefix_tuning.names import SITES
from prefix_tuning.shape import PrefixShape

Attended = tuple[Tensor, Tensor | None]
"""What an attention function returns: its output, and perhaps its probabilities."""
Backend = Callable[..., Attended]
"""``backend(module, query, key, value, mask, **kwargs)``, as transformers calls it."""

_CROSS_ATTENTIONS = ("encoder_attn", "EncDecAttention")
"""What the families of BART and T5 call the decoder's attention to the encoder."""


@dataclass
class Attention:
    """One attention that is about to be computed.

    Attributes:
        backend: the model's own attention function.
        module: of the model, which knows its layer.
        query: ``[B, Hq, T, d]``; ``key`` and ``value`` are ``[B, H, S, d]``.
        mask: ``[B, 1, T, S]`` or the form the backend takes; None hides nothing.
        options: more arguments of ``backend``.
    """

    backend: Backend
    module: Any
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    options: dict[str, Any]

    @property
    def layer(self) -> int:
        """The layer that it belongs to."""
        return self.module.layer_idx

    @property
    def site(self) -> str:
        """Which attention of the layer it is, one of :data:`prefix_tuning.names.SITES`."""
        return getattr(self.module, "_prefix_site", "self")

    def run(self) -> Attended:
        """Compute it as it is."""
        return self.backend(
            self.module, self.query, self.key, self.value, self.mask, **self.options
        )

    def run_behind(self, pair: tuple[Tensor, Tensor], visible: Tensor | None = None) -> Attended:
        """Compute it with a prefix in front.

        Args:
            pair: keys and values ``[B, H, P, d]`` of the prefix.
            visible: bool ``[rows, P]``, which of them may be attended to; all when not given.
        """
        length, mask, options = pair[0].shape[2], self.mask, self.options
        key = torch.cat([pair[0], self.key], dim=2)  # [B, H, P + S, d]
        value = torch.cat([pair[1], self.value], dim=2)
        if mask is not None:
            mask = _widen_once(mask, length)
        if visible is not None:
            mask = _hide(mask, visible, key)
        if options.get("position_bias") is not None:  # a slot is at no distance from a token
            options = {**options, "position_bias": _widen(options["position_bias"], length, 0.0)}
        return self.backend(self.module, self.query, key, value, mask, **options)


class Front(ABC):
    """What stands in front of every attention during one forward call.

    Not a tensor on purpose: ``generate`` repeats every tensor it is given for its beams.

    Args:
        offset: how far the positions of real tokens are shifted; int64 ``[rows]`` where rows of a
            batch differ.
    """

    def __init__(self, offset: int | Tensor = 0) -> None:
        self.offset = offset

    def made_for(self, model: PreTrainedModel) -> Front:
        """What stands in front of this model, which has gone through ``enable_prefix``.

        Raises:
            UserError: it belongs to another model, which might run regardless.
        """
        return self

    def attend(
        self,
        backend: Backend,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **options: Any,
    ) -> Attended:
        """Compute one attention behind what stands in front; arguments as of :class:`Attention`."""
        return self.compute(Attention(backend, module, query, key, value, mask, options))

    @abstractmethod
    def compute(self, attention: Attention) -> Attended:
        """Compute one attention."""


class KeyValues(Front):
    """Keys and values in front of the model's own.

    Args:
        layers: per layer a tensor ``[2, rows, H, P, d]``, or such a sequence for each site of an
            encoder-decoder (:attr:`Attention.site`). One row is shared by the whole batch; ``B``
            rows serve a batch of ``B``, or of ``B * k`` when each row has ``k`` beams.
        offset: how far the positions of real tokens are shifted; ``P`` when not given, as in the
            original, where real tokens are numbered from the end of the prefix. Encoder-decoders
            number them from 0 in any case. int64 ``[rows]`` where rows differ.
        visible: bool ``[rows, P]``, False on slots that nothing may attend to (padding in what the
            slots were computed from); all are visible when not given.
    """

    def __init__(
        self,
        layers: Iterable[Tensor] | Mapping[str, Iterable[Tensor]],
        offset: int | Tensor | None = None,
        visible: Tensor | None = None,
    ) -> None:
        sites = layers if isinstance(layers, Mapping) else {"self": layers}
        self.sites = {site: tuple(pairs) for site, pairs in sites.items()}
        first = next(iter(self.sites.values()))
        super().__init__(first[0].shape[3] if offset is None else offset)
        self.visible = visible

    def made_for(self, model: Any) -> KeyValues:
        """The same in the model's precision, after comparing their shapes."""
        shape: PrefixShape = model._prefix_shape
        wanted = (shape.n_layer, shape.n_head, shape.head_dim)
        sites = SITES if model.config.is_encoder_decoder else ("self",)
        for site, layers in self.sites.items():
            if site not in sites:
                raise UserError(
                    f"this prefix stands at the {site} attention, which {type(model).__name__} "
                    f"does not have (it has {', '.join(sites)}): give it a prefix made for it"
                )
            found = (len(layers), layers[0].shape[2], layers[0].shape[4])
            if found != wanted:
                raise UserError(
                    "this prefix has {} layers, {} key/value heads of size {}, ".format(*found)
                    + f"but {type(model).__name__} has "
                    + "{}, {} of size {}: give it a prefix made for it".format(*wanted)
                )
        # Under autocast every attention casts for itself.
        return self if torch.is_autocast_enabled(model.device.type) else self.to(model.dtype)

    def to(self, dtype: torch.dtype) -> KeyValues:
        """The same in another precision: one cast instead of one in every attention.

        Returns:
            itself where nothing is to be cast, or its layers are on several devices.
        """
        tensors = [pair for layers in self.sites.values() for pair in layers]
        if all(t.dtype is dtype for t in tensors) or len({t.device for t in tensors}) > 1:
            return self
        cast = {site: torch.stack(pairs).to(dtype).unbind(0) for site, pairs in self.sites.items()}
        return KeyValues(cast, self.offset, self.visible)

    def compute(self, attention: Attention) -> Attended:
        """Run the model's attention with the prefix in front, where it stands there."""
        layers = self.sites.get(attention.site)
        if layers is None:
            return attention.run()
        key = attention.key
        pair = layers[attention.layer].to(device=key.device, dtype=key.dtype)
        rows, batch_size = pair.shape[1], key.shape[0]
        if rows == 1:
            pair = pair.expand(-1, batch_size, -1, -1, -1)  # [2, 1, H, P, d] -> [2, B, H, P, d]
        elif rows != batch_size:
            if batch_size % rows:
                raise ValueError(f"a prefix of {rows} rows cannot serve a batch of {batch_size}")
            pair = pair.repeat_interleave(batch_size // rows, dim=1)  # every row serves k beams
        return attention.run_behind((pair[0], pair[1]), self.visible)


def name_sites(model: Any) -> None:
    """Label the attentions of an encoder-decoder, whose layers alone do not tell them apart."""
    for module in model.get_encoder().modules():
        if hasattr(module, "layer_idx"):
            module._prefix_site = "encoder"
    for name, module in model.get_decoder().named_modules():
        if name.rpartition(".")[2] in _CROSS_ATTENTIONS:
            module._prefix_site = "encoder_decoder"


def _widen(mask: Tensor, length: int, visible: bool | float) -> Tensor:
    """Put ``length`` columns that every query sees in front of a mask ``[..., keys]``."""
    return torch.cat([mask.new_full((*mask.shape[:-1], length), visible), mask], dim=-1)


def _widen_once(mask: Tensor, length: int) -> Tensor:
    """:func:`_widen` a mask that all layers get: the first does it for those behind it.

    The mask itself keeps the result, which therefore lives as long as the call it belongs to.
    """
    # A boolean or 0/1 mask says what is visible, a float mask is added to the scores.
    visible = 0.0 if mask.is_floating_point() else True
    if torch.compiler.is_compiling() or mask.requires_grad:
        return _widen(mask, length, visible)
    kept: tuple[int, int, Tensor] | None = getattr(mask, "_prefix_widened", None)
    if kept is None or kept[:2] != (length, mask._version):
        kept = (length, mask._version, _widen(mask, length, visible))
        mask._prefix_widened = kept  # type: ignore[attr-defined]
    return kept[2]


def _hide(mask: Tensor | None, visible: Tensor, key: Tensor) -> Tensor:
    """Hide the slots that are not ``visible [rows, P]`` in a widened mask ``[..., keys]``."""
    if mask is None or mask.ndim != 4:
        raise UserError("flash attention hides no slots: use attn_implementation='sdpa'")
    hidden = ~visible.repeat_interleave(key.shape[0] // visible.shape[0], dim=0)  # [B, P]
    hidden = pad(hidden, (0, key.shape[2] - visible.shape[1]))[:, None, None, :]  # [B, 1, 1, P + S]
    lowest = torch.finfo(mask.dtype).min if mask.is_floating_point() else False
    return torch.where(hidden, lowest, mask)
