"""A prefix that a model cannot use is an error, and never ignored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import FAMILIES, tiny_model
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Stack

from prefix_tuning import FlatPrefix, KeyValues, MLPPrefix, backends, guard
from prefix_tuning.attention import enable_prefix
from prefix_tuning.errors import UserError

IDS = torch.arange(3, 10)[None]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_was_not_enabled_says_so(family: str, attention: str) -> None:
    model = tiny_model(family, attention)
    prefix = FlatPrefix(model.config, 3)
    for given in (prefix, prefix.prompt()):
        for called in (model, model.base_model):
            with pytest.raises(UserError, match=r"enable_prefix\(model\) first"):
                called(IDS, prefix=given)
    model(IDS, prefix=None)
    enable_prefix(model)(IDS, prefix=prefix)


@pytest.mark.parametrize(
    ("cls", "config"),
    [
        (BertForMaskedLM, BertConfig(vocab_size=50, hidden_size=32, num_attention_heads=4)),
        (T5ForConditionalGeneration, T5Config(vocab_size=50, d_model=32, d_kv=8, num_heads=4)),
    ],
)
def test_other_kinds_of_models_say_so_too(cls: Any, config: Any) -> None:
    model = cls(config)
    with pytest.raises(UserError, match=r"enable_prefix\(model\) first"):
        model(input_ids=IDS, prefix=FlatPrefix(config, 3).prompt())


@torch.no_grad()
def test_a_prefix_module_is_what_it_makes() -> None:
    model = enable_prefix(tiny_model("llama"))
    prefix = MLPPrefix(model.config, length=3)
    given = model(IDS, prefix=prefix).logits
    assert torch.equal(given, model(IDS, prefix=prefix.prompt()).logits)
    options = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(
        model.generate(IDS, **options, prefix=prefix),
        model.generate(IDS, **options, prefix=prefix.prompt()),
    )


@pytest.mark.parametrize("name", ["input", "decoder_input"])
def test_embedded_words_are_rows_as_well(name: str) -> None:
    for what, given in (("s_embeds", torch.zeros(3, 2, 4)), ("_ids", torch.zeros(3, 2))):
        assert guard.n_row({"input_ids": None, name + what: given}) == 3


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 4, 8), "4 layers, 4 key/value heads of size 8, but GPT2LMHeadModel has 3, 4 of size"),
        ((2, 4, 8), "2 layers"),
        ((3, 2, 8), "2 key/value heads"),
        ((3, 4, 16), "size 16"),
    ],
)
def test_another_models_shape(shape: tuple[int, int, int], message: str) -> None:
    n_layer, n_head, size = shape
    model = enable_prefix(tiny_model("gpt2"))
    layers = [torch.zeros(2, 1, n_head, 3, size)] * n_layer
    with pytest.raises(UserError, match=message):
        model(IDS, prefix=KeyValues(layers))


def test_attentions_and_types_that_are_not_there() -> None:
    model = enable_prefix(tiny_model("gpt2"))
    sites = FlatPrefix(model.config, 3, sites=["self", "encoder"])
    with pytest.raises(UserError, match="stands at the encoder attention"):
        model(IDS, prefix=sites)
    with pytest.raises(UserError, match="takes KeyValues, or a prefix that makes them, not tuple"):
        model(IDS, prefix=sites.key_values())
    with pytest.raises(UserError, match="not Linear"):
        model(IDS, prefix=torch.nn.Linear(2, 2))


def test_a_model_with_a_part_that_is_not_reached_is_refused_by_its_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As T5 before transformers 5.23, whose stacks have configurations of their own."""
    model = T5ForConditionalGeneration(T5Config(vocab_size=50, d_model=32, d_kv=8, num_heads=4))
    monkeypatch.setattr(backends, "_is_enabled", lambda part: not isinstance(part, T5Stack))
    before = type(model), model.config._attn_implementation
    with pytest.raises(UserError, match=r"T5ForConditionalGeneration cannot carry .*T5Stack would"):
        enable_prefix(model)
    assert (type(model), model.config._attn_implementation) == before, "it is what it was"
