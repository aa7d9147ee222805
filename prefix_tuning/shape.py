"""What a prefix depends on: the geometry of the model it stands in front of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers import PretrainedConfig


def _count() -> Any:
    """A field that :mod:`prefix_tuning.schema` holds to what a model can have."""
    return field(metadata={"low": 1, "high": 2**20})


@dataclass(frozen=True)
class PrefixShape:
    """The part of a transformer's geometry that a prefix depends on."""

    n_layer: int = _count()
    n_head: int = _count()
    """Key/value heads: fewer than query heads in grouped-query models."""
    head_dim: int = _count()
    width: int = _count()
    """Width of the hidden states, which is also that of the MLP's input embedding."""

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> PrefixShape:
        """Read the geometry from a transformers configuration; of BART and T5, the decoder's."""
        text = config.get_text_config(decoder=True)
        n_layer, n_query_head = text.num_hidden_layers, text.num_attention_heads
        if config.is_encoder_decoder:
            # Names of BART's and T5's configurations; those above are their encoders'.
            n_layer = getattr(config, "decoder_layers", None) or config.num_decoder_layers
            n_query_head = getattr(config, "decoder_attention_heads", None) or n_query_head
        return cls(
            n_layer=n_layer,
            n_head=getattr(text, "num_key_value_heads", None) or n_query_head,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // n_query_head,
            width=text.hidden_size,
        )

    @classmethod
    def of(cls, model: PrefixShape | PretrainedConfig) -> PrefixShape:
        """``model`` itself, or the geometry that it configures."""
        return model if isinstance(model, PrefixShape) else cls.from_config(model)

    @property
    def features(self) -> int:
        """Numbers stored for one prefix slot: ``2 * L * H * d``."""
        return 2 * self.n_layer * self.n_head * self.head_dim

    def to_layers(self, slots: Tensor) -> Tensor:
        """Turn slots ``[..., P, 2LHd]`` into keys and values ``[L, 2, ..., H, P, d]``.

        A slot holds, layer by layer, the ``H`` keys and then the ``H`` values: the layout of the
        original's MLP.
        """
        sizes = (self.n_layer, 2, self.n_head, self.head_dim)
        table = slots.view(*slots.shape[:-1], *sizes)  # [..., P, L, 2, H, d]
        n = table.ndim - 5  # dimensions in front: none, or rows of a batch
        return table.permute(n + 1, n + 2, *range(n), n + 3, n, n + 4)  # [L, 2, ..., H, P, d]

    def to_slots(self, layers: Tensor) -> Tensor:
        """Turn keys and values ``[L, 2, H, P, d]`` into slots ``[P, 2LHd]``."""
        return layers.permute(3, 0, 1, 2, 4).flatten(1)  # [P, L, 2, H, d] -> [P, 2LHd]
