"""The promises of the way into attention for encoders and for all three attentions of BART."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import parse
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    DistilBertConfig,
    DynamicCache,
    ElectraConfig,
    LEDConfig,
    MBartConfig,
    PLBartConfig,
    RobertaConfig,
    T5Config,
    XLMRobertaConfig,
)

from prefix_tuning.attention import KeyValues, enable_prefix, has_plain_head
from prefix_tuning.errors import UserError
from prefix_tuning.names import SITES
from prefix_tuning.objectives import target_logits
from prefix_tuning.parametrizations import FlatPrefix, MLPPrefix
from prefix_tuning.prefix import parameter_name
from prefix_tuning.shape import PrefixShape

P = 3
OLD_T5 = parse(transformers.__version__) < parse("5.23")
_ENCODER = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}
ENCODERS = {
    "bert": BertConfig(**_ENCODER),
    "roberta": RobertaConfig(**_ENCODER),
    "xlm-roberta": XLMRobertaConfig(**_ENCODER),
    "electra": ElectraConfig(**_ENCODER, embedding_size=16),
}
_BART = {
    "vocab_size": 50,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 40,
    "dropout": 0.0,
    "forced_eos_token_id": None,
}
_T5 = {"vocab_size": 50, "d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 2, "num_heads": 4}
SEQ2SEQ = {
    "bart": BartConfig(**_BART),
    "plbart": PLBartConfig(**_BART),
    "t5": T5Config(
        **_T5, dropout_rate=0.0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=1
    ),
}


def build(config: Any, auto_class: Any, attention: str = "sdpa") -> Any:
    torch.manual_seed(0)
    model = auto_class.from_config(config.__class__.from_dict(config.to_dict()))
    model.set_attn_implementation(attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.3)
    return model.eval().requires_grad_(False)


def seq2seq(family: str, attention: str = "sdpa") -> Any:
    if family == "t5" and OLD_T5:
        pytest.skip("this version's T5 does not hand the prefix down; it is refused by name")
    return enable_prefix(build(SEQ2SEQ[family], AutoModelForSeq2SeqLM, attention))


def encoder(family: str, attention: str = "sdpa") -> Any:
    return enable_prefix(build(ENCODERS[family], AutoModel, attention))


def flat(model: Any, sites: Any = ("self",), length: int = P) -> FlatPrefix:
    torch.manual_seed(1)
    return FlatPrefix(PrefixShape.from_config(model.config), length, sites=sites)


def tokens(rows: int, width: int, seed: int = 2) -> Tensor:
    return torch.randint(3, 50, (rows, width), generator=torch.Generator().manual_seed(seed))


# Encoders


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_encoders_equal_the_cache_route(family: str, attention: str) -> None:
    stock, model = build(ENCODERS[family], AutoModel, attention), encoder(family, attention)
    ours, theirs = flat(model), flat(model)
    ids = tokens(2, 7)
    ids[1, 5:] = 1
    mask = (ids != 1).long()
    layers = [tuple(pair.expand(-1, 2, -1, -1, -1)) for pair in theirs.key_values()]
    wide = torch.cat([mask.new_ones(2, P), mask], dim=1)
    expected = stock(ids, past_key_values=DynamicCache(layers), attention_mask=wide)
    found = model(ids, attention_mask=mask, prefix=KeyValues(ours.key_values()))
    real = mask.bool()
    one, other = found.last_hidden_state[real], expected.last_hidden_state[real]
    assert torch.allclose(one, other, atol=1e-5)
    weight = torch.randn(one.shape)
    (one * weight).sum().backward()
    (other * weight).sum().backward()
    assert torch.allclose(ours.control_trans.grad, theirs.control_trans.grad, atol=1e-4)


@pytest.mark.parametrize("family", ENCODERS)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_padding_of_an_encoder_changes_no_real_token(family: str, data: Any) -> None:
    model = encoder(family)
    prefix = KeyValues(flat(model).key_values())
    lengths = data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=3))
    rows = [tokens(1, n, seed) for seed, n in enumerate(lengths)]
    batch = torch.full((len(rows), max(lengths)), 1)
    mask = torch.zeros_like(batch)
    for i, row in enumerate(rows):
        batch[i, : row.shape[1]], mask[i, : row.shape[1]] = row, 1
    together = model(batch, attention_mask=mask, prefix=prefix).last_hidden_state
    for i, row in enumerate(rows):
        alone = model(row, prefix=prefix).last_hidden_state
        assert torch.allclose(together[i, : row.shape[1]], alone[0], atol=1e-5)


@pytest.mark.parametrize(("family", "limit"), [("bert", 40), ("roberta", 38)])
def test_an_encoders_position_table_bounds_prefix_and_text(family: str, limit: int) -> None:
    model = encoder(family)
    prefix = KeyValues(flat(model).key_values())
    model(tokens(1, limit - P), prefix=prefix)
    with pytest.raises(UserError, match=f"{P} positions and {limit - P + 1} tokens"):
        model(tokens(1, limit - P + 1), prefix=prefix)
    unshifted = KeyValues(flat(model).key_values(), offset=0)
    model(tokens(1, limit), prefix=unshifted)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_unshifted_positions_are_the_stock_models(family: str) -> None:
    stock, model = build(ENCODERS[family], AutoModel), encoder(family)
    hidden = []
    for each, more in ((stock, {}), (model, {"prefix": KeyValues(flat(model).key_values(), 0)})):
        hook = each.embeddings.register_forward_hook(lambda _m, _i, out: hidden.append(out))
        each(tokens(2, 6), **more)
        hook.remove()
    assert torch.equal(*hidden)


# Encoder-decoders


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_sdpa_and_eager_agree(family: str) -> None:
    ids, target = tokens(2, 6), tokens(2, 5, seed=3)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    outputs = []
    for attention in ("sdpa", "eager"):
        model = seq2seq(family, attention)
        prefix = KeyValues(flat(model, SITES).all_key_values())
        outputs.append(
            model(ids, attention_mask=mask, decoder_input_ids=target, prefix=prefix).logits
        )
    assert torch.allclose(*outputs, atol=1e-4)


@pytest.mark.parametrize("family", SEQ2SEQ)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_slot_of_every_site_gets_a_gradient(family: str, checkpointing: bool) -> None:
    model = seq2seq(family)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()  # this BART has no dropout
    prefix = flat(model, SITES)
    inputs = {"input_ids": tokens(2, 6), "decoder_input_ids": tokens(2, 5, seed=3)}
    logits = model(**inputs, prefix=KeyValues(prefix.all_key_values())).logits
    (logits * torch.randn(logits.shape)).sum().backward()
    for site in SITES:
        gradient = prefix.get_parameter(parameter_name("control_trans", site)).grad
        blocks = gradient.view(P, 2 * prefix.shape.n_layer, -1)
        assert (blocks.abs().amax(dim=2) > 0).all(), site


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_each_site_changes_the_output(family: str) -> None:
    model = seq2seq(family)
    layers = flat(model, SITES).all_key_values()
    inputs = {"input_ids": tokens(2, 6), "decoder_input_ids": tokens(2, 5, seed=3)}
    full = model(**inputs, prefix=KeyValues(layers)).logits
    stock = model(**inputs).logits
    for site in SITES:
        without = {name: pairs for name, pairs in layers.items() if name != site}
        assert not torch.allclose(
            model(**inputs, prefix=KeyValues(without)).logits, full, atol=1e-3
        )
        alone = model(**inputs, prefix=KeyValues({site: layers[site]})).logits
        assert not torch.allclose(alone, stock, atol=1e-3)


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_padding_of_the_source_never_leaks(family: str) -> None:
    model = seq2seq(family)
    prefix = KeyValues(flat(model, SITES).all_key_values())
    ids, target = tokens(2, 7), tokens(2, 5, seed=3)
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    found = model(ids, attention_mask=mask, decoder_input_ids=target, prefix=prefix).logits
    other = ids.clone()
    other[1, 4:] = torch.tensor([9, 1, 30])
    again = model(other, attention_mask=mask, decoder_input_ids=target, prefix=prefix).logits
    assert torch.equal(found, again)
    alone = model(ids[1:, :4], decoder_input_ids=target[1:], prefix=prefix).logits
    assert torch.allclose(found[1:], alone, atol=1e-5)


@pytest.mark.parametrize("family", SEQ2SEQ)
@pytest.mark.parametrize("num_beams", [1, 4])
def test_batched_cached_generation_equals_one_by_one_uncached(family: str, num_beams: int) -> None:
    model = seq2seq(family)
    prefix = KeyValues(flat(model, SITES).all_key_values())
    ids = tokens(3, 7)
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] * 5 + [0] * 2])
    options = {"max_length": 12, "num_beams": num_beams, "do_sample": False, "prefix": prefix}
    together = model.generate(ids, attention_mask=mask, **options)
    for row, real, output in zip(ids, mask, together, strict=True):
        source = row[: real.sum()][None]
        alone = model.generate(source, use_cache=False, **options)[0]
        assert output[: len(alone)].tolist() == alone.tolist()


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_a_cross_prefix_of_encoded_words_is_the_words_in_the_source(family: str) -> None:
    # Cross-attention has no positions: keys and values of more source are more source.
    model = seq2seq(family)
    words, source, target = torch.randn(1, P, 32), torch.randn(2, 5, 32), tokens(2, 4)
    decoder = model.get_decoder()
    pairs = []
    for layer in range(2):
        if family == "t5":
            block = decoder.block[layer].layer[1].EncDecAttention
            projections = (block.k, block.v)
        else:
            block = decoder.layers[layer].encoder_attn
            projections = (block.k_proj, block.v_proj)
        heads = [p(words).view(1, P, 4, -1).transpose(1, 2) for p in projections]
        pairs.append(torch.stack(heads))
    both = torch.cat([words.expand(2, -1, -1), source], dim=1)
    expected = decoder(target, encoder_hidden_states=both).last_hidden_state
    prefix = KeyValues({"encoder_decoder": pairs})
    found = decoder(target, encoder_hidden_states=source, prefix=prefix).last_hidden_state
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_slot_of_t5_is_at_no_distance_from_a_token() -> None:
    # By hand: one encoder layer, whose attention adds a learned bias to every score.
    config = T5Config(**{**_T5, "num_layers": 1}, dropout_rate=0.0)
    if OLD_T5:
        pytest.skip("this version's T5 does not hand the prefix down; it is refused by name")
    model = enable_prefix(build(config, AutoModelForSeq2SeqLM))
    ids, prefix = tokens(1, 4), flat(model, ["encoder"])
    block = model.encoder.block[0].layer
    attention = block[0].SelfAttention
    hidden = model.shared(ids)
    normed = block[0].layer_norm(hidden)

    def heads(x: Tensor) -> Tensor:
        return x.view(1, -1, 4, 12).transpose(1, 2)

    front = prefix.key_values(site="encoder")[0]
    key = torch.cat([front[0], heads(attention.k(normed))], dim=2)
    value = torch.cat([front[1], heads(attention.v(normed))], dim=2)
    scores = heads(attention.q(normed)) @ key.transpose(2, 3)
    scores[..., P:] += attention.compute_bias(4, 4)
    mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(1, 4, 48)
    hidden = block[1](hidden + attention.o(mixed))
    expected = model.encoder.final_layer_norm(hidden)
    found = model.encoder(ids, prefix=KeyValues(prefix.all_key_values())).last_hidden_state
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MBartConfig(**_BART), "MBartForConditionalGeneration cannot carry"),
        (LEDConfig(**_BART), "LEDForConditionalGeneration cannot carry"),
        (BartConfig(**{**_BART, "encoder_layers": 3}), "3 encoder layers, more than the 2"),
        (BartConfig(**{**_BART, "encoder_attention_heads": 2}), "other key/value heads"),
    ],
)
def test_what_cannot_carry_all_three_is_refused_by_name(config: Any, message: str) -> None:
    model = AutoModelForSeq2SeqLM.from_config(config)
    with pytest.raises(UserError, match=message):
        enable_prefix(model)


def test_an_encoder_outside_the_interface_is_refused_by_name() -> None:
    model = AutoModel.from_config(DistilBertConfig(dim=32, n_heads=4, n_layers=1))
    with pytest.raises(UserError, match="DistilBertModel cannot carry a prefix"):
        enable_prefix(model)


def test_a_source_beyond_the_position_table_is_one_sentence() -> None:
    model = seq2seq("bart")
    prefix = KeyValues(flat(model, SITES).all_key_values())
    with pytest.raises(UserError, match="41 tokens do not fit into the 40 positions of bart"):
        model(tokens(1, 41), decoder_input_ids=tokens(1, 2), prefix=prefix)


def test_parameters_of_bart_large() -> None:
    shape = PrefixShape.from_config(BartConfig())
    with torch.device("meta"):
        for length, mid, deep, expected in (
            (200, 800, False, 62_130_528),
            (200, 800, True, 64_052_928),
            (200, 512, False, 40_011_264),
            (5, 512, False, 39_412_224),
        ):
            prefix = MLPPrefix(shape, length, mid, deep=deep, sites=[*SITES])
            assert sum(p.numel() for p in prefix.parameters()) == expected
        for length, stored in ((200, 14_745_600), (100, 7_372_800), (5, 368_640)):
            prefix = FlatPrefix(shape, length, sites=[*SITES])
            assert sum(p.numel() for p in prefix.parameters()) == stored


@pytest.mark.parametrize("family", SEQ2SEQ)
@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_the_head_on_targets_alone_gives_the_same_logits(family: str, bias: float) -> None:
    model = seq2seq(family)
    if family != "t5":
        model.final_logits_bias[0, 7] = bias  # added behind BART's head
        enable_prefix(model)
    prefix = KeyValues(flat(model, SITES).all_key_values())
    inputs = {"input_ids": tokens(2, 6), "decoder_input_ids": tokens(2, 5, seed=3)}
    is_target = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    expected = model(**inputs, prefix=prefix).logits[is_target]
    found = target_logits(model, prefix, inputs, is_target)
    assert torch.allclose(found, expected, atol=1e-5)
    assert has_plain_head(model) == (family != "t5" and bias == 0.0)
