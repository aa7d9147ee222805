"""Reading keys and values off a frozen model while it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefix_tuning.attention import run
from prefix_tuning.key_values import Attended, Attention, Front
from prefix_tuning.shape import PrefixShape


class Observer(Front):
    """Adds nothing to any attention, and keeps the keys and values that pass through it."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: dict[tuple[str, int], Tensor] = {}
        """(site, layer) -> fp32 ``[2, B, H, T, d]``, with gradient where the model's input has."""

    def compute(self, attention: Attention) -> Attended:
        pair = torch.stack([attention.key, attention.value]).float()
        self.pairs[attention.site, attention.layer] = pair
        return attention.run()

    def layers(self) -> tuple[Tensor, ...]:
        """The pairs of a decoder, layer by layer."""
        return tuple(self.pairs["self", layer] for layer in range(len(self.pairs)))

    def slots(self, site: str, shape: PrefixShape) -> Tensor:
        """The only row's keys and values at a site, as slots ``[P, 2LHd]``.

        Layers that its stack lacks are 0: BART's encoder may have fewer than the decoder, whose
        shape a prefix has.
        """
        first = self.pairs[site, 0]
        pairs = [self.pairs.get((site, i), torch.zeros_like(first)) for i in range(shape.n_layer)]
        return shape.to_slots(torch.stack(pairs)[:, :, 0])  # [L, 2, 1, H, P, d], one row


def observe(model: PreTrainedModel, **inputs: Any) -> Observer:
    """Run a frozen decoder on its own, from position 0, and keep its keys and values.

    Args:
        model: after ``enable_prefix``.
        inputs: ``input_ids [B, T]`` or ``inputs_embeds [B, T, D]``, and perhaps an
            ``attention_mask [B, T]``, whose padding is counted in the positions.

    Raises:
        UserError: they are more than the model has positions for.
    """
    tokens = next(iter(inputs.values()))
    positions = torch.arange(tokens.shape[1], device=tokens.device)[None]  # [1, T]
    observer = Observer()
    if inputs.get("attention_mask") is None:
        # Without one transformers looks at the positions, and the host waits for their GPU.
        inputs["attention_mask"] = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
    inputs |= {"position_ids": positions, "use_cache": False}
    run(model, observer, inputs, model.base_model)
    return observer
