"""``PrefixTuning`` against the original's numbers, through its public methods."""

from __future__ import annotations

import pytest
import torch
from conftest import (
    gpt2_of_vectors,
    load_vectors,
    part,
    prefix_of_vectors,
    tiny_model,
    vector_cases,
)

from gpt2.train_control import PrefixTuning, add_pad_row
from prefix_tuning.attention import enable_prefix


@pytest.mark.parametrize("name", vector_cases("gpt2_", "beam", "lowdata"))
@pytest.mark.parametrize("targets_only", [True, False])
def test_the_originals_numbers(name: str, targets_only: bool) -> None:
    case, tensors = load_vectors(f"gpt2_{name}")
    tolerance = case["reproduction"]["recommended_tolerance"]
    model = enable_prefix(gpt2_of_vectors(case["config"], tensors))
    prefix = prefix_of_vectors(case, tensors, model)
    assert prefix.length == case["prefix_length"]
    ids, labels = tensors["in.input_ids"], tensors["in.labels"]
    source, mask = tensors.get("in.src"), tensors.get("in.src_attn")
    inputs = {"src": source, "src_attn": mask, "targets_only": targets_only}
    if case["variant"] == "infix":
        inputs["attention_mask"] = tensors["in.tgt_attn"].long()

    past = torch.stack(prefix.get_prompt(len(ids), model, source, mask))
    seen = torch.ones(past.shape[2], past.shape[4], dtype=torch.bool)
    if mask is not None:  # what stands at padding is nobody's business
        seen[:, : mask.shape[1]] = mask
    difference = (past - tensors["out.past"]).abs() * seen[:, None, :, None]
    assert difference.max() <= tolerance["past"]
    for mode in range(5):
        prefix.objective_mode = mode
        output = prefix(ids, gpt2_model=model, labels=labels, **inputs)
        expected = tensors[f"out.loss_mode{mode}_returned"]
        assert output.loss.shape == expected.shape
        limit = tolerance[f"loss_mode{mode}"]
        assert torch.allclose(output.loss, expected, atol=limit, rtol=0)
        assert output.loss.mean().item() == pytest.approx(case["losses"][str(mode)], abs=limit)

    if not targets_only:
        check_logits(output.logits, tensors, tolerance["logits"])
    prefix.objective_mode = 1
    prefix(ids, gpt2_model=model, labels=labels, **inputs).loss.mean().backward()
    gradients = prefix.from_original(part(tensors, "grad."))
    assert gradients.keys() == {name for name, _ in prefix.named_parameters()}
    for parameter, gradient in gradients.items():
        found = prefix.get_parameter(parameter).grad
        assert torch.allclose(found, gradient, atol=tolerance["grad"], rtol=0), parameter


def check_logits(logits: torch.Tensor, tensors: dict[str, torch.Tensor], tolerance: float) -> None:
    if "out.logits" in tensors:
        seen = tensors.get("in.tgt_attn", torch.ones(logits.shape[:2], dtype=torch.bool))
        difference = (logits - tensors["out.logits"])[seen].abs()
        assert difference.max() <= tolerance
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
