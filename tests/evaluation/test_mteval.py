"""BLEU and NIST of the E2E challenge against official numbers, sacrebleu, NLTK and by hand."""

from __future__ import annotations

import math

import pytest
from conftest import official_files
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.nist_score import corpus_nist
from sacrebleu.metrics import BLEU

from evaluation.mteval import Mteval, tokenize

WORDS = st.sampled_from(["the", "Mill", "is", "a", "cheap", "pub", ",", "£20-25", "4.5", "café"])
TEXT = st.lists(WORDS, min_size=5, max_size=12).map(" ".join)
CORPUS = st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=4)), min_size=1, max_size=6)

OFFICIAL_FILES = official_files("e2e_")


@pytest.mark.parametrize("name", OFFICIAL_FILES)
def test_official_corpus_scores(vectors, name):
    file = vectors(name)
    official = file["official"]["corpus"]
    perl = Mteval(file["refs"], file["hyps"], perl=True)
    assert perl.bleu() == pytest.approx(official["BLEU_perl_mteval_4dp"], abs=5.1e-5)
    assert perl.nist() == pytest.approx(official["NIST_perl_mteval_4dp"], abs=5.1e-5)
    python = Mteval(file["refs"], file["hyps"], perl=False)
    if official["NIST_pymteval(-p)"] is None:  # the official program stopped there
        assert python.nist() is None
    else:
        assert python.bleu() == pytest.approx(official["BLEU_pymteval(-p)"], abs=1e-12)
        assert python.nist() == pytest.approx(official["NIST_pymteval(-p)"], abs=1e-12)


@pytest.mark.parametrize("name", OFFICIAL_FILES)
def test_official_tokens_and_segment_scores(vectors, name):
    file = vectors(name)
    assert [tokenize(hyp, perl=False) for hyp in file["hyps"]] == file["tokens_13a_lower"]["hyps"]
    for refs, hyp, official in zip(
        file["refs"], file["hyps"], file["official"]["segments"], strict=True
    ):
        alone = Mteval([refs], [hyp], perl=False)
        assert alone.bleu() == pytest.approx(official["BLEU"], rel=1e-12)
        assert alone.bleu(smoothing=1) == pytest.approx(official["sentBLEU"], rel=1e-12)
        assert alone.nist() == (official["NIST"] and pytest.approx(official["NIST"], rel=1e-12))


@given(CORPUS)
def test_bleu_is_sacrebleu_where_outputs_are_not_short(corpus):
    hyps, refs = [hyp for hyp, _ in corpus], [refs for _, refs in corpus]
    longest = max(map(len, refs))
    padded = [[*group, *[None] * (longest - len(group))] for group in refs]
    sacrebleu = BLEU(tokenize="13a", lowercase=True, smooth_method="exp")
    expected = sacrebleu.corpus_score(hyps, list(zip(*padded, strict=True))).score / 100
    assert Mteval(refs, hyps, perl=True).bleu() == pytest.approx(expected, abs=1e-12)
    if all(Mteval(refs, hyps, perl=False).matches[n] for n in range(1, 5)):
        assert Mteval(refs, hyps, perl=False).bleu() == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6))
def test_nist_is_nltk_with_one_reference(pairs):
    hyps, refs = [hyp for hyp, _ in pairs], [[ref] for _, ref in pairs]
    corpus = Mteval(refs, hyps, perl=False)
    expected = corpus_nist(corpus.references, corpus.hypotheses, n=5)
    assert corpus.nist() == pytest.approx(expected, abs=1e-12)


def test_nist_with_two_references_by_hand():
    # Of 4 reference words 2 are a, 1 is b: 1 and 2 bits; b after a adds 1 bit more.
    corpus = Mteval([["a b", "a c"]], ["a b"], perl=True)
    assert corpus.nist() == pytest.approx((1 + 2) / 2 + 1)
    assert Mteval([["a b", "a c"]], ["a b"], perl=False).nist() is None


def test_the_two_length_penalties_by_hand():
    # 4 words against 8 / 2 + 2 = 6, and against 10 words / (3 references / 2 instances).
    refs, hyps = [["a b c d e f g", "a"], ["p q"]], ["a b", "p q"]
    penalty_p, penalty_perl = (Mteval(refs, hyps, perl)._nist_penalty() for perl in (False, True))
    assert penalty_p == pytest.approx(0.5)
    assert penalty_perl == pytest.approx(0.5 ** (math.log(0.6) / math.log(1.5)) ** 2)


@given(CORPUS, st.randoms(use_true_random=False))
def test_order_of_segments_and_of_references_does_not_matter(corpus, random):
    shuffled = [(hyp, random.sample(refs, len(refs))) for hyp, refs in corpus]
    random.shuffle(shuffled)
    for perl in (True, False):
        first, second = (
            Mteval([refs for _, refs in c], [hyp for hyp, _ in c], perl) for c in (corpus, shuffled)
        )
        assert first.bleu() == pytest.approx(second.bleu(), rel=1e-9)
        assert first.nist() == pytest.approx(second.nist(), rel=1e-9)


@given(st.lists(TEXT, min_size=1, max_size=6))
def test_an_output_equal_to_its_reference_is_perfect(texts):
    refs = [["something else entirely", text] for text in texts]
    assert Mteval(refs, texts, perl=True).bleu() == pytest.approx(1.0)
    assert Mteval(refs, texts, perl=False).bleu() == pytest.approx(1.0)


def test_lower_case_and_tokens_of_the_two_programs():
    assert " ".join(tokenize("CAFÉ £20-25, 4.5!", perl=True)) == "cafÉ £20 - 25 , 4.5 !"
    assert " ".join(tokenize("CAFÉ £20-25, 4.5!", perl=False)) == "café £20 - 25 , 4.5 !"
    assert tokenize("", perl=True) == []
    assert tokenize("", perl=False) == [""]
