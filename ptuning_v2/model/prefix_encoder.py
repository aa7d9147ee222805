"""The prefix of P-tuning v2: an embedding table, with an MLP behind it or not."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig

from prefix_tuning.parametrizations import PARAMETRIZATIONS
from prefix_tuning.prefix import Prefix
from prefix_tuning.shape import PrefixShape

INIT_STD = 0.02
"""Standard deviation of everything that is trained, head and prefix, before the first step."""


class PrefixEncoder(Prefix):
    """Deep prompts under the original's parameter names.

    Parameters: ``embedding.weight [P, 2LHd]``; with ``projection`` ``embedding.weight [P, D]``,
    ``trans.0.{weight [M, D], bias [M]}`` and ``trans.2.{weight [2LHd, M], bias [2LHd]}``, a tanh
    between. Weights are drawn from N(0, 0.02), biases are 0.

    Args:
        shape: of the model.
        length: ``P``.
        dropout: on keys and values, a mask of its own for every row.
        projection: whether there is an MLP.
        hidden_size: its width ``M``.
    """

    parametrization = "ptuning_v2"

    def __init__(
        self,
        shape: PrefixShape | PretrainedConfig,
        length: int,
        dropout: float = 0.0,
        projection: bool = False,
        hidden_size: int = 512,
    ) -> None:
        super().__init__(shape, length, dropout, ("self",))
        if hidden_size < 1:
            raise ValueError(f"hidden_size {hidden_size}: must be at least 1")
        self.projection = projection
        self.hidden_size = hidden_size
        self.embedding = nn.Embedding(
            length, self.shape.width if projection else self.shape.features
        )
        if projection:
            self.trans = nn.Sequential(
                nn.Linear(self.shape.width, hidden_size),
                nn.Tanh(),
                nn.Linear(hidden_size, self.shape.features),
            )
        self.apply(init_weights)

    def options(self) -> dict[str, Any]:
        return {
            "length": self.length,
            "dropout": self.dropout.p,
            "projection": self.projection,
            "hidden_size": self.hidden_size,
        }

    def slots(self, site: str = "self") -> Tensor:
        table = self.embedding.weight
        return self.trans(table) if self.projection else table


PARAMETRIZATIONS[PrefixEncoder.parametrization] = PrefixEncoder


def init_weights(module: nn.Module) -> None:
    """What ``from_pretrained`` does to a module that the pretrained weights lack."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
