"""Prefixes to and from PEFT: the same logits on both sides, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FAMILIES, tiny_model
from safetensors.torch import load_file, save_file
from transformers import BartConfig, BartForConditionalGeneration

from prefix_tuning import export, peft_format, saving
from prefix_tuning.attention import enable_prefix
from prefix_tuning.errors import UserError
from prefix_tuning.parametrizations import EmbeddingPrefix, FlatPrefix, MLPPrefix
from prefix_tuning.prefix import Prefix
from prefix_tuning.shape import PrefixShape

peft = pytest.importorskip("peft")

P = 5
DECODERS = ["gpt2", "llama", "qwen2", "qwen3", "gpt_neox", "opt", "gpt_bigcode"]


def inputs(padding_side: str = "none") -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    ids, mask = torch.randint(3, 50, (3, 7)), torch.ones(3, 7, dtype=torch.long)
    if padding_side == "right":
        mask[1, 4:] = 0
    if padding_side == "left":
        mask[1, :3] = 0
    return {"input_ids": ids, "attention_mask": mask}


def trained(model: Any, cls: type[Any] = MLPPrefix, **options: Any) -> Prefix:
    torch.manual_seed(1)
    return cls(PrefixShape.from_config(model.config), P, **options).eval()


def theirs(model: Any, kind: str = "prefix", **options: Any) -> Any:
    """A PEFT model with a random prefix."""
    torch.manual_seed(3)
    cls = peft.CartridgeConfig if kind == "cartridge" else peft.PrefixTuningConfig
    config = cls(task_type="CAUSAL_LM", num_virtual_tokens=P, **options)
    return peft.get_peft_model(model, config).eval()


@pytest.mark.parametrize("family", DECODERS)
@torch.no_grad()
def test_peft_opens_an_export_and_computes_the_same(family: str, tmp_path: Path) -> None:
    assert set(DECODERS) == set(FAMILIES)
    model = enable_prefix(tiny_model(family))
    prefix = trained(model, mid_dim=16)
    saving.save_parameters(tmp_path, prefix, model)
    export.main([str(tmp_path), "--format", "peft"])
    opened = peft.PeftModel.from_pretrained(tiny_model(family), str(tmp_path / "peft")).eval()
    for padding in ("none", "right"):
        batch = inputs(padding)
        real = batch["attention_mask"].bool()
        found = opened(**batch).logits[real]
        expected = model(**batch, prefix=prefix.prompt(model)).logits[real]
        assert (found - expected).abs().max() == 0.0


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("kind", ["flat", "projected", "cartridge"])
@torch.no_grad()
def test_a_peft_prefix_is_read(family: str, kind: str, tmp_path: Path) -> None:
    options = {"prefix_projection": True, "encoder_hidden_size": 16} if kind == "projected" else {}
    if family == "gpt_bigcode":  # PEFT does not see that its keys have one head
        options |= {"num_attention_heads": 1, "token_dim": 8}
    their = theirs(tiny_model(family), kind, **options)
    their.save_pretrained(tmp_path)
    model = enable_prefix(tiny_model(family))
    prefix = saving.load_prefix(tmp_path, model)
    batch = inputs()
    expected = their(**batch).logits
    assert not torch.allclose(expected, model(**batch).logits, atol=1e-3)
    assert (model(**batch, prefix=prefix.prompt(model)).logits - expected).abs().max() == 0.0


@torch.no_grad()
def test_left_padding_is_numbered_by_peft_and_not_here(tmp_path: Path) -> None:
    """Without position_ids; with them, as generate gives them, both agree."""
    their = theirs(tiny_model("gpt2"))
    their.save_pretrained(tmp_path)
    model = enable_prefix(tiny_model("gpt2"))
    prefix, batch = saving.load_prefix(tmp_path, model).prompt(model), inputs("left")
    real = batch["attention_mask"].bool()
    ours = model(**batch, prefix=prefix).logits[real]
    assert not torch.allclose(their(**batch).logits[real], ours, atol=1e-3)
    positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    found = their(**batch, position_ids=positions).logits[real]
    assert (found - ours).abs().max() == 0.0
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 2}
    generated = model.generate(**batch, **options, prefix=prefix)
    assert torch.equal(their.generate(**batch, **options), generated)


class Words:
    """A tokenizer as PEFT's helper calls it."""

    def __call__(self, text: str, **_options: Any) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.tensor([[3 + ord(letter) % 40 for letter in text]])}


@torch.no_grad()
def test_a_prefix_made_from_a_long_text_continues_that_text(tmp_path: Path) -> None:
    from peft.tuners.cartridge.utils import initialize_kv_prefix_from_text

    text = Words()("a long text is read once")["input_ids"]
    config = peft.CartridgeConfig(task_type="CAUSAL_LM", num_virtual_tokens=text.shape[1])
    their = peft.get_peft_model(tiny_model("llama"), config).eval()
    initialize_kv_prefix_from_text(
        their, Words(), text="a long text is read once", use_chat_template=False
    )
    their.save_pretrained(tmp_path)
    model = enable_prefix(tiny_model("llama"))
    prefix, ids = saving.load_prefix(tmp_path, model), inputs()["input_ids"]
    found = model(ids, prefix=prefix.prompt(model)).logits
    assert (found - their(input_ids=ids).logits).abs().max() == 0.0
    whole = torch.cat([text.expand(3, -1), ids], dim=1)
    assert torch.allclose(found, model(whole).logits[:, text.shape[1] :], atol=1e-4)


@torch.no_grad()
def test_every_parametrisation_can_be_exported(tmp_path: Path) -> None:
    base = tiny_model("gpt2")
    base.save_pretrained(tmp_path / "base")
    model = enable_prefix(type(base).from_pretrained(tmp_path / "base").eval())
    for cls in (FlatPrefix, EmbeddingPrefix):
        folder = tmp_path / cls.parametrization
        prefix = trained(model, cls)
        saving.save_parameters(folder, prefix, model)
        export.main([str(folder), "--format", "peft"])
        opened = peft.PeftModel.from_pretrained(tiny_model("gpt2"), str(folder / "peft")).eval()
        expected = model(**inputs(), prefix=prefix.prompt(model)).logits
        assert (opened(**inputs()).logits - expected).abs().max() < 1e-6
        export.main([str(folder)])
        read = saving.load_prefix(folder / "export", model)
        found = model(**inputs(), prefix=read.prompt(model)).logits
        assert (found - expected).abs().max() < 1e-6


def tiny_bart() -> Any:
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=50,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
    )
    return BartForConditionalGeneration(config).eval()


def test_encoder_decoders_are_refused_both_ways(tmp_path: Path) -> None:
    model = enable_prefix(tiny_bart())
    prefix = trained(model, FlatPrefix, sites=["self", "encoder", "encoder_decoder"])
    saving.save_parameters(tmp_path, prefix, model)
    with pytest.raises(UserError, match="only the decoder's own attention"):
        export.main([str(tmp_path), "--format", "peft"])
    config = peft.PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=P)
    peft.get_peft_model(tiny_bart(), config).save_pretrained(tmp_path / "peft")
    with pytest.raises(UserError, match="PEFT fills only the decoder's own attention"):
        saving.load_prefix(tmp_path / "peft", model)


def test_what_is_no_prefix_is_refused_with_a_reason(tmp_path: Path) -> None:
    lora = peft.get_peft_model(tiny_model("llama"), peft.LoraConfig(task_type="CAUSAL_LM"))
    lora.save_pretrained(tmp_path / "lora")
    model = enable_prefix(tiny_model("llama"))
    with pytest.raises(UserError, match="LORA adapter"):
        saving.load_prefix(tmp_path / "lora", model)
    theirs(tiny_model("llama")).save_pretrained(tmp_path / "prefix")
    with pytest.raises(UserError, match=r"\[5, 96\].*need \[5, 192\].*it was trained on"):
        saving.load_prefix(tmp_path / "prefix", enable_prefix(tiny_model("gpt2")))
    with pytest.raises(UserError, match="needs the base model"):
        saving.load_prefix(tmp_path / "prefix")
    (tmp_path / "prefix" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is damaged"):
        saving.load_prefix(tmp_path / "prefix", model)


def test_other_heads_of_the_same_size_and_damaged_numbers_are_refused(tmp_path: Path) -> None:
    model = enable_prefix(tiny_model("llama"))
    theirs(tiny_model("llama")).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    other = {**config, "num_layers": 2 * config["num_layers"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(UserError, match=r"adapter_config.json: num_layers is 6, .* given has 3"):
        saving.load_prefix(tmp_path, model)
    other = {**config, "num_attention_heads": 1}
    (tmp_path / "adapter_config.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(UserError, match="num_attention_heads is 1, but the model given has 2"):
        saving.load_prefix(tmp_path, model)
    longer = {**config, "num_virtual_tokens": 6}
    (tmp_path / "adapter_config.json").write_text(json.dumps(longer), encoding="utf-8")
    with pytest.raises(UserError, match=r"has shape \[5, 96\], .* need \[6, 96\]"):
        saving.load_prefix(tmp_path, model)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    table = load_file(tmp_path / "adapter_model.safetensors")
    halved = {name: part.bfloat16() for name, part in table.items()}
    save_file(halved, tmp_path / "adapter_model.safetensors")
    assert saving.load_prefix(tmp_path, model).slots().dtype == torch.float32  # to go on from
    table["prompt_embeddings"][0, 0] = torch.nan
    save_file(table, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match="control_trans are not finite numbers"):
        saving.load_prefix(tmp_path, model)


def test_positions_that_peft_cannot_have_are_refused(tmp_path: Path) -> None:
    model = enable_prefix(tiny_model("gpt2"))
    prefix = trained(model, FlatPrefix)
    meta = {**saving.describe(prefix, model), "position_offset": 0}
    with pytest.raises(UserError, match="numbered from 0 behind this prefix"):
        peft_format.write(tmp_path, prefix, meta)


def test_the_config_says_what_peft_writes_itself(tmp_path: Path) -> None:
    """The same keys and values for the same prefix, where ours gives them at all."""
    their = theirs(tiny_model("qwen3"))
    their.save_pretrained(tmp_path / "theirs")
    model = enable_prefix(tiny_model("qwen3"))
    saved = saving.read(tmp_path / "theirs", model)
    peft_format.write(tmp_path / "ours", saved.prefix, saved.meta)
    configs = [
        json.loads((tmp_path / side / "adapter_config.json").read_text(encoding="utf-8"))
        for side in ("theirs", "ours")
    ]
    for key, value in configs[1].items():
        assert configs[0][key] == value, key
    tables = [tmp_path / side / "adapter_model.safetensors" for side in ("theirs", "ours")]
    from safetensors.torch import load_file

    assert torch.equal(*(load_file(path)["prompt_embeddings"] for path in tables))
