"""Other libraries with the same prefix: PEFT, transformers' own cache, its own ``generate``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from prefix_tuning import export, saving
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.initialization import activations
from prefix_tuning.parametrizations import FlatPrefix, MLPPrefix
from prefix_tuning.prefix import Prefix
from scripts.verify.cases import difference
from scripts.verify.checks import Check, Difference, LeftOut
from scripts.verify.loop import quiet

LOGITS = 1e-5
_COMMON: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_GROUPED: dict[str, Any] = {**_COMMON, "intermediate_size": 48, "num_key_value_heads": 2}
FAMILIES: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(**_COMMON),
    "llama": LlamaConfig(**_GROUPED),
    "qwen2": Qwen2Config(**_GROUPED),
    "qwen3": Qwen3Config(**_GROUPED, head_dim=12),
    "gpt_neox": GPTNeoXConfig(**_COMMON, intermediate_size=48),
    "opt": OPTConfig(**_COMMON, ffn_dim=48, word_embed_proj_dim=32),
}
P = 5


def model_of(family: str) -> Any:
    """A random model in eval mode, with weights large enough to tell tokens apart."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[family])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.3)
    return model.eval()


def prefix_of(model: Any) -> Prefix:
    """A random prefix."""
    torch.manual_seed(1)
    return MLPPrefix(model.config, P, mid_dim=16).eval()


def batch_of() -> dict[str, Tensor]:
    """Three rows, the second of which has padding on the right."""
    torch.manual_seed(2)
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[1, 4:] = 0
    return {"input_ids": torch.randint(3, 50, (3, 7)), "attention_mask": mask}


@torch.no_grad()
def with_peft(family: str) -> Iterator[Difference]:
    """Logits where PEFT opens our prefix, and where we open PEFT's."""
    try:
        with quiet():
            import peft
    except ImportError:
        raise LeftOut("the package peft is not installed") from None
    model, batch = enable_prefix(model_of(family)), batch_of()
    prefix, real = prefix_of(model), batch["attention_mask"].bool()
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        saving.save_parameters(folder / "ours", prefix, model)
        export.main([str(folder / "ours"), "--format", "peft"])
        opened = peft.PeftModel.from_pretrained(model_of(family), str(folder / "ours" / "peft"))
        theirs = opened.eval()(**batch).logits
        config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P)
        their = peft.get_peft_model(model_of(family), config).eval()
        their.save_pretrained(str(folder / "theirs"))
        read = saving.load_prefix(folder / "theirs", model)
    ours = model(**batch, prefix=prefix.prompt(model)).logits
    yield difference("logits, our prefix", ours, theirs, LOGITS, real)
    ours = model(**batch, prefix=read.prompt(model)).logits
    yield difference("logits, PEFT's prefix", ours, their(**batch).logits, LOGITS, real)


@torch.no_grad()
def with_cache(family: str) -> Iterator[Difference]:
    """Logits of the model without any of our code, the prefix being a cache of what went before."""
    stock, model, batch = model_of(family), enable_prefix(model_of(family)), batch_of()
    prefix, real = prefix_of(model), batch["attention_mask"].bool()
    # [2, 1, H, P, d] -> [2, B, H, P, d]
    pairs = [pair.expand(-1, len(real), -1, -1, -1) for pair in prefix.key_values()]
    cache = DynamicCache([(pair[0], pair[1]) for pair in pairs])
    mask = torch.cat([torch.ones(len(real), P, dtype=torch.long), batch["attention_mask"]], dim=1)
    expected = stock(batch["input_ids"], attention_mask=mask, past_key_values=cache).logits
    found = model(**batch, prefix=prefix.prompt(model)).logits
    yield difference("logits", found, expected, LOGITS, real)


@torch.no_grad()
def with_generate(family: str) -> Iterator[Difference]:
    """Tokens of stock ``generate`` behind a text, the prefix being that text's keys and values."""
    stock, model = model_of(family), model_of(family)
    enable_prefix(model)
    text = torch.tensor([[7, 30, 12, 5, 44]])
    flat = FlatPrefix(model.config, P, values=activations(model, text))
    prompts = torch.tensor([[9, 8, 41], [2, 4, 20], [33, 33, 6]])  # one is padded on the left
    mask = (prompts != 2).long()
    # Nothing may stand in front of the text: the padding goes between it and the prompt.
    whole = torch.cat([text.expand(3, -1), prompts], dim=1)
    whole_mask = torch.cat([torch.ones(3, P, dtype=torch.long), mask], dim=1)
    for n_beam in (1, 4):
        options = {"num_beams": n_beam, "max_new_tokens": 8, "do_sample": False}
        expected = stock.generate(whole, attention_mask=whole_mask, **options)[:, whole.shape[1] :]
        front = KeyValues(flat.key_values())
        found = model.generate(prompts, attention_mask=mask, prefix=front, **options)
        found = found[:, prompts.shape[1] :]
        same = found.shape == expected.shape and (found == expected).all(1)
        differing = 3 if same is False else 3 - int(same.sum())
        yield Difference(f"texts that differ, {n_beam} beams", differing, 0)


def checks() -> list[Check]:
    """A check for each library and family."""
    rows = (
        ("peft", "PEFT", with_peft),
        ("cache", "a DynamicCache", with_cache),
        ("generate", "stock generate behind a text", with_generate),
    )
    return [
        Check(f"{name}_{family}", against, partial(run, family))
        for name, against, run in rows
        for family in FAMILIES
    ]
