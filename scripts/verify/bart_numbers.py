"""BART: keys and values of three sites, logits, both losses, gradients, and the search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax
from transformers import BartConfig, BartForConditionalGeneration

from prefix_tuning.attention import enable_prefix
from scripts.verify.cases import Case, difference, gradients
from scripts.verify.checks import Difference
from seq2seq.decoding import generate
from seq2seq.prefixTuning import PrefixTuning
from seq2seq.search import Search
from seq2seq.utils import label_smoothed_nll_loss

PAST = {"self": "self", "encoder": "encoder", "encoder_decoder": "cross"}
"""Our sites -> what the cases call them."""
_OWN = ("preseqlen", "mid_dim", "use_deep")


def load(case: Case) -> tuple[Any, PrefixTuning]:
    """The frozen model and the prefix of a case."""
    config = case.about["config"]
    model = BartForConditionalGeneration(
        BartConfig(**{k: v for k, v in config.items() if k not in _OWN})
    )
    model.load_state_dict(case.part("base."))
    enable_prefix(model.eval().requires_grad_(False))
    prefix = PrefixTuning(model.config, model, **{name: config[name] for name in _OWN})
    prefix.load_state_dict(case.part("prefix."))
    return model, prefix


def numbers(case: Case) -> Iterator[Difference]:
    """Keys and values, logits, plain and smoothed loss, and the gradients of both."""
    model, prefix = load(case)
    batch, bound = case.part("in."), case.tolerance
    prompt = prefix.get_prompt(bsz=len(batch["input_ids"]))
    for site, name in PAST.items():
        pairs = [torch.stack([p[site]["prev_key"], p[site]["prev_value"]]) for p in prompt]
        expected = case.tensors[f"out.past_{name}"]
        yield difference(f"keys and values, {name}", torch.stack(pairs), expected, bound["past"])

    labels = batch["labels"]
    shifted = model.prepare_decoder_input_ids_from_labels(labels=labels)
    shift = int((shifted != batch["decoder_input_ids"]).sum())
    yield Difference("decoder inputs that differ", shift, 0)
    inputs = {"attention_mask": batch["attention_mask"], "decoder_input_ids": shifted}
    is_target = labels != model.config.pad_token_id
    everywhere = prefix(batch["input_ids"], gpt2_model=model, use_cache=False, **inputs).logits
    yield difference("logits", everywhere, case.tensors["out.logits"], bound["logits"], is_target)
    for suffix in ("", "_smoothed"):
        logits = prefix(
            batch["input_ids"], gpt2_model=model, use_cache=False, is_target=is_target, **inputs
        ).logits
        loss, expected = _loss(logits, labels[is_target], suffix), case.tensors[f"out.loss{suffix}"]
        limit = 1e-4 * max(1.0, expected.item())
        yield difference(f"loss{suffix.replace('_', ', ')}", loss, expected, limit)
        found = torch.autograd.grad(loss, [*prefix.parameters()])
        names = [name for name, _ in prefix.named_parameters()]
        limit = bound.get(f"grad{suffix}", bound["grad"])
        expected_gradients = case.part(f"grad{suffix}.")
        yield gradients(
            dict(zip(names, found, strict=True)),
            expected_gradients,
            limit,
            f"gradients{suffix.replace('_', ', ')}",
        )


def _loss(logits: Tensor, labels: Tensor, suffix: str) -> Tensor:
    """The mean over tokens, or what the original smooths, a sum."""
    if not suffix:
        return cross_entropy(logits, labels)
    return label_smoothed_nll_loss(log_softmax(logits, dim=-1), labels, 0.1)[0]


def outputs(case: Case) -> Iterator[Difference]:
    """The tokens of greedy and beam search over padded batches."""
    model, prefix = load(case)
    model.generation_config.forced_bos_token_id = 0  # as on the hub; the search must not heed it
    names, front, differing = [field.name for field in fields(Search)], prefix.prompt(model), 0
    for run in case.about["generation"]:
        batch = case.about["generation_batches"][run["batch"]]
        tensors = {name: torch.tensor(batch[name]) for name in ("input_ids", "attention_mask")}
        search = Search(**{name: run[name] for name in names})
        found = generate(model, front, search=search, **tensors)
        differing += found.tolist() != run["output"]
    yield Difference("batches whose outputs differ", differing, 0)
