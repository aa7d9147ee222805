"""GPT-2: keys and values, logits, losses, gradients, starts from words, and the search of 2020."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2.train_control import PrefixEmbTuning, PrefixTuning
from prefix_tuning.attention import enable_prefix
from prefix_tuning.beam_search import Hypotheses, beam_search
from prefix_tuning.initialization import activations, fit
from prefix_tuning.objectives import OBJECTIVE_MODES
from prefix_tuning.parametrizations import FlatPrefix, MLPPrefix
from prefix_tuning.shape import PrefixShape
from scripts.verify.cases import Case, difference, gradients
from scripts.verify.checks import Difference

SCORES = 2e-5
"""What may differ in the scores of hypotheses."""
_SIZES = "vocab_size n_layer n_head n_embd n_positions activation_function layer_norm_epsilon"


def model_of(case: Case) -> Any:
    """The frozen model of a case."""
    sizes = {name: case.about["config"][name] for name in _SIZES.split()}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    model.load_state_dict(case.part("base."))
    return enable_prefix(model.eval().requires_grad_(False))


def prefix_of(case: Case, model: Any) -> PrefixTuning:
    """The prefix of a case, through the original's constructors."""
    variant, given, config = (
        case.about["variant"],
        case.about["config"],
        copy.deepcopy(model.config),
    )
    config.init_shallow = "yes" if variant.startswith("shallow") else "no"
    if variant == "shallow_words":
        config.init_shallow_word = [given["word_ids"]]
    config.parametrize_emb = "Emb" if variant == "emb" else "MLP"
    prefix = (PrefixEmbTuning if variant.startswith("emb") else PrefixTuning)(
        config,
        preseqlen=given["preseqlen"],
        use_infix=variant == "infix",
        deep_param=variant == "deep",
        mid_dim=given.get("mid_dim"),
    )
    prefix.load_state_dict(case.part("prefix."))
    return prefix


def numbers(case: Case) -> Iterator[Difference]:
    """Keys and values, the five losses, logits and gradients of one batch."""
    model, bound = model_of(case), case.tolerance
    prefix = prefix_of(case, model)
    yield Difference("length", abs(prefix.length - case.about["prefix_length"]), 0)
    ids, labels = case.tensors["in.input_ids"], case.tensors["in.labels"]
    source, mask = case.tensors.get("in.src"), case.tensors.get("in.src_attn")
    inputs = {"src": source, "src_attn": mask}
    target_mask = case.tensors.get("in.tgt_attn")
    if target_mask is not None:
        inputs["attention_mask"] = target_mask.long()

    past = torch.stack(prefix.get_prompt(len(ids), model, source, mask))  # [L, 2, B, H, P, d]
    seen = torch.ones(past.shape[2], past.shape[4], dtype=torch.bool)
    if mask is not None:  # nobody sees what stands at padding
        seen[:, : mask.shape[1]] = mask
    seen = seen[:, None, :, None].expand_as(past)  # [B, P] -> [L, 2, B, H, P, d]
    yield difference("keys and values", past, case.tensors["out.past"], bound["past"], seen)
    for mode in OBJECTIVE_MODES:
        prefix.objective_mode = mode
        expected = case.tensors[f"out.loss_mode{mode}_returned"]
        for targets_only in (True, False):
            output = prefix(
                ids, gpt2_model=model, labels=labels, targets_only=targets_only, **inputs
            )
            yield difference(f"loss {mode}", output.loss, expected, bound[f"loss_mode{mode}"])
            apart = abs(output.loss.mean().item() - case.about["losses"][str(mode)])
            yield Difference(f"loss {mode}, mean", apart, bound[f"loss_mode{mode}"])
    yield from _logits(case, output.logits, target_mask)
    prefix.objective_mode = 1
    names = [name for name, _ in prefix.named_parameters()]
    for targets_only in (True, False):
        output = prefix(ids, gpt2_model=model, labels=labels, targets_only=targets_only, **inputs)
        found = torch.autograd.grad(output.loss.mean(), [*prefix.parameters()], allow_unused=True)
        yield gradients(
            dict(zip(names, found, strict=True)),
            prefix.from_original(case.part("grad.")),
            bound["grad"],
            "gradients",
        )
    if case.about["variant"] == "shallow_words":
        model.config.init_shallow, words = "yes", case.about["config"]["word_ids"]
        model.config.init_shallow_word = [words]
        start = PrefixTuning(model.config, model).get_parameter("control_trans")
        wanted = prefix.from_original(case.part("prefix."))["control_trans"]
        yield difference("start from words", start, wanted, bound["word_init"])


def _logits(case: Case, logits: Tensor, mask: Tensor | None) -> Iterator[Difference]:
    bound = case.tolerance["logits"]
    if "out.logits" in case.tensors:
        yield difference("logits", logits, case.tensors["out.logits"], bound, mask)
        return
    columns = logits[..., case.tensors["out.logits_columns"]]
    yield difference("logits", columns, case.tensors["out.logits_at_columns"], bound)
    expected = case.tensors["out.logits_logsumexp"]
    yield difference("normaliser", logits.logsumexp(-1), expected, bound)


def words(case: Case) -> Iterator[Difference]:
    """An MLP that is fitted to the activations of words: the target, 500 losses, the parameters."""
    model, bound = model_of(case), case.tolerance
    shape = PrefixShape.from_config(model.config)
    prefix = MLPPrefix(shape, case.about["prefix_length"], case.about["config"]["mid_dim"])
    prefix.load_state_dict(case.part("prefix_before."))
    targets = activations(model, case.tensors["in.word_ids"][None])
    found = torch.stack(FlatPrefix(shape, prefix.length, values=targets).key_values())
    yield difference("activations", found, case.tensors["out.target_past"], bound["target_past"])
    losses, expected = torch.tensor(fit(prefix, targets)), case.tensors["out.loss_curve"]
    yield difference("losses of the fit", losses, expected, bound["loss_curve"])
    for name, value in case.part("prefix_after.").items():
        yield difference(name, prefix.get_parameter(name), value, bound["prefix_after"])
    left = sum(parameter.grad is not None for parameter in prefix.parameters())
    yield Difference("gradients that the fit leaves behind", left, 0)


def outputs(case: Case) -> Iterator[Difference]:
    """Tokens and scores of beams and of greedy search, one by one and with padding in front."""
    model = model_of(case)
    prefix = prefix_of(case, model).eval()
    by_length = defaultdict(list)  # behind an infix, sources of one length
    for example in case.about["cases"]:
        by_length[len(example.get("source", []))].append(example)
    one_by_one = [[example] for example in case.about["cases"]]
    for name, groups in (("alone", one_by_one), ("in a batch", [*by_length.values()])):
        for n_beam, key in ((5, "output"), (1, "greedy_output")):
            differing, apart = 0, 0.0
            for group in groups:
                found = _search(case, model, prefix, group, n_beam)
                for hypotheses, example in zip(found, group, strict=True):
                    differing += example["prompt"] + hypotheses.tokens[0] != example[key]
                    if n_beam > 1:
                        scores = zip(
                            hypotheses.scores, example["final_hypothesis_scores"], strict=True
                        )
                        apart = max(apart, *(abs(a - b) for a, b in scores))
            yield Difference(f"outputs that differ, {n_beam} beams {name}", differing, 0)
            if n_beam > 1:
                yield Difference(f"scores of hypotheses {name}", apart, SCORES)


def _search(
    case: Case, model: Any, prefix: PrefixTuning, group: list[dict[str, Any]], n_beam: int
) -> list[Hypotheses]:
    prompts = [example["prompt"] for example in group]
    source = torch.tensor([e["source"] for e in group]) if prefix.reads_source else None
    width = max(map(len, prompts))
    return beam_search(
        model,
        prefix.prompt(model, len(group), source),
        torch.tensor([[0] * (width - len(p)) + p for p in prompts]),
        torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
        eos_token_id=case.about["eos_token_id"],
        num_beams=n_beam,
        max_new_tokens=20,
        min_length=case.about["min_length"],
        bad_token_ids=[ids[0] for ids in case.about["bad_words_ids"]],
    )
