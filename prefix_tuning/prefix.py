"""A prefix as parameters: what is trained, and how it becomes keys and values.

For a model of ``L`` layers, ``H`` key/value heads of size ``d`` and width ``D``, a prefix of
length ``P`` is ``P`` keys and ``P`` values in front of every attention (Li & Liang 2021,
section 4.2). Parameter names, shapes and memory layout are those of the original release, so its
checkpoints load; initialisation is PyTorch's own (embeddings N(0, 1), linear layers uniform), not
the N(0, 0.02) that a ``PreTrainedModel`` would apply.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig


@dataclass(frozen=True)
class PrefixShape:
    """The part of a transformer's geometry that a prefix depends on."""

    n_layer: int
    n_head: int
    """Key/value heads: fewer than query heads in grouped-query models."""
    head_dim: int
    width: int
    """Width of the hidden states, which is also that of the MLP's input embedding."""

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> PrefixShape:
        """Read the geometry of a decoder from its transformers configuration."""
        text = config.get_text_config(decoder=True)
        n_query_head = text.num_attention_heads
        return cls(
            n_layer=text.num_hidden_layers,
            n_head=getattr(text, "num_key_value_heads", None) or n_query_head,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // n_query_head,
            width=text.hidden_size,
        )

    @property
    def features(self) -> int:
        """Numbers stored for one prefix slot: ``2 * L * H * d``."""
        return 2 * self.n_layer * self.n_head * self.head_dim


class Prefix(nn.Module):
    """What the parametrisations share: a slot-major table split into layers, with dropout."""

    def __init__(self, shape: PrefixShape, length: int, dropout: float) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"a prefix needs at least one slot, not {length}")
        self.shape = shape
        self.length = length
        self.dropout = nn.Dropout(dropout)

    parametrization: str
    """The name under which checkpoints know the class."""

    def options(self) -> dict[str, int | float]:
        """The constructor's arguments besides the shape."""
        return {"length": self.length, "dropout": self.dropout.p}

    def slots(self) -> Tensor:
        """The prefix before dropout, fp32 ``[P, 2 * L * H * d]``."""
        raise NotImplementedError

    def key_values(self, batch_size: int = 1) -> tuple[Tensor, ...]:
        """Keys and values of every layer.

        Args:
            batch_size: rows to produce when dropout gives every row a mask of its own. Without
                active dropout all rows are equal and one row is returned, to be broadcast.

        Returns:
            ``L`` tensors ``[2, rows, H, P, d]`` (index 0 keys, 1 values), ``rows`` being
            ``batch_size`` or 1.
        """
        rows = batch_size if self.training and self.dropout.p > 0 else 1
        shape = self.shape
        table = self.slots().view(self.length, 2 * shape.n_layer, shape.n_head, shape.head_dim)
        table = self.dropout(table.expand(rows, *table.shape))
        return table.permute(2, 0, 3, 1, 4).split(2)

    def flatten(self) -> FlatPrefix:
        """The same prefix without its parametrisation: what inference needs and exports keep."""
        with torch.no_grad():
            return FlatPrefix(self.shape, self.length, values=self.slots())


class MLPPrefix(Prefix):
    """The paper's reparametrisation: ``P[i] = MLP(P'[i])`` (equation 3 of section 4.3).

    Parameters: ``wte.weight [P, D]``, ``control_trans.0.{weight [M, D], bias [M]}``,
    ``control_trans.2.{weight [2LHd, M], bias [2LHd]}``, with a tanh between.
    """

    parametrization = "mlp"

    def __init__(
        self, shape: PrefixShape, length: int, mid_dim: int = 512, dropout: float = 0.0
    ) -> None:
        super().__init__(shape, length, dropout)
        self.mid_dim = mid_dim
        self.wte = nn.Embedding(length, shape.width)
        self.control_trans = nn.Sequential(
            nn.Linear(shape.width, mid_dim), nn.Tanh(), nn.Linear(mid_dim, shape.features)
        )

    def options(self) -> dict[str, int | float]:
        return {**super().options(), "mid_dim": self.mid_dim}

    def slots(self) -> Tensor:
        return self.control_trans(self.wte.weight)


class FlatPrefix(Prefix):
    """Keys and values as the parameters themselves.

    One parameter, ``control_trans [P * 2LHd]``, drawn from N(0, 1) unless ``values`` is given:
    the original's ``init_shallow`` without a word.
    """

    parametrization = "flat"

    def __init__(
        self,
        shape: PrefixShape,
        length: int,
        dropout: float = 0.0,
        values: Tensor | None = None,
    ) -> None:
        super().__init__(shape, length, dropout)
        if values is None:
            values = torch.randn(length * shape.features)
        self.control_trans = nn.Parameter(values.detach().clone().reshape(-1))

    def slots(self) -> Tensor:
        return self.control_trans.view(self.length, -1)


PARAMETRIZATIONS: dict[str, type[MLPPrefix] | type[FlatPrefix]] = {
    cls.parametrization: cls for cls in (MLPPrefix, FlatPrefix)
}
