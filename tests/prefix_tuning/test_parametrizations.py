"""Variants that the frozen model takes part in: identities with words, gradients, round trips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import load_vectors, part, tiny_model, vector_cases

from prefix_tuning import checkpoint
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.beam_search import beam_search
from prefix_tuning.errors import UserError
from prefix_tuning.initialization import activations, resize
from prefix_tuning.objectives import target_nll
from prefix_tuning.parametrizations import (
    PARAMETRIZATIONS,
    EmbeddingPrefix,
    FlatPrefix,
    InfixPrefix,
    MLPPrefix,
)
from prefix_tuning.prefix import Prefix
from prefix_tuning.shape import PrefixShape

MEDIUM = PrefixShape(n_layer=24, n_head=16, head_dim=64, width=1024)
VARIANTS: dict[str, dict[str, Any]] = {
    "mlp": {"mid_dim": 8},
    "deep": {"mid_dim": 8, "deep": True},
    "flat": {},
    "embedding": {"mid_dim": 8},
    "embedding_free": {"mlp": False},
    "infix": {"mid_dim": 8},
    "infix_deep": {"mid_dim": 8, "deep": True},
}
SOURCE = torch.tensor([[7, 30, 12, 5], [9, 41, 2, 2]])
SOURCE_MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
TARGET = torch.tensor([[1, 8, 41, 20, 6], [1, 4, 20, 11, 3]])
WORDS = torch.tensor([17, 25, 33])


def make(variant: str, shape: PrefixShape, length: int = 3, **more: Any) -> Prefix:
    name = {"deep": "mlp"}.get(variant, variant.partition("_")[0])
    return PARAMETRIZATIONS[name](shape, length, **VARIANTS[variant], **more)


def prompt(prefix: Prefix, model: Any) -> KeyValues:
    return prefix.prompt(model, len(SOURCE), SOURCE, SOURCE_MASK)


COUNTS = {
    "mlp": (25_740_800, 25_744_896, 25_745_920, 25_750_016, 25_760_256),
    "infix": (25_741_824, 25_750_016, 25_752_064, 25_760_256, 25_780_736),
    "deep": (26_003_456, 26_007_552, 26_008_576, 26_012_672, 26_022_912),
    "flat": (49_152, 245_760, 294_912, 491_520, 983_040),
    "embedding_free": (1_024, 5_120, 6_144, 10_240, 20_480),
    "embedding": (1_051_136, 1_055_232, 1_056_256, 1_060_352, 1_070_592),
}


@pytest.mark.parametrize("variant", COUNTS)
def test_parameter_counts_of_gpt2_medium(variant: str) -> None:
    for length, count in zip((1, 5, 6, 10, 20), COUNTS[variant], strict=True):
        options = {**VARIANTS[variant], "mid_dim": 512}
        if variant == "flat":
            del options["mid_dim"]
        name = {"deep": "mlp"}.get(variant, variant.partition("_")[0])
        with torch.device("meta"):
            prefix = PARAMETRIZATIONS[name](MEDIUM, length, **options)
        assert sum(p.numel() for p in prefix.parameters()) == count


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_the_embeddings_of_words_give_the_logits_of_the_words_in_front(family: str) -> None:
    model = enable_prefix(tiny_model(family))
    prefix = EmbeddingPrefix(PrefixShape.from_config(model.config), 3, mlp=False)
    with torch.no_grad():
        prefix.wte.weight.copy_(model.get_input_embeddings()(WORDS))
    found = model(TARGET, prefix=prefix.prompt(model, 2)).logits
    expected = model(torch.cat([WORDS.expand(2, -1), TARGET], dim=1)).logits[:, 3:]
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_infix_of_words_gives_the_logits_of_the_whole_text(family: str, attention: str) -> None:
    """The source is padded on the right, and padding counts in the positions."""
    stock, model = tiny_model(family), enable_prefix(tiny_model(family, attention))
    prefix = InfixPrefix(PrefixShape.from_config(model.config), 3, mid_dim=8)
    prefix.start_at_zero()
    with torch.no_grad():
        prefix.wte2.weight.copy_(model.get_input_embeddings()(WORDS))
    found = model(TARGET, prefix=prompt(prefix, model)).logits
    text = torch.cat([SOURCE, WORDS.expand(2, -1), TARGET], dim=1)
    mask = torch.cat([SOURCE_MASK, torch.ones(2, 8, dtype=torch.long)], dim=1)
    expected = stock(text, attention_mask=mask, position_ids=torch.arange(12)[None]).logits
    assert torch.allclose(found, expected[:, 7:], atol=1e-5)


def test_greedy_search_behind_a_padded_source() -> None:
    """Against the most likely token of whole forward passes, one by one."""
    model = enable_prefix(tiny_model("gpt2"))
    torch.manual_seed(0)
    prefix = prompt(InfixPrefix(PrefixShape.from_config(model.config), 3, mid_dim=8), model)
    text = TARGET[:, :1]
    mask = torch.ones_like(text)
    found = beam_search(model, prefix, text, mask, eos_token_id=1, num_beams=1, max_new_tokens=6)
    with torch.no_grad():
        for _ in range(6):
            logits = model(text, prefix=prefix).logits[:, -1]
            text = torch.cat([text, logits.argmax(-1, keepdim=True)], dim=1)
    for hypotheses, tokens in zip(found, text[:, 1:].tolist(), strict=True):
        assert hypotheses.tokens[0] == tokens[: tokens.index(1) + 1 if 1 in tokens else 6]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_and_slot_gets_a_gradient(variant: str, checkpointing: bool) -> None:
    gradients = []
    for on in {False, checkpointing}:
        torch.manual_seed(0)
        model = enable_prefix(tiny_model("gpt2").requires_grad_(False))
        prefix = make(variant, PrefixShape.from_config(model.config))
        if on:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()
        loss = target_nll(model, prompt(prefix, model), TARGET, TARGET).sum()
        gradients.append(torch.autograd.grad(loss, [*prefix.parameters()]))
    for name, gradient in zip(dict(prefix.named_parameters()), gradients[0], strict=True):
        rows = gradient.view(prefix.length, -1) if "wte" in name or variant == "flat" else gradient
        assert (rows.abs().amax(dim=-1) > 0).all(), name
    for one, other in zip(*gradients, strict=True) if checkpointing else ():
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip_of_checkpoint_and_export(tmp_path: Path, variant: str) -> None:
    model = enable_prefix(tiny_model("gpt2").requires_grad_(False))
    prefix = make(variant, PrefixShape.from_config(model.config), dropout=0.3)
    meta = checkpoint.metadata(prefix, model, "tiny")
    checkpoint.save(tmp_path, prefix, model.config.to_dict(), meta)
    expected = model(TARGET, prefix=prompt(prefix.eval(), model)).logits
    loaded, _ = checkpoint.load(tmp_path, model)
    assert type(loaded) is type(prefix)
    assert loaded.options() == prefix.options()
    assert torch.equal(model(TARGET, prefix=prompt(loaded, model)).logits, expected)
    if prefix.reads_source:
        with pytest.raises(UserError, match="keep its checkpoint"):
            checkpoint.export(tmp_path / "export", prefix, meta, model)
        assert not (tmp_path / "export").exists()
        return
    checkpoint.export(tmp_path / "export", prefix.train(), meta, model)
    assert prefix.training
    flat, _ = checkpoint.load(tmp_path / "export", model)
    assert isinstance(flat, FlatPrefix)
    assert torch.allclose(model(TARGET, prefix=flat.prompt()).logits, expected, atol=1e-6)


ORIGINALS: dict[str, tuple[dict[str, Any], type[Prefix]]] = {
    "mlp": ({}, MLPPrefix),
    "deep": ({}, MLPPrefix),
    "shallow_random": ({"init_shallow": "yes", "init_shallow_word": None}, FlatPrefix),
    "shallow_words": ({"init_shallow": "yes", "init_shallow_word": "WORDS"}, FlatPrefix),
    "emb": ({"parametrize_emb": "Emb"}, EmbeddingPrefix),
    "emb_mlp": ({"parametrize_emb": "MLP"}, EmbeddingPrefix),
    "infix": ({"use_infix": True}, InfixPrefix),
    "lowdata_init": ({"lowdata": True, "lowdata_token": "WORDS"}, MLPPrefix),
}


@pytest.mark.parametrize("name", vector_cases("gpt2_", "beam"))
def test_original_folders_of_every_variant_load(tmp_path: Path, name: str) -> None:
    """``preseqlen`` is what the command line said, even where words replaced it."""
    case, tensors = load_vectors(f"gpt2_{name}")
    more, kind = ORIGINALS[case["variant"]]
    words = [case["config"].get("word_ids")]
    more = {key: words if value == "WORDS" else value for key, value in more.items()}
    config = {"model_type": "gpt2", "prefix_dropout": 0.2, **case["config"], **more}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    state = part(tensors, "prefix_after.") or part(tensors, "prefix.")
    torch.save(state, tmp_path / "pytorch_model.bin")
    prefix, _ = checkpoint.load(tmp_path)
    assert type(prefix) is kind
    assert prefix.length == case["prefix_length"]
    assert prefix.dropout.p == (0.0 if case["variant"] == "shallow_words" else 0.2)
    for key, value in prefix.from_original(state).items():
        assert torch.equal(prefix.get_parameter(key), value)


def test_dropout_of_vectors_has_a_mask_of_its_own_per_row() -> None:
    model = enable_prefix(tiny_model("gpt2").requires_grad_(False))
    prefix = EmbeddingPrefix(PrefixShape.from_config(model.config), 3, mlp=False, dropout=0.4)
    rows = prefix.prompt(model, 4).sites["self"][0]
    assert rows.shape[1] == 4
    assert not torch.equal(rows[:, 0], rows[:, 1])
    assert prefix.eval().prompt(model, 4).sites["self"][0].shape[1] == 1


# What a prefix starts from.


@pytest.mark.parametrize("kind", [MLPPrefix, FlatPrefix])
def test_zero_keys_take_a_share_of_the_attention(kind: type[MLPPrefix] | type[FlatPrefix]) -> None:
    """By hand: the scores of zero keys are 0, their values add nothing."""
    model = enable_prefix(tiny_model("gpt2"))
    prefix = kind(PrefixShape.from_config(model.config), 3)
    prefix.start_at_zero()
    layers = prefix.key_values()
    assert all(not pair.any() for pair in layers)
    module = model.transformer.h[0].attn
    query, key, value = torch.randn(3, 2, 4, 5, 8).unbind()

    def backend(_m: Any, q: Any, k: Any, v: Any, _mask: Any, **_kwargs: Any) -> Any:
        return (q @ k.mT / 8**0.5).softmax(-1) @ v, None

    found = KeyValues(layers).attend(backend, module, query, key, value, None)[0]
    scores = (query @ key.mT / 8**0.5).exp()
    expected = scores @ value / (scores.sum(-1, keepdim=True) + 3)
    assert torch.allclose(found, expected, atol=1e-6)
    loss = target_nll(model, prefix.prompt(), TARGET, TARGET).sum()
    loss.backward()
    last = prefix.control_trans if kind is FlatPrefix else prefix.control_trans[-1].weight
    assert last.grad.abs().max() > 0


def test_a_text_is_cut_or_repeated() -> None:
    slots = {"self": torch.arange(6.0).view(3, 2)}
    assert resize(slots, 2)["self"].tolist() == [[0, 1], [2, 3]]
    assert resize(slots, 5)["self"].tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]]


def test_a_flat_prefix_takes_activations_as_they_are_and_an_mlp_comes_near() -> None:
    model = enable_prefix(tiny_model("gpt2"))
    shape, targets = PrefixShape.from_config(model.config), activations(model, WORDS[None])
    flat, mlp = FlatPrefix(shape, 3), MLPPrefix(shape, 3, mid_dim=8)
    before = (mlp.slots() - targets["self"]).square().mean()
    flat.start(targets)
    mlp.start(targets)
    assert torch.equal(flat.slots(), targets["self"])
    assert (mlp.slots() - targets["self"]).square().mean() < before
    with pytest.raises(ValueError, match="cannot start from keys"):
        EmbeddingPrefix(shape, 3).start(targets)
