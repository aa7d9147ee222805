"""``PrefixTuning`` for BART against the original's numbers, through its public methods."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from conftest import load_vectors, part, vector_cases
from torch.nn.functional import cross_entropy
from transformers import BartConfig, BartForConditionalGeneration

from prefix_tuning.attention import KeyValues, enable_prefix
from seq2seq.decoding import Search, generate
from seq2seq.prefixTuning import PrefixTuning

CASES = vector_cases("bart_")


def bart_of_vectors(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    ours = ("preseqlen", "mid_dim", "use_deep")
    model = BartForConditionalGeneration(
        BartConfig(**{k: v for k, v in config.items() if k not in ours})
    )
    model.load_state_dict(part(tensors, "base."))
    return enable_prefix(model.eval().requires_grad_(False))


def load(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor], Any, PrefixTuning]:
    case, tensors = load_vectors(f"bart_{name}")
    model, config = bart_of_vectors(case["config"], tensors), case["config"]
    prefix = PrefixTuning(
        model.config, model, config["preseqlen"], config["mid_dim"], use_deep=config["use_deep"]
    )
    prefix.load_state_dict(part(tensors, "prefix."))
    return case, tensors, model, prefix


@pytest.mark.parametrize("name", CASES)
def test_the_originals_prompt(name: str) -> None:
    case, tensors, _, prefix = load(name)
    rows = len(tensors["in.input_ids"])
    prompt = prefix.get_prompt(bsz=rows)
    for site, key in (("self", "self"), ("encoder", "encoder"), ("encoder_decoder", "cross")):
        found = torch.stack(
            [torch.stack([x[site]["prev_key"], x[site]["prev_value"]]) for x in prompt]
        )
        limit = case["reproduction"]["recommended_tolerance"]["past"]
        assert torch.allclose(found, tensors[f"out.past_{key}"], atol=limit, rtol=0)
    beams = prefix.get_prompt(bsz=2, sample_size=6)[0]
    assert beams["encoder"]["prev_key"].shape[0] == 2
    assert (
        beams["self"]["prev_value"].shape[0] == beams["encoder_decoder"]["prev_key"].shape[0] == 12
    )
    assert not beams["self"]["prev_key_padding_mask"].any()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_originals_logits_and_gradients(name: str, checkpointing: bool) -> None:
    case, tensors, model, prefix = load(name)
    tolerance = case["reproduction"]["recommended_tolerance"]
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()  # a layer checkpoints in train mode only; the cases have dropout 0.1
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.eval()
        for module in model.modules():
            for attribute in ("dropout", "activation_dropout"):
                if isinstance(getattr(module, attribute, None), float):
                    setattr(module, attribute, 0.0)
    labels = tensors["in.labels"]
    logits = prefix(
        tensors["in.input_ids"],
        gpt2_model=model,
        attention_mask=tensors["in.attention_mask"],
        decoder_input_ids=tensors["in.decoder_input_ids"],
        use_cache=False,
    ).logits
    real = labels != 1
    assert torch.allclose(
        logits[real], tensors["out.logits"][real], atol=tolerance["logits"], rtol=0
    )
    cross_entropy(logits[real], labels[real]).backward()
    for parameter, gradient in part(tensors, "grad.").items():
        found = prefix.get_parameter(parameter).grad
        assert torch.allclose(found, gradient, atol=tolerance["grad"], rtol=0), parameter


@pytest.mark.parametrize("name", CASES)
def test_the_originals_outputs(name: str) -> None:
    case, _, model, prefix = load(name)
    batches = case["generation_batches"]
    model.generation_config.forced_bos_token_id = 0  # as on the hub; the search must not heed it
    names = [field.name for field in fields(Search)]
    for run in case["generation"]:
        batch = {k: torch.tensor(v) for k, v in batches[run["batch"]].items()}
        search = Search(**{name: run[name] for name in names})
        found = generate(model, KeyValues(prefix.all_key_values()), search=search, **batch)
        assert found.tolist() == run["output"], run
