"""What the tokenizers of 2020 did to decoded text."""

from __future__ import annotations

CLEAN_UP = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)
"""What ``clean_up_tokenization_spaces`` did; today's byte-level tokenizers ignore that flag."""


def clean_up(text: str) -> str:
    """Remove the spaces that tokenised English has before punctuation and clitics."""
    for old, new in CLEAN_UP:
        text = text.replace(old, new)
    return text
