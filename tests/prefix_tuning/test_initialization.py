"""Activations against the original's numbers and the model's own matrices; fitting likewise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import case_of, tiny_model, vector_cases, within
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration

from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.initialization import activations, fit
from prefix_tuning.parametrizations import FlatPrefix, MLPPrefix
from prefix_tuning.shape import PrefixShape
from scripts.verify import gpt2_numbers


@pytest.mark.parametrize("name", vector_cases("gpt2_lowdata_init_"))
def test_the_originals_fit_to_words(name: str) -> None:
    within(gpt2_numbers.words(case_of(f"gpt2_lowdata_init_{name}")))


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_a_text_as_prefix_gives_the_logits_of_the_text_in_front(family: str) -> None:
    model = enable_prefix(tiny_model(family))
    words = torch.tensor([[7, 30, 12, 5]])
    text = torch.tensor([[9, 8, 41], [4, 4, 20]])
    flat = FlatPrefix(PrefixShape.from_config(model.config), 4, values=activations(model, words))
    found = model(text, prefix=KeyValues(flat.key_values())).logits
    expected = model(torch.cat([words.expand(2, -1), text], dim=1)).logits[:, 4:]
    assert torch.allclose(found, expected, atol=1e-5)


def bart() -> Any:
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=40,
        d_model=16,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=20,
    )
    model = BartForConditionalGeneration(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.normal_(0.0, 0.3)
    return model


def projections(model: Any, stack: str, attention: str, run: Any) -> list[Tensor]:
    """What k_proj and v_proj of every layer put out during ``run()``: ``2L`` of ``[B, T, D]``."""
    outputs: list[Tensor] = []
    hooks = [
        getattr(getattr(layer, attention), name).register_forward_hook(
            lambda _m, _i, output: outputs.append(output)
        )
        for layer in getattr(model.model, stack).layers
        for name in ("k_proj", "v_proj")
    ]
    run()
    for hook in hooks:
        hook.remove()
    return outputs


def test_barts_three_attentions_get_the_words_own_projections() -> None:
    stock, model = bart(), enable_prefix(bart())
    words = torch.tensor([[0, 17, 25, 9, 2]])
    found = activations(model, words)
    encoder = projections(stock, "encoder", "self_attn", lambda: stock.model.encoder(words))
    hidden = stock.model.encoder(words).last_hidden_state

    def decode(token: int) -> Any:
        return stock.model.decoder(torch.tensor([[token]]), encoder_hidden_states=hidden)

    cross = projections(stock, "decoder", "encoder_attn", lambda: decode(2))
    alone = [
        projections(stock, "decoder", "self_attn", lambda token=token: decode(token))
        for token in (2, 0, 17, 25, 9)  # shifted right; every token sees itself alone
    ]
    own = [torch.cat(outputs, dim=1) for outputs in zip(*alone, strict=True)]
    for site, expected in (("encoder", encoder), ("encoder_decoder", cross), ("self", own)):
        slots = found[site].view(5, 6, 16)  # [P, 2L, H * d]
        for index, projection in enumerate(expected):
            assert torch.allclose(slots[:, index], projection[0], atol=1e-5), (site, index)
    assert not found["encoder"].view(5, 6, 16)[:, 4:].any()  # the encoder has one layer fewer


def test_a_fit_brings_all_three_prefixes_nearer() -> None:
    model = enable_prefix(bart())
    targets = activations(model, torch.tensor([[0, 17, 2]]))
    prefix = MLPPrefix(PrefixShape.from_config(model.config), 3, 8, sites=[*targets])
    before = {site: (prefix.slots(site) - targets[site]).square().mean() for site in targets}
    losses = fit(prefix, targets, steps=30, learning_rate=1e-2, train_embedding=True)
    assert losses[0] == pytest.approx(sum(before.values()).item(), rel=1e-5)
    for site, error in before.items():
        assert (prefix.slots(site) - targets[site]).square().mean() < 0.8 * error
    assert all(parameter.grad is None for parameter in prefix.parameters())
