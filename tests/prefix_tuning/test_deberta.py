"""The promises of the way into attention, for the family that has a way of its own."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForTokenClassification, DebertaConfig, DebertaV2Config

from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.errors import UserError
from prefix_tuning.parametrizations import FlatPrefix
from prefix_tuning.shape import PrefixShape

P = 4
_COMMON = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "max_position_embeddings": 32,
}
CONFIGS = {
    "deberta": DebertaConfig(**_COMMON),
    "deberta-v2": DebertaV2Config(
        **_COMMON, position_buckets=8, share_att_key=True, norm_rel_ebd="layer_norm"
    ),
}
families = pytest.mark.parametrize("family", CONFIGS)


def build(family: str, auto_class: Any = AutoModel, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = auto_class.from_config(CONFIGS[family])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.3)
    return model.eval()


def prefix_of(model: Any, seed: int = 1) -> FlatPrefix:
    torch.manual_seed(seed)
    return FlatPrefix(PrefixShape.from_config(model.config), P)


def tokens(rows: int, width: int) -> torch.Tensor:
    return torch.randint(3, 50, (rows, width), generator=torch.Generator().manual_seed(2))


@families
def test_nothing_changes_without_a_prefix(family: str) -> None:
    ids = tokens(2, 9)
    expected = build(family)(ids).last_hidden_state
    model = enable_prefix(build(family))
    assert torch.equal(model(ids).last_hidden_state, expected)
    with_prefix = model(ids, prefix=KeyValues(prefix_of(model).key_values())).last_hidden_state
    assert not torch.allclose(with_prefix, expected, atol=0.01)
    assert torch.equal(model(ids).last_hidden_state, expected)


@families
def test_first_layer_by_hand(family: str) -> None:
    """Among tokens nothing changes; scores of slots have the content term at the common scale."""
    model = build(family)
    self_attention = model.encoder.layer[0].attention.self
    seen: dict[str, Any] = {}
    self_attention.register_forward_hook(lambda module, args, output: seen.update(hidden=args[0]))
    ids = tokens(1, 7)
    stock = model(ids, output_attentions=True).attentions[0]
    enable_prefix(model)
    prefix = prefix_of(model)
    found = model(ids, prefix=KeyValues(prefix.key_values()), output_attentions=True).attentions[0]
    tokens_only = found[..., P:] / found[..., P:].sum(-1, keepdim=True)
    assert torch.allclose(tokens_only, stock, atol=1e-5)
    query = _queries(self_attention, seen["hidden"])
    slots = query @ prefix.key_values()[0][0].transpose(-1, -2) / (8 * 3) ** 0.5
    ratios = found[..., 1:P] / found[..., :1]
    assert torch.allclose(ratios.log(), slots[..., 1:] - slots[..., :1], atol=1e-4)


def _queries(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Queries ``[B, H, T, d]`` as He et al. (2021) have them."""
    rows, width, _ = hidden.shape
    if hasattr(module, "query_proj"):
        return module.query_proj(hidden).view(rows, width, 4, 8).transpose(1, 2)
    weight = module.in_proj.weight.view(4, 3, 8, 32)[:, 0]  # per head: query, key, value
    bias = module.q_bias.view(4, 1, 8)
    return torch.einsum("btw,hdw->bhtd", hidden, weight) + bias


@families
def test_padding_changes_nothing(family: str) -> None:
    model = enable_prefix(build(family))
    layers = prefix_of(model).key_values()
    ids = tokens(1, 6)
    alone = model(ids, prefix=KeyValues(layers)).last_hidden_state
    for filler in (0, 17):
        padded = torch.cat([ids, torch.full((1, 4), filler)], dim=1)
        mask = torch.tensor([[1] * 6 + [0] * 4])
        found = model(padded, attention_mask=mask, prefix=KeyValues(layers)).last_hidden_state
        assert torch.allclose(found[:, :6], alone, atol=1e-5)


@families
def test_no_limit_where_positions_are_relative(family: str) -> None:
    model = enable_prefix(build(family))
    output = model(tokens(1, 60), prefix=KeyValues(prefix_of(model).key_values()))
    assert output.last_hidden_state.shape == (1, 60, 32)


@families
def test_gradient_checkpointing_gives_the_same_gradient(family: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = enable_prefix(build(family)).requires_grad_(False)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        prefix = prefix_of(model)
        output = model(tokens(2, 6), prefix=KeyValues(prefix.key_values()))
        output.last_hidden_state.square().sum().backward()
        gradients.append(prefix.control_trans.grad)
    assert gradients[0].view(P, -1).abs().sum(1).gt(0).all()
    assert torch.allclose(*gradients, atol=1e-5, rtol=1e-5)


@families
def test_reentrant_checkpointing_is_refused(family: str) -> None:
    model = enable_prefix(build(family))
    model.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(RuntimeError, match="use_reentrant"):
        model(tokens(1, 4), prefix=KeyValues(prefix_of(model).key_values()))


@families
def test_threads_do_not_mix_prefixes(family: str) -> None:
    model = enable_prefix(build(family))
    ids = tokens(2, 8)
    prefixes = [KeyValues(prefix_of(model, seed).key_values()) for seed in range(4)]
    with torch.no_grad():
        expected = [model(ids, prefix=p).last_hidden_state for p in prefixes]
    wrong: list[int] = []

    def run(number: int) -> None:
        with torch.no_grad():
            for _ in range(15):
                found = model(ids, prefix=prefixes[number]).last_hidden_state
                if not torch.equal(found, expected[number]):
                    wrong.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@families
def test_models_with_a_head(family: str) -> None:
    model = enable_prefix(build(family, AutoModelForTokenClassification))
    prefix = KeyValues(prefix_of(model).key_values())
    ids = tokens(2, 6)
    hidden = model.base_model  # shares layers, is not enabled itself
    assert not torch.allclose(model(ids, prefix=prefix).logits, model(ids).logits, atol=0.01)
    assert torch.equal(model.classifier(hidden(ids).last_hidden_state), model(ids).logits)


def test_talking_heads_are_refused() -> None:
    config = DebertaConfig(**_COMMON, talking_head=True)
    with pytest.raises(UserError, match="talking heads"):
        enable_prefix(AutoModel.from_config(config))
