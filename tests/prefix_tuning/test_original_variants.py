"""The original's folders, whose parameters alone say which variant they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model
from torch import Tensor

from prefix_tuning import checkpoint
from prefix_tuning.errors import UserError
from prefix_tuning.parametrizations import PARAMETRIZATIONS
from prefix_tuning.shape import PrefixShape

CONFIG = tiny_model("gpt2").config
SHAPE = PrefixShape.from_config(CONFIG)


def original(folder: Path, state: dict[str, Tensor], **config: Any) -> Path:
    """A folder as the original writes it."""
    torch.save(state, folder / "pytorch_model.bin")
    content = {**CONFIG.to_dict(), "preseqlen": 4, **config}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mlp", {"mid_dim": 6}),
        ("mlp", {"mid_dim": 6, "deep": True}),
        ("mlp", {"mid_dim": SHAPE.width, "deep": True}),  # wide as an embedding
        ("infix", {"mid_dim": 6}),
        ("infix", {"mid_dim": 6, "deep": True}),
        ("embedding", {"mid_dim": 6}),
        ("embedding", {"mlp": False}),
        ("flat", {}),
    ],
)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_parameters_tell_the_variant(
    tmp_path: Path, kind: str, options: dict[str, Any], dropout: float
) -> None:
    made = PARAMETRIZATIONS[kind](SHAPE, 5, **options, dropout=dropout)
    state = {k: v.clone() for k, v in made.state_dict().items()}
    found, meta = checkpoint.load(original(tmp_path, state, prefix_dropout=dropout))
    assert type(found) is type(made)
    assert found.options() == made.options()
    assert meta["parametrization"] == kind
    assert meta["original"] is True
    for name, value in state.items():
        assert torch.equal(found.state_dict()[name], value), name


def test_a_prefix_started_from_words_has_no_dropout(tmp_path: Path) -> None:
    pairs = torch.randn(2 * SHAPE.n_layer, 1, SHAPE.n_head, 5, SHAPE.head_dim)
    folder = original(tmp_path, {"control_trans": pairs}, prefix_dropout=0.3)
    found, _ = checkpoint.load(folder)
    assert found.options() == {"length": 5, "dropout": 0.0, "sites": ["self"]}
    assert torch.equal(torch.cat(found.key_values()), pairs.reshape(-1, *pairs.shape[1:]))


@pytest.mark.parametrize(
    ("state", "config", "message"),
    [
        ({"wte.weight": torch.zeros(5, 32)}, {"model_type": "gpt3"}, "unknown model_type 'gpt3'"),
        ({"wte.weight": torch.zeros(5, 32)}, {"model_type": ["x"]}, r"unknown model_type \['x'\]"),
        ({"control_trans": torch.tensor(1.0)}, {}, "control_trans is a single number"),
        ({"wte.weight": torch.tensor(1.0)}, {}, "wte.weight is a single number"),
        ({"other": torch.zeros(3)}, {}, "lacks wte.weight"),
    ],
)
def test_folders_of_nothing_known(
    tmp_path: Path, state: dict[str, Tensor], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        checkpoint.load(original(tmp_path, state, **config))
