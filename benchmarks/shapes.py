"""Sizes of the models that are measured, and of the texts that they read."""

from __future__ import annotations

import json
from pathlib import Path

GPT2 = {"gpt2": (12, 12, 768), "gpt2-medium": (24, 16, 1024), "tiny": (2, 2, 64)}
SERVED = {"toy": (2, 2, 32), "small": (6, 6, 384), "gpt2": (12, 12, 768)}
BERT = {"bert-base": (12, 12, 768), "bert-large": (24, 16, 1024), "tiny": (2, 2, 64)}
"""Layers, heads, width."""
BART = {"bart-large": (12, 16, 1024, 4096), "bart-base": (6, 12, 768, 3072)}
"""Layers of a stack, heads, width, width inside the MLP."""


def _lengths(name: str) -> list[list[int]]:
    read: list[list[int]] = json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    return read


E2E_LENGTHS = _lengths("e2e_lengths.json")
"""Tokens of prompt and target of 300 random E2E training pairs, in GPT-2's vocabulary."""
XSUM_LENGTHS = _lengths("xsum_lengths.json")
"""Tokens of source and target of 240 random XSUM test pairs, in BART's vocabulary."""
