"""Prefix-tuning: trained keys and values in front of every attention of a frozen transformer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefix_tuning.attached import attach, detach, load
    from prefix_tuning.attention import KeyValues, enable_prefix
    from prefix_tuning.bank import PrefixBank
    from prefix_tuning.model_card import Facts
    from prefix_tuning.parametrizations import EmbeddingPrefix, FlatPrefix, InfixPrefix, MLPPrefix
    from prefix_tuning.prefix import Prefix
    from prefix_tuning.saving import load_prefix, save_prefix
    from prefix_tuning.shape import PrefixShape

__version__ = "0.2.0"
__all__ = [
    "EmbeddingPrefix",
    "Facts",
    "FlatPrefix",
    "InfixPrefix",
    "KeyValues",
    "MLPPrefix",
    "Prefix",
    "PrefixBank",
    "PrefixShape",
    "attach",
    "detach",
    "enable_prefix",
    "load",
    "load_prefix",
    "save_prefix",
]

_HOMES = {
    "attach": "attached",
    "detach": "attached",
    "load": "attached",
    "load_prefix": "saving",
    "save_prefix": "saving",
    "Facts": "model_card",
    "Prefix": "prefix",
    "PrefixBank": "bank",
    "KeyValues": "attention",
    "enable_prefix": "attention",
    "FlatPrefix": "parametrizations",
    "MLPPrefix": "parametrizations",
    "PrefixShape": "shape",
    "EmbeddingPrefix": "parametrizations",
    "InfixPrefix": "parametrizations",
}


def __getattr__(name: str) -> Any:
    # On demand, so that prefix_tuning.errors and .files cost no import of torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
