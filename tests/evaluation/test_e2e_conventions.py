"""Conventions of E2E that full test sets hide."""

from __future__ import annotations

import pytest

from evaluation import e2e


def test_sources_are_equal_but_for_the_spaces_around_them():
    pairs = [("a ", "x"), ("b", "y"), (" a", "z"), ("a", " ")]
    assert e2e.group_by_source(pairs) == {"a": ["x", "z"], "b": ["y"]}


def test_segments_by_hand_and_without_empty_references(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java
    refs, hyps = [["a b c d"], ["a b c d"]], ["a b x d", "a b c d"]
    scores = e2e.score(refs, hyps, segments=True)
    # One is added to matches and totals of each order: 4/5, 2/4, 1/3, 1/2.
    expected = [(4 / 5 * 2 / 4 * 1 / 3 * 1 / 2) ** 0.25, 1]
    assert scores.segments["sentBLEU -p"] == pytest.approx(expected)
    padded = e2e.score([[*group, "", " "] for group in refs], hyps, segments=True)
    assert padded.values == scores.values
    assert padded.segments == scores.segments
    short = e2e.score([["a b c d e f", ""]], ["a b c d"])
    assert short["BLEU -p"] == pytest.approx(e2e.score([["a b c d e f"]], ["a b c d"])["BLEU -p"])
    assert short["NIST -p"] == pytest.approx(e2e.score([["a b c d e f"]], ["a b c d"])["NIST -p"])
