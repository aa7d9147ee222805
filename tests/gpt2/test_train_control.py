"""``PrefixTuning`` against the original's numbers, through its public methods."""

from __future__ import annotations

import pytest
import torch
from conftest import case_of, tiny_model, vector_cases, within

from gpt2.train_control import PrefixTuning, add_pad_row
from prefix_tuning.attention import enable_prefix
from scripts.verify import gpt2_numbers


@pytest.mark.parametrize("name", vector_cases("gpt2_", "beam", "lowdata"))
def test_the_originals_numbers(name: str) -> None:
    within(gpt2_numbers.numbers(case_of(f"gpt2_{name}")))


def test_the_same_keys_and_values_as_a_cache() -> None:
    stock, model = tiny_model("gpt2"), enable_prefix(tiny_model("gpt2"))
    prefix = PrefixTuning(model.config, preseqlen=4, mid_dim=8).eval()
    ids = torch.randint(3, 50, (3, 6))
    expected = stock(ids, past_key_values=prefix.get_cache(3)).logits
    assert torch.allclose(prefix(ids, gpt2_model=model).logits, expected, atol=1e-5)
    assert [pair.shape for pair in prefix.get_prompt(bsz=3)] == [(2, 3, 4, 4, 8)] * 3


def test_options_come_from_the_configuration_as_in_the_original() -> None:
    config = tiny_model("gpt2").config
    config.mid_dim, config.prefix_dropout, config._objective_mode = 24, 0.3, 2
    prefix = PrefixTuning(config)
    assert (prefix.mid_dim, prefix.dropout.p, prefix.objective_mode) == (24, 0.3, 2)
    assert prefix.length == 5
    assert PrefixTuning(tiny_model("gpt2").config).objective_mode == 1
    config.lowdata, config.lowdata_token = True, [[5, 6, 7]]
    from_word = PrefixTuning(config)
    assert (from_word.length, from_word.dropout.p) == (3, 0.3)  # only shallow words have none


def test_the_pad_row() -> None:
    """Drawn from N(0, 0.02) with the seed, tied to the head, and nothing else moves."""
    model, stock = tiny_model("gpt2"), tiny_model("gpt2")
    before = stock.get_input_embeddings().weight.clone()
    add_pad_row(model, 50, seed=3)
    weight = model.get_input_embeddings().weight
    assert model.config.vocab_size == 51
    assert torch.equal(weight[:50], before)
    row = torch.randn(32, generator=torch.Generator().manual_seed(3)) * 0.02
    assert torch.equal(weight[50], row)
    assert model.get_output_embeddings().weight is weight
