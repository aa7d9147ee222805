"""A prefix as parameters: what all parametrisations share, keys and values, and the paper's MLP.

For a model of ``L`` layers, ``H`` key/value heads of size ``d`` and width ``D``, a prefix of
length ``P`` is ``P`` keys and ``P`` values in front of every attention (Li & Liang 2021,
section 4.2). Parameter names, shapes and memory layout are those of the original release, so its
checkpoints load; initialisation is PyTorch's own (embeddings N(0, 1), linear layers uniform), not
the N(0, 0.02) that a ``PreTrainedModel`` would apply.

Every prefix becomes a :class:`FlatPrefix` for inference. ``parametrizations.py`` has the classes
for which the frozen model computes keys and values, and the table of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from prefix_tuning.initialization import fit
from prefix_tuning.key_values import KeyValues
from prefix_tuning.names import SITES
from prefix_tuning.shape import PrefixShape

_SUFFIXES = dict(zip(SITES, ("", "_enc", "2"), strict=True))


def parameter_name(name: str, site: str) -> str:
    """What the original calls the parameters ``name`` of the prefix at ``site``."""
    return name + _SUFFIXES[site]


class Prefix(nn.Module):
    """What the parametrisations share: slots that become keys and values, with dropout.

    A parametrisation is a subclass with a name (:attr:`parametrization`), its own constructor and
    :meth:`options`, and :meth:`slots`; it is known everywhere once it is in the table
    :data:`prefix_tuning.parametrizations.PARAMETRIZATIONS`.

    Args:
        shape: of the model, or the model's configuration.
        length: ``P``.
        dropout: on the generated keys and values, while training.
        sites: the attentions that have a prefix, each with parameters of its own.
    """

    def __init__(
        self,
        shape: PrefixShape | PretrainedConfig,
        length: int,
        dropout: float = 0.0,
        sites: Sequence[str] = ("self",),
    ) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"a prefix needs at least one slot, not {length}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is at least 0 and less than 1, not {dropout}")
        if not sites or not set(sites) <= {*SITES}:
            raise ValueError(f"a prefix stands at one or more of {[*SITES]}, not at {sites}")
        self.shape = PrefixShape.of(shape)
        self.length = length
        self.sites = tuple(site for site in SITES if site in sites)
        self.dropout = nn.Dropout(dropout)

    parametrization: str
    """The name under which flags and checkpoints know the class."""
    reads_source = False
    """Whether the keys and values depend on the source, which then stands in front of them."""
    uses_model = False
    """Whether the frozen model takes part in computing the keys and values: what :meth:`prompt`
    is overridden for."""
    can_start = False
    """Whether flags may have it start from keys and values: where :meth:`start` is overridden."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.uses_model = cls.prompt is not Prefix.prompt
        cls.can_start = cls.start is not Prefix.start

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
        slots = self.slots(site).expand(rows, -1, -1)  # [P, 2LHd] -> [rows, P, 2LHd]
        return self.shape.to_layers(self.dropout(slots)).unbind(0)

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
        values = {
            site: self.shape.to_slots(torch.stack(pairs)[:, :, 0])  # [L, 2, 1, H, P, d], one row
            for site, pairs in sites.items()
        }
        return FlatPrefix(self.shape, self.length, sites=self.sites, values=values)

    def start(self, slots: Mapping[str, Tensor], **fitting: Any) -> None:
        """Start from given keys and values (section 7.4 of the paper).

        Args:
            slots: per site ``[P, 2LHd]``, as :func:`prefix_tuning.initialization.activations`
                returns them.
            fitting: further arguments of :func:`prefix_tuning.initialization.fit`, where parameters
                have to be fitted; other parametrisations ignore them.

        Raises:
            ValueError: the frozen model takes part in computing its keys and values.
        """
        raise ValueError(f"{type(self).__name__} cannot start from keys and values")

    def start_at_zero(self) -> None:
        """Let all keys and values start at 0.

        That is not no prefix: the score of a zero key is 0, so every slot takes a share of the
        attention away from the tokens, and gives nothing for it.

        Raises:
            ValueError: as :meth:`start`.
        """
        raise ValueError(f"{type(self).__name__} cannot start from keys and values")

    def from_original(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The original's parameters in the shapes they have here, where these differ."""
        return state


class FlatPrefix(Prefix):
    """Keys and values as the parameters themselves.

    One parameter per site, ``control_trans [P * 2LHd]``, drawn from N(0, 1) unless ``values`` has
    its slots: the original's ``init_shallow``. Started from words, the original's parameter has
    the shape ``[2L, 1, H, P, d]``, which loads too.
    """

    parametrization = "flat"

    def __init__(
        self,
        shape: PrefixShape | PretrainedConfig,
        length: int,
        dropout: float = 0.0,
        sites: Sequence[str] = ("self",),
        values: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(shape, length, dropout, sites)
        for site in self.sites:
            flat = torch.randn(length * self.shape.features) if values is None else values[site]
            parameter = nn.Parameter(flat.detach().clone().reshape(-1))
            self.register_parameter(parameter_name("control_trans", site), parameter)

    def options(self) -> dict[str, Any]:
        return {**super().options(), "sites": [*self.sites]}

    def slots(self, site: str = "self") -> Tensor:
        return self.get_parameter(parameter_name("control_trans", site)).view(self.length, -1)

    @torch.no_grad()
    def start(self, slots: Mapping[str, Tensor], **fitting: Any) -> None:
        """Take the given keys and values as they are."""
        for site in self.sites:
            self.slots(site).copy_(slots[site])

    @torch.no_grad()
    def start_at_zero(self) -> None:
        """Let the parameters be 0."""
        for site in self.sites:
            self.slots(site).zero_()

    def from_original(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Parameters started from words, ``[2L, 1, H, P, d]``, in the shape they have here."""
        return {name: self._flat(v) if v.ndim == 5 else v for name, v in state.items()}

    def _flat(self, pairs: Tensor) -> Tensor:
        layers = pairs[:, 0].unflatten(0, (-1, 2))  # [2L, 1, H, P, d] -> [L, 2, H, P, d]
        return self.shape.to_slots(layers).reshape(-1)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load, whichever of its two shapes the parameter has."""
        return super().load_state_dict(self.from_original(state_dict), *args, **kwargs)


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
        shape: PrefixShape | PretrainedConfig,
        length: int,
        mid_dim: int = 512,
        dropout: float = 0.0,
        deep: bool = False,
        sites: Sequence[str] = ("self",),
    ) -> None:
        super().__init__(shape, length, dropout, sites)
        check_width(mid_dim)
        self.mid_dim = mid_dim
        self.deep = deep
        for site in self.sites:
            hidden = [nn.Linear(mid_dim, mid_dim), nn.Tanh()] if deep else []
            self.add_module(parameter_name("wte", site), nn.Embedding(length, self.shape.width))
            mlp = nn.Sequential(
                nn.Linear(self.shape.width, mid_dim),
                nn.Tanh(),
                *hidden,
                nn.Linear(mid_dim, self.shape.features),
            )
            self.add_module(parameter_name("control_trans", site), mlp)

    def options(self) -> dict[str, Any]:
        options = {"sites": [*self.sites], "mid_dim": self.mid_dim, "deep": self.deep}
        return {**super().options(), **options}

    def slots(self, site: str = "self") -> Tensor:
        embedding = self.get_submodule(parameter_name("wte", site))
        mlp = self.get_submodule(parameter_name("control_trans", site))
        return mlp(embedding.weight)  # equation 3: P = MLP(P'), [P, D] -> [P, 2LHd]

    def start(self, slots: Mapping[str, Tensor], **fitting: Any) -> None:
        """Fit the MLPs to these keys and values: :func:`prefix_tuning.initialization.fit`."""
        fit(self, slots, **fitting)

    @torch.no_grad()
    def start_at_zero(self) -> None:
        """Let the last layers of the MLPs be 0."""
        for site in self.sites:
            mlp = self.get_submodule(parameter_name("control_trans", site))
            for parameter in cast(nn.Sequential, mlp)[-1].parameters():
                parameter.zero_()


def check_width(mid_dim: int) -> None:
    """Raise ValueError for a width that no MLP has."""
    if mid_dim < 1:
        raise ValueError(f"the MLP of a prefix is at least 1 wide, not {mid_dim}")
