"""A prefix as parameters: what is trained, and how it becomes keys and values.

For a model of ``L`` layers, ``H`` key/value heads of size ``d`` and width ``D``, a prefix of
length ``P`` is ``P`` keys and ``P`` values in front of every attention (Li & Liang 2021,
section 4.2). Parameter names, shapes and memory layout are those of the original release, so its
checkpoints load; initialisation is PyTorch's own (embeddings N(0, 1), linear layers uniform), not
the N(0, 0.02) that a ``PreTrainedModel`` would apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefix_tuning.attention import KeyValues
from prefix_tuning.shape import PrefixShape

SUFFIXES = {"self": "", "encoder": "_enc", "encoder_decoder": "2"}
"""Attention -> what its parameters' names end with, as in the original."""


class Prefix(nn.Module):
    """What the parametrisations share: slot-major tables split into layers, with dropout.

    Args:
        shape: of the model.
        length: ``P``.
        dropout: on the generated keys and values, while training.
        sites: the attentions that have a prefix, each with parameters of its own.
    """

    def __init__(
        self, shape: PrefixShape, length: int, dropout: float, sites: Sequence[str]
    ) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"a prefix needs at least one slot, not {length}")
        if not sites or not set(sites) <= SUFFIXES.keys():
            raise ValueError(f"a prefix stands at one or more of {[*SUFFIXES]}, not at {sites}")
        self.shape = shape
        self.length = length
        self.sites = tuple(site for site in SUFFIXES if site in sites)
        self.dropout = nn.Dropout(dropout)

    parametrization: str
    """The name under which flags and checkpoints know the class."""
    reads_source = False
    """Whether the keys and values depend on the source, which then stands in front of them."""

    def options(self) -> dict[str, Any]:
        """The constructor's arguments besides the shape, as JSON values."""
        return {"length": self.length, "dropout": self.dropout.p}

    def slots(self, site: str = "self") -> Tensor:
        """The prefix of one attention before dropout, fp32 ``[P, 2 * L * H * d]``."""
        raise NotImplementedError

    def key_values(self, batch_size: int = 1, site: str = "self") -> tuple[Tensor, ...]:
        """Keys and values of every layer.

        Args:
            batch_size: rows to produce when dropout gives every row a mask of its own. Without
                active dropout all rows are equal and one row is returned, to be broadcast.
            site: which attention's.

        Returns:
            ``L`` tensors ``[2, rows, H, P, d]`` (index 0 keys, 1 values), ``rows`` being
            ``batch_size`` or 1.
        """
        rows = batch_size if self.training and self.dropout.p > 0 else 1
        shape = self.shape
        table = self.slots(site).view(self.length, 2 * shape.n_layer, shape.n_head, shape.head_dim)
        table = self.dropout(table.expand(rows, *table.shape))
        return table.permute(2, 0, 3, 1, 4).split(2)

    def all_key_values(self, batch_size: int = 1) -> dict[str, tuple[Tensor, ...]]:
        """:meth:`key_values` of every site, as ``KeyValues`` takes them."""
        return {site: self.key_values(batch_size, site) for site in self.sites}

    def prompt(
        self,
        model: PreTrainedModel | None = None,
        batch_size: int = 1,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
    ) -> KeyValues:
        """What stands in front of a batch: keys and values of every site.

        Most prefixes are their parameters alone; some are computed by the frozen model.

        Args:
            model: the frozen model, after ``enable_prefix``.
            batch_size: as in :meth:`key_values`.
            source: ``[B, S]`` int64, what a prefix with :attr:`reads_source` comes after.
            source_mask: ``[B, S]``, 0 on padding; none is padding when not given.
        """
        return KeyValues(self.all_key_values(batch_size))

    @torch.no_grad()
    def flatten(self, model: PreTrainedModel | None = None) -> FlatPrefix:
        """The same prefix without its parametrisation: what inference needs and exports keep.

        ``model`` as in :meth:`prompt`. No dropout is applied, neither its own nor the model's.
        """
        modules = [m for part in (self, model) if part is not None for m in part.modules()]
        modes = [module.training for module in modules]
        for module in modules:
            module.training = False
        sites = self.prompt(model).sites
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        tables = {site: torch.stack(pairs)[:, :, 0] for site, pairs in sites.items()}
        values = {site: table.permute(3, 0, 1, 2, 4) for site, table in tables.items()}
        return FlatPrefix(self.shape, self.length, sites=self.sites, values=values)

    def from_original(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The original's parameters in the shapes they have here, where these differ."""
        return state


class MLPPrefix(Prefix):
    """The paper's reparametrisation: ``P[i] = MLP(P'[i])`` (equation 3 of section 4.3).

    Parameters: ``wte.weight [P, D]``, ``control_trans.0.{weight [M, D], bias [M]}``,
    ``control_trans.2.{weight [2LHd, M], bias [2LHd]}``, with a tanh between; ``deep`` adds a hidden
    layer ``[M, M]`` and another tanh. BART's encoder and cross-attention have the same under the
    names ``wte_enc``, ``control_trans_enc``, ``wte2`` and ``control_trans2``.
    """

    parametrization = "mlp"

    def __init__(
        self,
        shape: PrefixShape,
        length: int,
        mid_dim: int = 512,
        dropout: float = 0.0,
        deep: bool = False,
        sites: Sequence[str] = ("self",),
    ) -> None:
        super().__init__(shape, length, dropout, sites)
        self.mid_dim = mid_dim
        self.deep = deep
        for site in self.sites:
            hidden = [nn.Linear(mid_dim, mid_dim), nn.Tanh()] if deep else []
            self.add_module("wte" + SUFFIXES[site], nn.Embedding(length, shape.width))
            mlp = nn.Sequential(
                nn.Linear(shape.width, mid_dim),
                nn.Tanh(),
                *hidden,
                nn.Linear(mid_dim, shape.features),
            )
            self.add_module("control_trans" + SUFFIXES[site], mlp)

    def options(self) -> dict[str, Any]:
        options = {"sites": [*self.sites], "mid_dim": self.mid_dim, "deep": self.deep}
        return {**super().options(), **options}

    def slots(self, site: str = "self") -> Tensor:
        embedding = self.get_submodule("wte" + SUFFIXES[site])
        return self.get_submodule("control_trans" + SUFFIXES[site])(embedding.weight)


class FlatPrefix(Prefix):
    """Keys and values as the parameters themselves.

    One parameter per site, ``control_trans [P * 2LHd]``, drawn from N(0, 1) unless ``values`` has
    it: the original's ``init_shallow``. Started from words, the original's parameter has the shape
    ``[2L, 1, H, P, d]``, which loads too.
    """

    parametrization = "flat"

    def __init__(
        self,
        shape: PrefixShape,
        length: int,
        dropout: float = 0.0,
        sites: Sequence[str] = ("self",),
        values: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(shape, length, dropout, sites)
        for site in self.sites:
            flat = torch.randn(length * shape.features) if values is None else values[site]
            parameter = nn.Parameter(flat.detach().clone().reshape(-1))
            self.register_parameter("control_trans" + SUFFIXES[site], parameter)

    def options(self) -> dict[str, Any]:
        return {**super().options(), "sites": [*self.sites]}

    def slots(self, site: str = "self") -> Tensor:
        return self.get_parameter("control_trans" + SUFFIXES[site]).view(self.length, -1)

    def from_original(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {
            name: value.permute(3, 0, 1, 2, 4).reshape(-1) if value.ndim == 5 else value
            for name, value in state.items()
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load, whichever of its two shapes the parameter has."""
        return super().load_state_dict(self.from_original(state_dict), *args, **kwargs)
