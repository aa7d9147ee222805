"""``PrefixTuning`` against the original's numbers, through its public methods."""

from __future__ import annotations

import pytest
import torch
from conftest import gpt2_of_vectors, load_vectors, part, tiny_model

from gpt2.train_control import PrefixTuning, add_pad_row
from prefix_tuning.attention import enable_prefix
from prefix_tuning.errors import UserError


@pytest.mark.parametrize("name", ["gpt2_mlp", "gpt2_mlp_p1", "gpt2_full_vocabulary"])
@pytest.mark.parametrize("targets_only", [True, False])
def test_the_originals_numbers(name: str, targets_only: bool) -> None:
    case, tensors = load_vectors(name)
    tolerance = case["reproduction"]["recommended_tolerance"]
    model = enable_prefix(gpt2_of_vectors(case["config"], tensors))
    prefix = PrefixTuning(
        model.config, model, preseqlen=case["prefix_length"], mid_dim=case["config"]["mid_dim"]
    )
    prefix.load_state_dict(part(tensors, "prefix."))
    ids, labels = tensors["in.input_ids"], tensors["in.labels"]

    past = torch.stack(prefix.get_prompt(bsz=len(ids)))
    assert torch.allclose(past, tensors["out.past"], atol=tolerance["past"], rtol=0)
    for mode in range(5):
        prefix.objective_mode = mode
        output = prefix(ids, gpt2_model=model, labels=labels, targets_only=targets_only)
        expected = tensors[f"out.loss_mode{mode}_returned"]
        assert output.loss.shape == expected.shape
        limit = tolerance[f"loss_mode{mode}"]
        assert torch.allclose(output.loss, expected, atol=limit, rtol=0)
        assert output.loss.mean().item() == pytest.approx(case["losses"][str(mode)], abs=limit)

    if not targets_only:
        check_logits(output.logits, tensors, tolerance["logits"])
    prefix.objective_mode = 1
    prefix(ids, gpt2_model=model, labels=labels, targets_only=targets_only).loss.mean().backward()
    for parameter, gradient in part(tensors, "grad.").items():
        found = prefix.get_parameter(parameter).grad
        assert torch.allclose(found, gradient, atol=tolerance["grad"], rtol=0), parameter


def check_logits(logits: torch.Tensor, tensors: dict[str, torch.Tensor], tolerance: float) -> None:
    if "out.logits" in tensors:
        assert torch.allclose(logits, tensors["out.logits"], atol=tolerance, rtol=0)
        return
    columns = logits[..., tensors["out.logits_columns"]]
    assert torch.allclose(columns, tensors["out.logits_at_columns"], atol=tolerance, rtol=0)
    normaliser = logits.logsumexp(-1)
    assert torch.allclose(normaliser, tensors["out.logits_logsumexp"], atol=tolerance, rtol=0)


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


def test_variants_of_a_later_version_are_refused() -> None:
    with pytest.raises(UserError, match="only the MLP prefix"):
        PrefixTuning(tiny_model("gpt2").config, use_infix=True)


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
