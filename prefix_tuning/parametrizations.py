"""The parametrisations of a prefix, and the table of all of them.

The keys and values of :class:`FlatPrefix` and :class:`MLPPrefix` are functions of their parameters
alone; the frozen model takes part in computing those of the other two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PretrainedConfig, PreTrainedModel

from prefix_tuning.errors import UserError
from prefix_tuning.initialization import fit
from prefix_tuning.key_values import KeyValues
from prefix_tuning.observer import observe
from prefix_tuning.prefix import FlatPrefix, Prefix, parameter_name
from prefix_tuning.shape import PrefixShape

__all__ = ["PARAMETRIZATIONS", "EmbeddingPrefix", "FlatPrefix", "InfixPrefix", "MLPPrefix"]


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
        _check_width(mid_dim)
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


class EmbeddingPrefix(Prefix):
    """Trained vectors where words would be: only the input of the first layer is free.

    The frozen model reads ``P`` vectors at positions ``0..P-1``, and what its attentions compute
    for them are the keys and values (the embedding-only ablation, section 7.2 of the paper).
    Parameters: ``wte.weight [P, D]``, the vectors themselves; with ``mlp`` they go through
    ``control_trans.0 [M, D]``, a tanh and ``control_trans.2 [D, M]`` first.
    """

    parametrization = "embedding"

    def __init__(
        self,
        shape: PrefixShape | PretrainedConfig,
        length: int,
        mid_dim: int = 512,
        dropout: float = 0.0,
        mlp: bool = True,
    ) -> None:
        super().__init__(shape, length, dropout, ("self",))
        _check_width(mid_dim)
        self.mid_dim, self.mlp = mid_dim, mlp
        self.wte = nn.Embedding(length, self.shape.width)
        self.control_trans: nn.Module = nn.Identity()
        if mlp:
            self.control_trans = nn.Sequential(
                nn.Linear(self.shape.width, mid_dim),
                nn.Tanh(),
                nn.Linear(mid_dim, self.shape.width),
            )

    def options(self) -> dict[str, Any]:
        return {**super().options(), "mid_dim": self.mid_dim, "mlp": self.mlp}

    def prompt(
        self,
        model: PreTrainedModel | None = None,
        batch_size: int = 1,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
    ) -> KeyValues:
        model = _given(model, self)
        vectors = self.control_trans(self.wte.weight)
        rows = batch_size if self.training and self.dropout.p > 0 else 1
        vectors = self.dropout(vectors.expand(rows, -1, -1))  # [P, D] -> [rows, P, D]
        return KeyValues(observe(model, inputs_embeds=vectors.to(model.dtype)).layers())


class InfixPrefix(MLPPrefix):
    """An MLP prefix between source and target, ``[x; infix; y]`` (section 7.3 of the paper).

    The frozen model reads the source and ``P`` vectors behind it (``wte2.weight [P, D]``); the
    MLP's keys and values are added to those it computes for the vectors. Everything together,
    padding of the source hidden, stands in front of the target, which is numbered from the end of
    it: as in the original, positions behind a padded source count its padding.
    """

    parametrization = "infix"
    reads_source = True

    def __init__(
        self,
        shape: PrefixShape | PretrainedConfig,
        length: int,
        mid_dim: int = 512,
        dropout: float = 0.0,
        deep: bool = False,
    ) -> None:
        super().__init__(shape, length, mid_dim, dropout, deep)
        self.wte2 = nn.Embedding(length, self.shape.width)

    def options(self) -> dict[str, Any]:
        return {**Prefix.options(self), "mid_dim": self.mid_dim, "deep": self.deep}

    start = Prefix.start  # given keys and values would not be all of its own

    def prompt(
        self,
        model: PreTrainedModel | None = None,
        batch_size: int = 1,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
    ) -> KeyValues:
        model = _given(model, self)
        if source is None:
            raise UserError(
                "an infix depends on the source and has no keys and values of its own: keep its "
                "checkpoint, and give its prompt the source"
            )
        rows, n_source = source.shape
        words = model.get_input_embeddings()(source)
        vectors = self.wte2.weight.to(model.dtype).expand(rows, -1, -1)
        visible = None
        if source_mask is not None:
            visible = pad(source_mask.bool(), (0, self.length), value=True)
        computed = observe(
            model, inputs_embeds=torch.cat([words, vectors], dim=1), attention_mask=visible
        ).layers()
        own = self.key_values(rows)
        # Its own [2, B, H, P, d] with zeros in front: [2, B, H, S + P, d], as the model's.
        layers = [c + pad(o, (0, 0, n_source, 0)) for c, o in zip(computed, own, strict=True)]
        return KeyValues(layers, visible=visible)


def _check_width(mid_dim: int) -> None:
    if mid_dim < 1:
        raise ValueError(f"the MLP of a prefix is at least 1 wide, not {mid_dim}")


def _given(model: PreTrainedModel | None, prefix: Prefix) -> PreTrainedModel:
    if model is None:
        raise ValueError(f"{type(prefix).__name__} needs the frozen model for its keys and values")
    return model


PARAMETRIZATIONS: dict[str, type[Any]] = {
    cls.parametrization: cls for cls in (MLPPrefix, FlatPrefix, EmbeddingPrefix, InfixPrefix)
}
"""Name in flags and checkpoints -> class. One of your own needs a row here and no more."""
