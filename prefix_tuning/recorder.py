"""Reading keys and values off a frozen model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefix_tuning.attention import KeyValues, check_usable, site_of
from prefix_tuning.positions import check_length
from prefix_tuning.shape import PrefixShape


class Recorder(KeyValues):
    """Adds nothing to any attention, and keeps the keys and values that pass through it."""

    def __init__(self) -> None:
        self.offset = 0
        self.pairs: dict[tuple[str, int], Tensor] = {}
        """(site, layer) -> fp32 ``[2, B, H, T, d]``, with gradient where the model's input has."""

    def attend(
        self,
        backend: Any,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **kwargs: Any,
    ) -> Any:
        self.pairs[site_of(module), module.layer_idx] = torch.stack([key, value]).float()
        return backend(module, query, key, value, mask, **kwargs)

    def layers(self) -> tuple[Tensor, ...]:
        """The pairs of a decoder, layer by layer."""
        return tuple(self.pairs["self", layer] for layer in range(len(self.pairs)))

    def table(self, site: str, shape: PrefixShape) -> Tensor:
        """Slots ``[P, 2LHd]`` of a site. Layers that its stack lacks are 0 (BART's encoder may
        have fewer than the decoder, whose shape a prefix has)."""
        first = self.pairs[site, 0]
        pairs = [self.pairs.get((site, i), torch.zeros_like(first)) for i in range(shape.n_layer)]
        return torch.stack(pairs)[:, :, 0].permute(3, 0, 1, 2, 4).flatten(1)


def record(model: PreTrainedModel, **inputs: Any) -> Recorder:
    """Run a frozen decoder on its own, from position 0.

    Args:
        model: after ``enable_prefix``.
        inputs: ``input_ids [B, T]`` or ``inputs_embeds [B, T, D]``, and perhaps an
            ``attention_mask [B, T]``, whose padding is counted in the positions.

    Raises:
        UserError: they are more than the model has positions for.
    """
    check_usable(model)
    tokens = next(iter(inputs.values()))
    check_length(model, 0, tokens.shape[1])
    positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
    recorder = Recorder()
    model.base_model(**inputs, position_ids=positions, prefix=recorder, use_cache=False)
    return recorder
