"""The parametrisations: counts, shapes, layout, dropout, against the paper and by hand."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from prefix_tuning.parametrizations import EmbeddingPrefix, FlatPrefix, MLPPrefix
from prefix_tuning.shape import PrefixShape

MEDIUM = PrefixShape(n_layer=24, n_head=16, head_dim=64, width=1024)
TINY = PrefixShape(n_layer=2, n_head=3, head_dim=4, width=12)


@pytest.mark.parametrize(
    ("length", "trained", "stored"),
    [(1, 25_740_800, 49_152), (5, 25_744_896, 245_760), (10, 25_750_016, 491_520)],
)
def test_parameter_counts_of_gpt2_medium(length: int, trained: int, stored: int) -> None:
    with torch.device("meta"):
        mlp = MLPPrefix(MEDIUM, length)
        flat = FlatPrefix(MEDIUM, length)
    assert sum(p.numel() for p in mlp.parameters()) == trained
    assert sum(p.numel() for p in flat.parameters()) == stored


def test_state_dict_has_the_originals_names_and_shapes() -> None:
    state = {k: [*v.shape] for k, v in MLPPrefix(TINY, 5, mid_dim=7).state_dict().items()}
    assert state == {
        "wte.weight": [5, 12],
        "control_trans.0.weight": [7, 12],
        "control_trans.0.bias": [7],
        "control_trans.2.weight": [48, 7],
        "control_trans.2.bias": [48],
    }


def test_layout_by_hand() -> None:
    """Feature ((2 l + kv) H + h) d + j of slot p is number j of head h of layer l."""
    prefix = MLPPrefix(TINY, 5, mid_dim=7)
    hidden = torch.tanh(
        prefix.wte.weight @ prefix.control_trans[0].weight.T + prefix.control_trans[0].bias
    )
    table = hidden @ prefix.control_trans[2].weight.T + prefix.control_trans[2].bias
    layers = prefix.key_values()
    for layer, kv, head, slot, j in [(0, 0, 0, 0, 0), (1, 0, 2, 4, 3), (0, 1, 1, 2, 1)]:
        feature = ((2 * layer + kv) * 3 + head) * 4 + j
        assert layers[layer][kv, 0, head, slot, j].item() == pytest.approx(
            table[slot, feature].item(), abs=1e-6
        )


def test_pytorchs_own_initialisation() -> None:
    torch.manual_seed(0)
    prefix = MLPPrefix(PrefixShape(4, 4, 16, 256), 64, mid_dim=400)
    assert prefix.wte.weight.std().item() == pytest.approx(1.0, abs=0.02)
    linear = prefix.control_trans[0]
    bound = 256**-0.5
    assert bound * 0.98 < linear.weight.abs().max().item() <= bound
    assert bound * 0.9 < linear.bias.abs().max().item() <= bound


def test_flatten_drops_the_mlp_and_keeps_the_values() -> None:
    prefix = MLPPrefix(TINY, 5, mid_dim=7)
    flat = prefix.flatten()
    assert [name for name, _ in flat.named_parameters()] == ["control_trans"]
    for one, other in zip(prefix.key_values(), flat.key_values(), strict=True):
        assert torch.equal(one, other)


def test_dropout_has_a_mask_of_its_own_per_row_and_only_in_training() -> None:
    prefix = MLPPrefix(TINY, 50, mid_dim=7, dropout=0.4)
    rows = prefix.key_values(3)[0]
    assert rows.shape[1] == 3
    dropped = rows == 0
    assert dropped.float().mean().item() == pytest.approx(0.4, abs=0.05)
    assert not torch.equal(dropped[:, 0], dropped[:, 1])
    clean = prefix.eval().key_values(3)[0]
    assert clean.shape[1] == 1
    kept = ~dropped[:, :1]
    assert torch.allclose(rows[:, :1][kept], clean[kept] / 0.6, atol=1e-6)


def test_without_dropout_one_row_serves_every_batch() -> None:
    assert MLPPrefix(TINY, 5).key_values(8)[0].shape == (2, 1, 3, 5, 4)


def test_shape_is_that_of_the_key_heads() -> None:
    llama = LlamaConfig(
        hidden_size=64, num_attention_heads=8, num_key_value_heads=2, num_hidden_layers=3
    )
    assert PrefixShape.from_config(llama) == PrefixShape(3, 2, 8, 64)
    assert PrefixShape.from_config(GPT2Config()) == PrefixShape(12, 12, 64, 768)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_dropout_leaves_something(dropout: float) -> None:
    with pytest.raises(ValueError, match="less than 1"):
        FlatPrefix(TINY, 3, dropout)


@pytest.mark.parametrize("kind", [MLPPrefix, EmbeddingPrefix])
def test_a_prefix_is_not_behind_an_empty_layer(kind: type[MLPPrefix]) -> None:
    with pytest.raises(ValueError, match="at least 1 wide"):
        kind(TINY, 3, mid_dim=0)


def test_a_prefix_needs_a_slot() -> None:
    with pytest.raises(ValueError, match="at least one slot"):
        MLPPrefix(TINY, 0)
