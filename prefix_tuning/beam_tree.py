"""What the beams of a search attend to: prefix, prompt, and the tree that they have written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from prefix_tuning.errors import UserError
from prefix_tuning.key_values import Attended, Attention, Front, KeyValues

_STEPS_OF_ROOM = 32
"""Steps for which room is made at a time."""


class BeamTree(Front):
    """Prefix, prompt and all that its beams have written, of each row, in front of its beams.

    Nothing is copied when beams are reordered: a token stays where it was written, and a mask
    lets each beam see its own ancestors alone.

    Args:
        keys, values: of prefix and prompt, ``[B, H, S, d]`` a layer.
        visible: bool ``[B, S]``.
        num_beams: ``K`` of each row.
    """

    def __init__(
        self,
        keys: list[Tensor],
        values: list[Tensor],
        visible: Tensor,
        offset: int | Tensor,
        num_beams: int,
    ) -> None:
        super().__init__(offset)
        self.keys, self.values = keys, values
        self.num_beams = num_beams
        # [B, S] -> [B, K, S]: of every beam the tokens that it does not see
        self.hidden = ~visible[:, None].expand(-1, num_beams, -1)

    @classmethod
    def of_prompt(cls, prefix: KeyValues, cache: Any, mask: Tensor, num_beams: int) -> BeamTree:
        """Join ``prefix`` and the cache of prompts with ``mask [B, T]`` layer by layer."""
        batch_size = mask.shape[0]
        keys, values = [], []
        for pair, layer in zip(prefix.sites["self"], cache.layers, strict=True):
            # One row per prompt, as lookup() gives them to the attention.
            pair = pair.to(device=layer.keys.device, dtype=layer.keys.dtype)
            front = pair.expand(-1, batch_size, -1, -1, -1)  # [2, 1 or B, ...] -> [2, B, H, P, d]
            keys.append(torch.cat([front[0], layer.keys], dim=2))
            values.append(torch.cat([front[1], layer.values], dim=2))
        visible = mask.new_ones(batch_size, keys[0].shape[2] - mask.shape[1])
        if prefix.visible is not None:
            visible = prefix.visible
        visible = torch.cat([visible, mask], dim=1).bool()
        return cls(keys, values, visible, prefix.offset, num_beams)

    def select(self, rows: Tensor) -> None:
        """Keep ``rows`` of the batch."""
        self._change(lambda kept: kept[rows])
        self.hidden = self.hidden[rows]
        if isinstance(self.offset, Tensor):
            self.offset = self.offset[rows]

    def grow(self, parents: Tensor) -> None:
        """Make room for a token of every beam, which goes on from beam ``parents [B, K]``."""
        size = self.hidden.shape[2]
        from_parents = parents[:, :, None].expand(-1, -1, size)  # [B, K] -> [B, K, n]
        inherited = self.hidden.gather(1, from_parents)
        others = ~torch.eye(self.num_beams, dtype=torch.bool, device=parents.device)
        others = others.expand(len(parents), -1, -1)  # [K, K] -> [B, K, K]
        self.hidden = torch.cat([inherited, others], dim=2)  # [B, K, n] -> [B, K, n + K]
        if size + self.num_beams > self.keys[0].shape[2]:
            self._change(lambda kept: pad(kept, (0, 0, 0, _STEPS_OF_ROOM * self.num_beams)))

    def _change(self, change: Callable[[Tensor], Tensor]) -> None:
        """Replace keys and values, a layer at a time: all at once they would be there twice."""
        for layers in (self.keys, self.values):
            for i, kept in enumerate(layers):
                layers[i] = change(kept)

    def compute(self, attention: Attention) -> Attended:
        """One new token per beam, ``query [B * K, Hq, 1, d]``, over what it descends from."""
        options = attention.options
        if options.get("softcap") is not None or options.get("s_aux") is not None:
            name = type(attention.module).__name__
            raise UserError(f"{name} caps its scores: use --beam_search transformers")
        query, (rows, n_beam, end) = attention.query, self.hidden.shape
        _, heads, _, size = attention.key.shape
        group = query.shape[1] // heads
        keys, values = self.keys[attention.layer], self.values[attention.layer]
        for kept, new in ((keys, attention.key), (values, attention.value)):
            new = new.reshape(rows, n_beam, heads, size)  # from [B*K, H, 1, d]
            kept[:, :, end - n_beam : end] = new.transpose(1, 2)  # [B, H, K, d]
        keys, values = keys[:, :, :end], values[:, :, :end]
        query = query.reshape(rows, n_beam, heads, group, size).transpose(1, 2)  # [B, H, K, g, d]
        scores = query.reshape(rows, heads, -1, size) @ keys.transpose(2, 3)  # [B, H, K*g, n]
        scores = scores.float() * (options.get("scaling") or size**-0.5)
        scores = scores.view(rows, heads, n_beam, group, end)  # [B, H, K, g, n]
        scores = scores.masked_fill(self.hidden[:, None, :, None], -torch.inf)
        weights = scores.softmax(dim=4).to(values.dtype).view(rows, heads, -1, end)
        # [B, H, K*g, d] -> [B, K, H, g, d] -> [B*K, 1, Hq*d]
        output = (weights @ values).view(rows, heads, n_beam, group, size).transpose(1, 2)
        return output.reshape(rows * n_beam, 1, heads * group, size), None
