"""BLEU and NIST of e2e-metrics: NIST's mteval-v13a-sig.pl, and pymteval.py behind ``-p``.

No package computes NIST with several references, nor either program's BLEU where outputs are
very short. On ordinary outputs BLEU is the same in both and equals sacrebleu's ``13a`` tokens in
lower case without smoothing. They differ in this:

==================  ==========================================  ===============================
                    Perl (the challenge's numbers)              Python, ``-p`` (the paper's)
==================  ==========================================  ===============================
lower case          A to Z, before tokenisation                 all letters, after it
empty text          no token                                    one empty token
n-grams of a text   max(length - n + 1, 0)                      length - n + 1, also below 0
no BLEU match       1 / (2^k total), k-th such order            1e-15 / total
no n-gram           the order counts as precision 1             BLEU: 1e9, NIST: undefined
NIST length         words / mean words over all references      words / mean over instances
==================  ==========================================  ===============================
"""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Sequence

from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

Tokens = list[str]
_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_tokenize_13a = Tokenizer13a()


def tokenize(text: str, perl: bool) -> Tokens:
    """Lower-cased 13a tokens; the two programs differ on accents and on empty text."""
    if perl:
        return _tokenize_13a(text.translate(_ASCII_LOWER)).split()
    return _tokenize_13a(text).lower().split(" ")


def _ngrams(tokens: Tokens, n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


class Mteval:
    """n-gram statistics of a corpus, from which BLEU and NIST follow.

    Args:
        references: one or more texts per instance.
        hypotheses: one text per instance.
        perl: which of the two programs to follow, see the table above.
    """

    ORDERS = range(1, 6)

    def __init__(
        self, references: Sequence[Sequence[str]], hypotheses: Sequence[str], perl: bool
    ) -> None:
        self.perl = perl
        self.references = [[tokenize(ref, perl) for ref in refs] for refs in references]
        self.hypotheses = [tokenize(hyp, perl) for hyp in hypotheses]
        self.length = sum(map(len, self.hypotheses))
        self.matches = {n: Counter[tuple[str, ...]]() for n in self.ORDERS}
        self.reference_counts = {n: Counter[tuple[str, ...]]() for n in self.ORDERS}
        for refs, hyp in zip(self.references, self.hypotheses, strict=True):
            for n in self.ORDERS:
                most = Counter[tuple[str, ...]]()
                for counts in (_ngrams(ref, n) for ref in refs):
                    most |= counts
                    self.reference_counts[n].update(counts)
                self.matches[n].update(_ngrams(hyp, n) & most)
        self.reference_words = self.reference_counts[1].total()

    def _total(self, n: int) -> int:
        """Number of n-grams in the hypotheses."""
        totals = (len(hyp) - n + 1 for hyp in self.hypotheses)
        return sum(max(total, 0) for total in totals) if self.perl else sum(totals)

    def _closest_length(self) -> int:
        """Length of the reference closest to each hypothesis (the shorter of two), summed."""
        total = 0
        for refs, hyp in zip(self.references, self.hypotheses, strict=True):
            lengths = [len(ref) for ref in refs if ref or not self.perl]
            total += min(lengths, key=lambda n: (abs(n - len(hyp)), n), default=0)
        return total

    def bleu(self, smoothing: float = 0.0) -> float:
        """BLEU-4 (Papineni et al. 2002), from 0 to 1; with ``-p`` above 1 for very short texts.

        Args:
            smoothing: added to matches and totals; 1 gives the per-segment ``sentBLEU`` of ``-p``.
        """
        if self.length == 0:
            return 0.0
        precision = self._perl_precision if self.perl else self._python_precision
        penalty = min(1.0, math.exp(1 - self._closest_length() / self.length))
        return penalty * precision(smoothing)

    def _perl_precision(self, smoothing: float) -> float:
        log_sum, halvings = 0.0, 1.0
        for n in range(1, 5):
            matches, total = self.matches[n].total() + smoothing, self._total(n) + smoothing
            if total == 0:
                continue
            if matches == 0:
                halvings /= 2
                matches = halvings
            log_sum += math.log(matches / total)
        return math.exp(log_sum / 4)

    def _python_precision(self, smoothing: float) -> float:
        log_sum = 0.0
        for n in range(1, 5):
            matches, total = self.matches[n].total() + smoothing, self._total(n) + smoothing
            log_sum += math.log(max(matches, 1e-15) / max(total, 1e-9))
        return math.exp(log_sum / 4)

    def nist(self) -> float | None:
        """NIST-5 (Doddington 2002), from 0, no upper bound; None where ``-p`` divides by zero."""
        score = 0.0
        for n in self.ORDERS:
            total = self._total(n)
            gain = sum(count * self._information(ngram) for ngram, count in self.matches[n].items())
            if total == 0 and not self.perl:
                return None
            score += gain / total if total else 0.0
        return score * self._nist_penalty()

    def _information(self, ngram: tuple[str, ...]) -> float:
        """Bits that the last word adds to the words before it, over all references."""
        n = len(ngram)
        before = self.reference_counts[n - 1][ngram[:-1]] if n > 1 else self.reference_words
        return math.log2(before / self.reference_counts[n][ngram])

    def _nist_penalty(self) -> float:
        """1 for outputs as long as the references, 0.5 for two thirds of their length."""
        if self.perl:
            count = sum(map(len, self.references))
            expected = self.reference_words / (count / len(self.references))
        else:
            expected = sum(sum(map(len, refs)) / len(refs) for refs in self.references)
        ratio = min(1.0, self.length / expected)
        beta = math.log(0.5) / math.log(1.5) ** 2
        return math.exp(beta * math.log(ratio) ** 2) if ratio > 0 else 0.0
