"""Tokenisers by name, and the texts in which a tokeniser sees no word.

rouge-score knows the letters a to z and the digits, so that a text in Greek or Chinese has no word.
BLEU's 13a and ``intl`` take what stands between blanks for a word, so that a text in a script
without blanks is one word and has no 4-gram. A score of such a text would be 0 whatever it says:
it is undefined.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from sacrebleu.metrics.bleu import BLEU

from evaluation.report import Scores
from prefix_tuning.errors import UserError

Tokenize = Callable[[str], list[str]]
TOKENIZERS = ("rouge", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char")
"""rouge-score's and sacrebleu's."""

# Thai, Lao, Burmese, Khmer; kana; Han.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
_UNSPLIT = re.compile(f"[{_UNSPACED}]{{2}}")
_FITTING = (
    (re.compile("[\u3040-\u30ff]"), "ja-mecab"),
    (re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"), "zh"),
    (re.compile(f"[{_UNSPACED}]"), "char"),
)


def tokenizer(name: str, use_stemmer: bool = True) -> Tokenize:
    """The words of a text in lower case, punctuation left out, as ROUGE compares them.

    Args:
        name: one of ``TOKENIZERS``.
        use_stemmer: Porter's, which rouge-score's own tokeniser has.

    Raises:
        UserError: ``ja-mecab`` and ``ko-mecab`` need a package that is not installed.
    """
    if name == "rouge":
        from rouge_score.tokenizers import DefaultTokenizer

        return DefaultTokenizer(use_stemmer).tokenize
    split = _sacrebleu(name)
    return lambda text: [word for word in split(text.lower()).split() if _has_letter(word)]


def _sacrebleu(name: str) -> Callable[[str], str]:
    try:
        return BLEU(tokenize=name).tokenizer
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"the tokeniser {name} needs a package: pip install sacrebleu[{name[:2]}]"
        ) from error


def _has_letter(text: str) -> bool:
    """Letters, numbers, and the marks that some scripts write vowels with."""
    return any(unicodedata.category(character)[0] in "LMN" for character in text)


def is_unread(text: str, name: str, tokenize: Tokenize) -> bool:
    """Whether a text has words and none of them is a token.

    Args:
        name: of the tokeniser; those made for a script without blanks are taken to know words.
        tokenize: the tokeniser.
    """
    if text.isascii() or not _has_letter(text):
        return False
    words = [word for word in tokenize(text) if _has_letter(word)]
    if name in ("13a", "intl"):
        words = [word for word in words if not _UNSPLIT.search(word)]
    return not words


def unread_instances(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str], name: str
) -> dict[int, str]:
    """The instances, by number from 0, whose score says nothing, and the text that is not read.

    An output without a word that is read scores a true 0 where it shares no letter with its
    references, as that of a model which answers in another script.
    """
    tokenize = tokenizer(name, use_stemmer=False)
    unread: dict[int, str] = {}
    for number, (texts, hypothesis) in enumerate(zip(references, hypotheses, strict=True)):
        letters = set(filter(_has_letter, hypothesis.lower()))
        compared = list(texts)
        if not letters.isdisjoint("".join(texts).lower()):
            compared.append(hypothesis)
        for text in compared:
            if is_unread(text, name, tokenize):
                unread.setdefault(number, text)
    return unread


def undefine_unread(
    scores: Scores,
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[str],
    name: str,
    advice: str = "sacrebleu REFERENCES -i HYPOTHESES -tok {} scores such texts",
) -> None:
    """Take back scores of texts that the tokeniser ``name`` does not read, and say so in a note.

    Args:
        scores: of these texts.
        references: one or more per instance.
        hypotheses: one per instance.
        name: of the tokeniser that the scores stand on.
        advice: how to use another one, ``{}`` being the one that fits.
    """
    unread = unread_instances(references, hypotheses, name)
    if not unread:
        return
    first, text = next(iter(unread.items()))
    fitting = next((fit for script, fit in _FITTING if script.search(text)), "intl")
    reason = (
        f"undefined: the tokeniser {name} sees no word in {len(unread)} of {len(hypotheses)} "
        f"texts, first in number {first + 1}, which are not in its scripts; "
        f"{advice.format(fitting)}"
    )
    scores.undefine(reason, unread)
