"""BART with prefixes in front of its three attentions, written out from a table of weights.

The formulas of Lewis et al. 2020 (post-norm layers, positions behind two unused rows, GELU) and of
the original's ``prefixTuning.py``. Dropout is off.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import embedding, gelu, layer_norm, linear

Weights = Mapping[str, Tensor]
Pairs = Mapping[str, Tensor]
"""Site -> keys and values ``[2 * L, B, H, P, d]``, those of layer 1 at 2 and 3."""


def prefixes(trained: Weights, n_row: int, n_layer: int, n_head: int) -> dict[str, Tensor]:
    """The three prefixes: embedding, linear, tanh, linear."""
    found = {}
    for site, suffix in (("encoder", "_enc"), ("self", ""), ("cross", "2")):
        first, second = f"control_trans{suffix}.0", f"control_trans{suffix}.2"
        table = trained[f"wte{suffix}.weight"]
        hidden = torch.tanh(linear(table, trained[f"{first}.weight"], trained[f"{first}.bias"]))
        flat = linear(hidden, trained[f"{second}.weight"], trained[f"{second}.bias"])  # [P, 2LD]
        pairs = flat.expand(n_row, -1, -1).unflatten(-1, (2 * n_layer, n_head, -1))
        found[site] = pairs.permute(2, 0, 3, 1, 4)  # [B, P, 2L, H, d] -> [2L, B, H, P, d]
    return found


class PlainBart:
    """A frozen BART.

    Args:
        weights: its state dict.
        n_head: of every attention.
        pad: the padding id.
    """

    def __init__(self, weights: Weights, n_head: int, pad: int) -> None:
        self.weights, self.n_head, self.pad = weights, n_head, pad

    def n_layer(self, stack: str) -> int:
        """Layers of ``encoder`` or ``decoder``."""
        start = f"model.{stack}.layers."
        return len(
            {n.removeprefix(start).split(".")[0] for n in self.weights if n.startswith(start)}
        )

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return layer_norm(x, weight.shape, weight, bias, 1e-5)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)  # [B, T, D] -> [B, H, T, d]

    def _attend(
        self, x: Tensor, memory: Tensor, name: str, pairs: Tensor, hidden: Tensor
    ) -> Tensor:
        """``x [B, T, D]`` plus what it reads behind ``pairs [2, B, H, P, d]``, normalised."""
        query = self._heads(self._linear(x, f"{name}.q_proj"))
        key = torch.cat([pairs[0], self._heads(self._linear(memory, f"{name}.k_proj"))], dim=2)
        value = torch.cat([pairs[1], self._heads(self._linear(memory, f"{name}.v_proj"))], dim=2)
        scores = query @ key.mT / query.shape[-1] ** 0.5  # [B, H, T, P + S]
        seen = hidden.new_zeros(*hidden.shape[:-1], pairs.shape[3])
        scores = scores.masked_fill(torch.cat([seen, hidden], dim=-1), -torch.inf)
        read = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)  # [B, H, T, d] -> [B, T, D]
        return self._norm(x + self._linear(read, f"{name}.out_proj"), f"{name}_layer_norm")

    def _forward(self, x: Tensor, name: str) -> Tensor:
        read = self._linear(gelu(self._linear(x, f"{name}.fc1")), f"{name}.fc2")
        return self._norm(x + read, f"{name}.final_layer_norm")

    def _embed(self, ids: Tensor, stack: str) -> Tensor:
        places = self.weights[f"model.{stack}.embed_positions.weight"][2 : 2 + ids.shape[1]]
        x = embedding(ids, self.weights["model.shared.weight"]) + places
        return self._norm(x, f"model.{stack}.layernorm_embedding")

    def logits(self, source: Tensor, target: Tensor, pairs: Pairs) -> Tensor:
        """Logits ``[B, T, V]`` of ``target [B, T]``, the decoder's input, behind the prefixes."""
        padding = (source == self.pad)[:, None, None, :]  # [B, S] -> [B, 1, 1, S]
        memory = self._embed(source, "encoder")
        for i in range(self.n_layer("encoder")):
            name, own = f"model.encoder.layers.{i}", pairs["encoder"][2 * i : 2 * i + 2]
            hidden = padding.expand(-1, -1, source.shape[1], -1)  # [B, 1, S, S]
            memory = self._attend(memory, memory, f"{name}.self_attn", own, hidden)
            memory = self._forward(memory, name)
        n_target = target.shape[1]
        later = torch.ones(n_target, n_target, dtype=torch.bool).triu(1)
        later = later.expand(len(target), 1, -1, -1)  # [T, T] -> [B, 1, T, T]
        x = self._embed(target, "decoder")
        for i in range(self.n_layer("decoder")):
            name, layer = f"model.decoder.layers.{i}", slice(2 * i, 2 * i + 2)
            x = self._attend(x, x, f"{name}.self_attn", pairs["self"][layer], later)
            hidden = padding.expand(-1, -1, n_target, -1)  # [B, 1, T, S]
            x = self._attend(x, memory, f"{name}.encoder_attn", pairs["cross"][layer], hidden)
            x = self._forward(x, name)
        return linear(x, self.weights["model.shared.weight"]) + self.weights["final_logits_bias"]
