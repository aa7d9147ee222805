"""Prefix-tuning: trained keys and values in front of every attention of a frozen transformer."""

from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.prefix import FlatPrefix, MLPPrefix
from prefix_tuning.shape import PrefixShape
from prefix_tuning.variants import EmbeddingPrefix, InfixPrefix

__version__ = "0.1.0"
__all__ = [
    "EmbeddingPrefix",
    "FlatPrefix",
    "InfixPrefix",
    "KeyValues",
    "MLPPrefix",
    "PrefixShape",
    "enable_prefix",
]
