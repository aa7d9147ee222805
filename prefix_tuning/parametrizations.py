"""The prefixes whose keys and values the frozen model takes part in, and the table of all.

Those of :class:`FlatPrefix` and :class:`MLPPrefix` are functions of their parameters alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PretrainedConfig, PreTrainedModel

from prefix_tuning.errors import UserError
from prefix_tuning.key_values import KeyValues
from prefix_tuning.observer import observe
from prefix_tuning.prefix import FlatPrefix, MLPPrefix, Prefix, check_width
from prefix_tuning.shape import PrefixShape

__all__ = ["PARAMETRIZATIONS", "EmbeddingPrefix", "FlatPrefix", "InfixPrefix", "MLPPrefix"]


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
        check_width(mid_dim)
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
        vectors = self.wte2.weight.to(model.dtype).expand(rows, -1, -1)  # [P, D] -> [B, P, D]
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


def _given(model: PreTrainedModel | None, prefix: Prefix) -> PreTrainedModel:
    if model is None:
        raise ValueError(f"{type(prefix).__name__} needs the frozen model for its keys and values")
    return model


PARAMETRIZATIONS: dict[str, type[Any]] = {
    cls.parametrization: cls for cls in (MLPPrefix, FlatPrefix, EmbeddingPrefix, InfixPrefix)
}
"""Name in flags and checkpoints -> class. One of your own needs a row here and no more."""
