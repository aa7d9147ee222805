"""Names that flags and messages need before torch is loaded (standard library only)."""

from __future__ import annotations

SITES = ("self", "encoder", "encoder_decoder")
"""The attentions that a prefix can stand in front of, under the original's names.

``self`` is the only one of a decoder or an encoder, and the decoder's own in BART.
"""

BUILT_IN = ("mlp", "flat", "embedding", "infix")
"""The parametrisations of :mod:`prefix_tuning.parametrizations`; a program may register more."""
