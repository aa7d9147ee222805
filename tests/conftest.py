"""What several tests share: where data is, tiny models of every family, a tiny tokenizer."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's library reads it

import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPT2LMHeadModel,
    GPTBigCodeConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from scripts.verify.cases import Case
from scripts.verify.checks import Difference

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("PREFIX_TUNING_SHARED", ROOT.parent / "shared"))
BPE = ROOT / ".cache" / "gpt2-bpe"

settings.register_profile("same every time", derandomize=True)
settings.load_profile("same every time")
torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other


def pytest_collection_finish() -> None:
    """Trainer collects garbage in every run: what was imported need not be looked through again."""
    gc.collect()
    gc.freeze()


_COMMON = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_GROUPED = {**_COMMON, "intermediate_size": 48, "num_key_value_heads": 2}
FAMILIES = {
    "gpt2": GPT2Config(**_COMMON, resid_pdrop=0.0, attn_pdrop=0.0, embd_pdrop=0.0),
    "llama": LlamaConfig(**_GROUPED),
    "qwen2": Qwen2Config(**_GROUPED),
    "qwen3": Qwen3Config(**{**_GROUPED, "head_dim": 12}),
    "gpt_neox": GPTNeoXConfig(**_COMMON, intermediate_size=48),
    "gpt_bigcode": GPTBigCodeConfig(**_COMMON, resid_pdrop=0.0, attn_pdrop=0.0, embd_pdrop=0.0),
    "opt": OPTConfig(**_COMMON, ffn_dim=48, word_embed_proj_dim=32, dropout=0.0),
}


SLIDING = MistralConfig(**{**_GROUPED, "sliding_window": 8})
"""Every token sees itself and the seven before it."""
CAPPED = Gemma2Config(**{**_GROUPED, "head_dim": 8, "final_logit_softcapping": 0.5})
"""Logits stay within half a nat."""


def tiny_model(family: str | PretrainedConfig, attention: str = "sdpa", seed: int = 0) -> Any:
    """A random model of a family, in eval mode, with weights large enough to tell tokens apart."""
    torch.manual_seed(seed)
    config = FAMILIES[family] if isinstance(family, str) else family
    config = config.__class__.from_dict(config.to_dict())
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.3)
    return model.eval()


VECTORS = (SHARED / "vectors" / "original", ROOT / "tests" / "vectors")
"""Where the original's numbers lie: the first may be absent, the second holds some of them."""


def vector_cases(start: str, *without: str) -> list[str]:
    """What follows ``start`` in the names of all cases that begin so: new ones are looked at, too.

    Args:
        without: what must not follow.
    """
    names = {path.stem for folder in VECTORS for path in folder.glob(f"{start}*.safetensors")}
    found = sorted(name.removeprefix(start) for name in names)
    return [name for name in found if not name.startswith(without)]


def official_files(start: str) -> list[str]:
    """The names of all files of official scores that begin so."""
    return sorted(path.stem for path in (SHARED / "vectors" / "metrics").glob(f"{start}*.json"))


def vector_folder(name: str) -> Path:
    """Where a case of the original's numbers lies; skips the test if it is nowhere."""
    for folder in VECTORS:
        if (folder / name).is_file():
            return folder
    pytest.skip(f"{name}: not in tests/vectors, and no shared folder")


def case_of(name: str) -> Case:
    """A case of the original's numbers."""
    return Case.read(vector_folder(f"{name}.safetensors") / f"{name}.safetensors")


def load_vectors(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The description and the tensors of a case."""
    case = case_of(name)
    return dict(case.about), dict(case.tensors)


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def within(differences: Iterable[Difference]) -> None:
    """Assert that there are differences, and that each is within its bound."""
    found = list(differences)
    assert found
    assert [difference for difference in found if difference.share > 1] == []


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; skips the test where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no shared folder with real data")
    return SHARED


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 300 tokens with GPT-2's one special token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = (ROOT / "data" / "restaurants" / "src1_valid.txt").read_text(encoding="utf-8")
    tokenizer.train_from_iterator(text.split("\n"), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end
    )


@pytest.fixture(scope="session")
def tiny_folder(
    tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model folder as ``--model_name_or_path`` takes it: GPT-2 of two layers, with tokenizer."""
    folder = tmp_path_factory.mktemp("base") / "tiny-gpt2"
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=320,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
