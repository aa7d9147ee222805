"""The six promises of the way into attention, for every family of decoder."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from conftest import CAPPED, FAMILIES, SLIDING, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    BloomConfig,
    DynamicCache,
    GPTJConfig,
    MambaConfig,
)
from transformers.models.gptj.modeling_gptj import GPTJAttention

from prefix_tuning import backends, key_values
from prefix_tuning.attention import KeyValues, enable_prefix, has_plain_head
from prefix_tuning.errors import UserError
from prefix_tuning.objectives import target_nll
from prefix_tuning.parametrizations import MLPPrefix
from prefix_tuning.shape import PrefixShape

P = 5


def prefix_of(model: Any, length: int = P, seed: int = 1, **more: Any) -> MLPPrefix:
    torch.manual_seed(seed)
    return MLPPrefix(PrefixShape.from_config(model.config), length, mid_dim=16, **more)


def as_cache(layers: tuple[torch.Tensor, ...], rows: int) -> DynamicCache:
    """The stock way in, to compare with."""
    return DynamicCache([tuple(pair.expand(-1, rows, -1, -1, -1)) for pair in layers])


def tokens(rows: int, width: int, seed: int = 2) -> torch.Tensor:
    return torch.randint(3, 50, (rows, width), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_equal_the_cache_route(family: str, implementation: str) -> None:
    stock = tiny_model(family, implementation)
    model = enable_prefix(tiny_model(family, implementation))
    ours, theirs = prefix_of(model), prefix_of(model)
    ids = tokens(3, 9)
    mask = torch.ones(3, P + 9, dtype=torch.long)
    expected = stock(ids, past_key_values=as_cache(theirs.key_values(), 3), attention_mask=mask)
    found = model(ids, prefix=KeyValues(ours.key_values()))
    assert torch.allclose(found.logits, expected.logits, atol=1e-5)
    assert not torch.allclose(found.logits, stock(ids).logits, atol=1e-2)
    weight = torch.randn(expected.logits.shape)
    (found.logits * weight).sum().backward()
    (expected.logits * weight).sum().backward()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-4, rtol=1e-4), name


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_prefix_nothing_changes(family: str) -> None:
    stock, model = tiny_model(family), enable_prefix(tiny_model(family))
    ids = tokens(2, 7)
    assert torch.allclose(model(ids).logits, stock(ids).logits, atol=1e-5)
    assert type(model).__name__ == type(stock).__name__


# Promise 1: the cache holds real tokens, and every way of generating is the library's own.


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_of_padded_batches_equals_one_by_one(family: str) -> None:
    model = enable_prefix(tiny_model(family))
    prefix = KeyValues(prefix_of(model).key_values())
    prompts = [tokens(1, width, seed=width)[0].tolist() for width in (3, 8, 5)]
    width = max(map(len, prompts))
    ids = torch.tensor([[2] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    for options in ({"num_beams": 1}, {"num_beams": 4}, {"cache_implementation": "static"}):
        options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 2, **options}
        batch = model.generate(ids, attention_mask=mask, prefix=prefix, **options)[:, width:]
        for prompt, row in zip(prompts, batch, strict=True):
            alone = model.generate(torch.tensor([prompt]), prefix=prefix, **options)
            alone = alone[0, len(prompt) :]
            assert torch.equal(row[: len(alone)], alone), options


@pytest.mark.parametrize("family", FAMILIES)
def test_stepwise_equals_whole(family: str) -> None:
    model = enable_prefix(tiny_model(family))
    prefix = KeyValues(prefix_of(model).key_values())
    ids = tokens(2, 8)
    whole = model(ids, prefix=prefix).logits
    first = model(ids[:, :5], prefix=prefix, use_cache=True)
    assert first.past_key_values.get_seq_length() == 5
    rest = model(ids[:, 5:], prefix=prefix, past_key_values=first.past_key_values)
    assert torch.allclose(torch.cat([first.logits, rest.logits], 1), whole, atol=1e-5)


def test_static_cache_equals_dynamic_cache() -> None:
    model = enable_prefix(tiny_model("llama"))
    prefix = KeyValues(prefix_of(model).key_values())
    options = {"prefix": prefix, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 2}
    dynamic = model.generate(tokens(2, 6), **options)
    static = model.generate(tokens(2, 6), cache_implementation="static", **options)
    assert torch.equal(dynamic, static)


# Promise 2: no state is left behind.


def test_rows_of_a_batch_may_have_prefixes_of_their_own() -> None:
    model = enable_prefix(tiny_model("gpt2"))
    one = [prefix_of(model, seed=seed).key_values() for seed in (1, 2, 3)]
    rows = KeyValues(torch.cat(pairs, dim=1) for pairs in zip(*one, strict=True))
    ids = tokens(3, 7)
    together = model(ids, prefix=rows).logits
    for i, layers in enumerate(one):
        alone = model(ids[i : i + 1], prefix=KeyValues(layers)).logits
        assert torch.allclose(together[i : i + 1], alone, atol=1e-5)
    beams = model.generate(ids, prefix=rows, num_beams=4, max_new_tokens=6, pad_token_id=2)
    for i, layers in enumerate(one):
        alone = model.generate(
            ids[i : i + 1],
            prefix=KeyValues(layers),
            num_beams=4,
            max_new_tokens=6,
            pad_token_id=2,
        )
        assert torch.equal(beams[i, : alone.shape[1]], alone[0])


def test_two_models_two_prefixes_and_a_forward_before_backward() -> None:
    models = [enable_prefix(tiny_model("gpt2", seed=seed)) for seed in (0, 7)]
    ids = tokens(2, 6)

    def gradient(model: Any, seed: int, disturb: bool) -> torch.Tensor:
        prefix = prefix_of(model, seed=seed)
        loss = model(ids, prefix=KeyValues(prefix.key_values())).logits.square().sum()
        if disturb:
            for other in models:
                other(ids, prefix=KeyValues(prefix_of(other, seed=99).key_values()))
                other(ids)
        loss.backward()
        return prefix.wte.weight.grad

    for seed, model in enumerate(models):
        assert torch.equal(gradient(model, seed, False), gradient(model, seed, True))


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_changes_nothing(family: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = enable_prefix(tiny_model(family)).requires_grad_(False).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        prefix = prefix_of(model)
        ids, mask = tokens(2, 6), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
        output = model(
            ids, attention_mask=mask, prefix=KeyValues(prefix.key_values()), use_cache=False
        )
        output.logits[mask.bool()].square().sum().backward()
        gradients.append(prefix.wte.weight.grad)
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-4)
    assert gradients[0].abs().min() > 0


def test_reentrant_checkpointing_is_refused() -> None:
    model = enable_prefix(tiny_model("gpt2")).train()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(RuntimeError, match="use_reentrant"):
        model(tokens(1, 3), prefix=KeyValues(prefix_of(model).key_values()))


def test_threads_see_their_own_prefix() -> None:
    model = enable_prefix(tiny_model("gpt2"))
    ids, found = tokens(1, 6), {}
    prefixes = {seed: KeyValues(prefix_of(model, seed=seed).key_values()) for seed in range(4)}
    expected = {seed: model(ids, prefix=prefix).logits for seed, prefix in prefixes.items()}

    def work(seed: int) -> None:
        found[seed] = [model(ids, prefix=prefixes[seed]).logits for _ in range(10)]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in prefixes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, outputs in found.items():
        assert all(torch.allclose(output, expected[seed], atol=1e-6) for output in outputs)


def test_no_graph_breaks_under_compile() -> None:
    model = enable_prefix(tiny_model("gpt2")).requires_grad_(False)
    prefix = KeyValues(pair.detach() for pair in prefix_of(model).key_values())
    ids = tokens(2, 6)
    explained = torch._dynamo.explain(lambda x: model(x, prefix=prefix, use_cache=False).logits)(
        ids
    )
    assert explained.graph_break_count == 0, explained.break_reasons


# Promise 3: positions.


def test_a_shifted_prefix_is_a_decision() -> None:
    """Numbered from 0 or from P: the same as giving a stock model these position ids."""
    stock, model = tiny_model("gpt2"), enable_prefix(tiny_model("gpt2"))
    layers = prefix_of(model).key_values()
    ids = tokens(2, 7)
    for offset in (0, P, 20):
        positions = torch.arange(7).unsqueeze(0) + offset
        expected = stock(ids, past_key_values=as_cache(layers, 2), position_ids=positions).logits
        found = model(ids, prefix=KeyValues(layers, offset=offset)).logits
        assert torch.allclose(found, expected, atol=1e-5)


def test_too_many_positions_is_a_clear_error() -> None:
    model = enable_prefix(tiny_model("gpt2"))
    prefix = KeyValues(prefix_of(model).key_values())
    model(tokens(1, 59), prefix=prefix)
    with pytest.raises(UserError, match="5 positions and 60 tokens do not fit into the 64"):
        model(tokens(1, 60), prefix=prefix)


# Promise 4: padding stays masked.


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    left=st.booleans(),
    family=st.sampled_from(["gpt2", "llama", "opt"]),
)
def test_padding_is_never_seen(lengths: list[int], left: bool, family: str) -> None:
    model = _enabled(family)
    prefix = KeyValues(prefix_of(model).key_values())
    width = max(lengths)
    rows = [tokens(1, n, seed=n)[0].tolist() for n in lengths]

    def pad(row: list[int], value: int) -> list[int]:
        fill = [value] * (width - len(row))
        return fill + row if left else row + fill

    mask = torch.tensor([pad([1] * n, 0) for n in lengths])
    for filler in (2, 17):
        ids = torch.tensor([pad(row, filler) for row in rows])
        batch = model(ids, attention_mask=mask, prefix=prefix).logits
        for row, logits, visible in zip(rows, batch, mask.bool(), strict=True):
            alone = model(torch.tensor([row]), prefix=prefix).logits[0]
            assert torch.allclose(logits[visible], alone, atol=1e-4)


_MODELS: dict[str, Any] = {}


def _enabled(family: str) -> Any:
    if family not in _MODELS:
        _MODELS[family] = enable_prefix(tiny_model(family))
    return _MODELS[family]


def test_flash_attention_gets_the_2d_mask_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU here: a stand-in computes what flash attention is specified to."""

    def flash(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        query_length: int,
        is_causal: bool,
        **kwargs: Any,
    ) -> torch.Tensor:
        assert is_causal
        n_key = key.shape[1]
        # Aligned at the bottom right: the last query sees every key.
        causal = torch.ones(query_length, n_key).tril(n_key - query_length).bool()
        visible = causal if mask is None else causal & mask.bool()[:, None, None, :]
        output = torch.nn.functional.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=visible,
            scale=kwargs["softmax_scale"],
        )
        return output.transpose(1, 2)

    monkeypatch.setattr(backends, "_flash_attention_forward", flash)
    reference = enable_prefix(tiny_model("gpt2"))
    model = tiny_model("gpt2")
    model.config._attn_implementation_internal = "flash_attention_2"
    enable_prefix(model)
    prefix = KeyValues(prefix_of(model).key_values())
    ids = tokens(2, 6)
    for mask in (torch.ones(2, 6), torch.tensor([[1.0] * 6, [1.0] * 4 + [0.0] * 2])):
        found = model(ids, attention_mask=mask, prefix=prefix).logits
        expected = reference(ids, attention_mask=mask, prefix=prefix).logits
        assert torch.allclose(found[mask.bool()], expected[mask.bool()], atol=1e-5)


# Promise 5: what cannot carry a prefix is refused by name.


@pytest.mark.parametrize(
    "config",
    [
        BloomConfig(vocab_size=50, hidden_size=32, n_layer=2, n_head=4),
        pytest.param(
            GPTJConfig(vocab_size=50, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, n_positions=64),
            marks=pytest.mark.skipif(
                not hasattr(GPTJAttention, "_attn"),
                reason="from transformers 5.24 GPT-J goes through the attention interface",
            ),
        ),
        MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2),
    ],
    ids=lambda config: config.model_type,
)
def test_other_architectures_are_refused_by_name(config: Any) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    name, ids = type(model).__name__, tokens(1, 5)
    before = model(ids).logits
    with pytest.raises(UserError, match=f"{name} cannot carry a prefix"):
        enable_prefix(model)
    assert type(model).__name__ == name
    assert not hasattr(type(model), "_prefix_base")
    assert torch.equal(model(ids).logits, before)


def test_unknown_attention_is_refused() -> None:
    model = tiny_model("gpt2")
    model.config._attn_implementation_internal = "flex_attention"
    with pytest.raises(UserError, match="flex_attention"):
        enable_prefix(model)


def test_an_attention_switched_behind_our_back_is_noticed() -> None:
    model = enable_prefix(tiny_model("gpt2"))
    prefix = KeyValues(prefix_of(model).key_values())
    model.set_attn_implementation("sdpa")
    with pytest.raises(RuntimeError, match="would be ignored"):
        model(tokens(1, 3), prefix=prefix)
    with pytest.raises(RuntimeError, match="would be ignored"):
        target_nll(model, prefix, tokens(1, 3), tokens(1, 3))
    enable_prefix(model)(tokens(1, 3), prefix=prefix)


def test_registrations_of_others_do_not_matter() -> None:
    model = enable_prefix(tiny_model("gpt2"))
    prefix, ids = KeyValues(prefix_of(model).key_values()), tokens(1, 4)
    before = model(ids, prefix=prefix).logits
    stock = AttentionInterface._global_mapping["sdpa"]
    try:
        AttentionInterface.register("sdpa", lambda *args, **kwargs: pytest.fail("not ours"))
        AttentionInterface.register("somebody_elses", lambda *args, **kwargs: None)
        assert torch.equal(model(ids, prefix=prefix).logits, before)
    finally:
        AttentionInterface.register("sdpa", stock)
        del AttentionInterface._global_mapping["somebody_elses"]


def test_sliding_windows_slide_over_real_tokens_only() -> None:
    """By hand: a mask in which every token sees the prefix and the last eight real tokens."""
    stock, model = tiny_model(SLIDING), enable_prefix(tiny_model(SLIDING))
    layers, ids = prefix_of(model).key_values(), tokens(1, 20)
    real = torch.ones(20, 20).tril().triu(-7).bool()
    visible = torch.cat([torch.ones(20, P).bool(), real], dim=1)[None, None]
    cache = DynamicCache([tuple(pair) for pair in layers])
    expected = stock(
        ids,
        past_key_values=cache,
        attention_mask=visible,
        position_ids=torch.arange(P, P + 20)[None],
    ).logits
    assert torch.allclose(model(ids, prefix=KeyValues(layers)).logits, expected, atol=1e-5)


def test_models_that_cap_their_logits_are_known() -> None:
    assert not has_plain_head(enable_prefix(tiny_model(CAPPED, "eager")))
    assert has_plain_head(enable_prefix(tiny_model("gpt2")))


# Promise 6: fp32 prefix, cast at use.


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_model_and_fp32_prefix(family: str) -> None:
    model = enable_prefix(tiny_model(family)).to(torch.bfloat16)
    prefix = prefix_of(model)
    logits = model(tokens(2, 5), prefix=KeyValues(prefix.key_values())).logits
    logits.float().square().mean().backward()
    assert prefix.wte.weight.grad.dtype == torch.float32
    assert prefix.wte.weight.grad.abs().min() > 0


def test_autocast() -> None:
    model = enable_prefix(tiny_model("gpt2"))
    prefix, ids = prefix_of(model), tokens(2, 5)
    exact = model(ids, prefix=KeyValues(prefix.key_values())).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(ids, prefix=KeyValues(prefix.key_values())).logits
    assert torch.allclose(rough.float(), exact, atol=0.1 * exact.abs().max().item())


# Identities.


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_of_a_texts_activations_is_that_text_prepended(family: str) -> None:
    model = enable_prefix(tiny_model(family))
    text, ids = tokens(1, P, seed=8), tokens(2, 6)
    cache = model(text, use_cache=True).past_key_values
    layers = [torch.stack([layer.keys, layer.values]) for layer in cache.layers]
    found = model(ids, prefix=KeyValues(layers)).logits
    expected = model(torch.cat([text.expand(2, -1), ids], dim=1)).logits[:, P:]
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_slot_of_every_layer_gets_a_gradient(family: str) -> None:
    model = enable_prefix(tiny_model(family)).requires_grad_(False)
    layers = [pair.detach().requires_grad_() for pair in prefix_of(model).key_values()]
    model(tokens(2, 5), prefix=KeyValues(layers)).logits.square().sum().backward()
    for pair in layers:
        assert (pair.grad.abs().amax(dim=(1, 4)) > 0).all()


def test_logits_equal_peft_with_the_same_mlp() -> None:
    peft = pytest.importorskip("peft")
    stock, model = tiny_model("gpt2"), enable_prefix(tiny_model("gpt2"))
    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=P,
        prefix_projection=True,
        encoder_hidden_size=16,
        num_layers=3,
        num_attention_heads=4,
        token_dim=32,
    )
    theirs = peft.get_peft_model(stock, config).eval()
    prefix = prefix_of(model)
    names = {
        "wte.weight": "embedding.weight",
        "control_trans.0.weight": "transform.0.weight",
        "control_trans.0.bias": "transform.0.bias",
        "control_trans.2.weight": "transform.2.weight",
        "control_trans.2.bias": "transform.2.bias",
    }
    state = {names[name]: value for name, value in prefix.state_dict().items()}
    theirs.prompt_encoder["default"].load_state_dict(state)
    ids = tokens(3, 7)
    expected = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    found = model(ids, prefix=KeyValues(prefix.key_values())).logits
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_cast_prefix_keeps_its_positions_and_what_it_hides() -> None:
    layers = torch.rand(3, 2, 2, 4, 5, 8)
    offset, visible = torch.tensor([5, 2]), torch.rand(2, 5) > 0.5
    cast = KeyValues(layers, offset, visible).to(torch.bfloat16)
    assert torch.equal(torch.stack(cast.sites["self"]), layers.bfloat16())
    assert cast.offset is offset
    assert cast.visible is visible


def test_a_mask_that_was_changed_is_widened_again() -> None:
    mask = torch.zeros(1, 1, 2, 3)
    wide = key_values._widen_once(mask, 2)
    assert key_values._widen_once(mask, 2) is wide
    mask[..., 0] = -1.0
    assert key_values._widen_once(mask, 2)[0, 0, 0].tolist() == [0.0, 0.0, -1.0, 0.0, 0.0]
    assert key_values._widen_once(mask, 1)[0, 0, 0].tolist() == [0.0, -1.0, 0.0, 0.0]
