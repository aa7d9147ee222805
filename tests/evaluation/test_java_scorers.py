"""METEOR, the PTB tokeniser and what builds on it; METEOR starts once for the whole module."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import official_files

from evaluation import e2e, java
from evaluation.report import Unavailable

E2E_FILES = official_files("e2e_")
WEBNLG_PARTS = ["all", "seen", "unseen"]
EDGE_CASES = "ter_bleu_meteor_edge_cases"

REFERENCES = [
    ["the old mill serves cheap fish", "cheap fish is served at the old mill"],
    ["blue harbour is a pricey hotel"],
    ["no children are allowed in the bar", "the bar is for adults only"],
]
HYPOTHESES = ["at the old mill fish is cheap", "blue harbor is an expensive hotel", "adults only"]

Segment = tuple[list[str], str]  # references, hypothesis


@pytest.fixture(scope="module")
def files(shared: Path | None) -> dict[str, Any]:
    folder = shared / "vectors" / "metrics" if shared else Path("absent")
    return {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}


def _official_corpora(files: dict[str, Any]) -> dict[Any, list[Segment]]:
    """The corpora with an official METEOR, as METEOR sees them: by file, or by file and part."""
    corpora: dict[Any, list[Segment]] = {}
    for name in E2E_FILES:
        file = files[name]
        flat = [*file["hyps"], *(ref for refs in file["refs"] for ref in refs)]
        tokenized = iter(java.ptb_tokenize(flat))
        hyps = [next(tokenized) for _ in file["hyps"]]
        refs = [[next(tokenized) for _ in group] for group in file["refs"]]
        stored = file["ptb_tokenised_nopunct"]
        assert (hyps, refs) == (stored["hyps"], stored["refs"])
        corpora[name] = list(zip(refs, hyps, strict=True))
    for name in official_files("webnlg"):
        file = files[name]
        refs = [[ref for ref in group if ref] for group in file["refs_normalised"]]
        segments = list(zip(refs, file["hyps_normalised"], file["seen_unseen"], strict=True))
        for part in WEBNLG_PARTS:
            corpora[name, part] = [(r, hyp) for r, hyp, where in segments if part in ("all", where)]
    for name in official_files("dart"):
        corpora[name] = list(zip(files[name]["refs"], files[name]["hyps"], strict=True))
    for name in official_files(EDGE_CASES):
        corpora[name] = [(item["refs"], item["hyp"]) for item in files[name]["items"]]
        corpora |= {(name, i): [item] for i, item in enumerate(corpora[name])}
    return corpora


@pytest.fixture(scope="module")
def meteor(files: dict[str, Any]) -> dict[Any, tuple[float, list[float]]]:
    """METEOR of own texts in three orders, and of the official corpora where they are at hand."""
    if shutil.which("java") is None:
        pytest.skip("needs Java")
    own: list[Segment] = list(zip(REFERENCES, HYPOTHESES, strict=True))
    corpora: dict[Any, list[Segment]] = {
        "own": own,
        "segments reversed": own[::-1],
        "references reversed": [(refs[::-1], hyp) for refs, hyp in own],
        "perfect": [(refs, refs[-1]) for refs in REFERENCES],
        "odd": [(["one\u2028two\nthree"], "one two ||| three")],
    }
    corpora |= _official_corpora(files) if files else {}
    segments, parts = [], []
    for corpus in corpora.values():
        parts.append(range(len(segments), len(segments) + len(corpus)))
        segments += corpus
    references, hypotheses = zip(*segments, strict=True)
    return dict(zip(corpora, java.meteor(references, hypotheses, parts), strict=True))


def test_meteor_of_own_texts(meteor):
    corpus, segments = meteor["own"]  # as the jar's command line prints them
    assert corpus == 0.35887430094384315
    assert segments == [0.4405083367170058, 0.34317810895465795, 0.2581998173093651]


def test_meteor_ignores_the_order_of_segments_and_references(meteor):
    corpus, segments = meteor["own"]
    assert meteor["references reversed"] == (corpus, segments)
    assert meteor["segments reversed"][1] == segments[::-1]
    assert meteor["segments reversed"][0] == pytest.approx(corpus, abs=1e-12)


def test_meteor_of_equal_texts_is_1(meteor):
    assert meteor["perfect"] == (1.0, [1.0, 1.0, 1.0])
    assert meteor["odd"] == (1.0, [1.0])


@pytest.mark.parametrize("name", E2E_FILES)
def test_official_e2e_scores(meteor, files, name):
    official = files[name]["official"]
    corpus, segments = meteor[name]
    assert corpus == official["corpus"]["METEOR"]
    assert segments == [segment["METEOR"] for segment in official["segments"]]


@pytest.mark.parametrize("name", [*official_files("webnlg"), *official_files("dart")])
def test_official_meteor_without_tokenisation(meteor, files, name):
    official = files[name]["official"]
    parts = {None: official} if "METEOR" in official else official
    for part, wanted in parts.items():
        found = meteor[name if part is None else (name, part)]
        assert found == (wanted["METEOR"], wanted["METEOR_segments"])


@pytest.mark.parametrize("name", official_files(EDGE_CASES))
def test_official_meteor_of_edge_cases(meteor, files, name):
    official = files[name]["corpus_official"]
    assert meteor[name] == (official["METEOR"], official["METEOR_segments"])
    for number, item in enumerate(files[name]["items"]):
        assert meteor[name, number][0] == item["official"]["METEOR"]


@pytest.mark.parametrize("name", E2E_FILES)
def test_official_rouge_and_cider_from_stored_tokens(vectors, name):
    file = vectors(name)
    tokens, official = file["ptb_tokenised_nopunct"], file["official"]
    for column, (corpus, segments) in e2e.score_tokenized(tokens["refs"], tokens["hyps"]).items():
        assert corpus == pytest.approx(official["corpus"][column], abs=1e-12)
        assert segments == pytest.approx([s[column] for s in official["segments"]], abs=1e-12)


def test_rouge_l_by_hand():
    # Best precision (3 of 3) and best recall (2 of 2) come from different references.
    corpus, segments = e2e.score_tokenized([["a b x c", "a b"]], ["a b c"])["ROUGE_L"]
    assert (corpus, segments) == (1.0, [1.0])
    # 2 of 3 output words, 2 of 4 reference words; recall weighs beta = 1.2.
    corpus, _ = e2e.score_tokenized([["a b d e"]], ["a b c"])["ROUGE_L"]
    assert corpus == pytest.approx((1 + 1.44) * (2 / 3) * (1 / 2) / (1 / 2 + 1.44 * 2 / 3))


def test_ptb_tokens(needs_java):
    texts = ["It isn't a café; it's (rather) £20-25 a head.", "", "line\u2028end\r\nand more", ""]
    assert java.ptb_tokenize(texts) == [
        "it is n't a café it 's -lrb- rather -rrb- # 20-25 a head",
        "",
        "line end and more",
        "",
    ]


def test_no_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with_blanks = [[*group, ""] for group in REFERENCES]  # a blank reference is none
    scores = e2e.score(with_blanks, HYPOTHESES, segments=True)
    for column in ("METEOR", "ROUGE_L", "CIDEr"):
        assert scores[column] is None
        assert "needs Java: install" in scores.missing[column]
    assert scores["BLEU"] == pytest.approx(e2e.score_ngrams(REFERENCES, HYPOTHESES)["BLEU"])
    assert scores["NIST -p"] is not None
    assert list(scores.segments) == ["BLEU -p", "sentBLEU -p", "NIST -p"]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for java")
def test_java_that_does_not_run(monkeypatch, tmp_path):
    program = tmp_path / "java"
    program.write_text("#!/bin/sh\necho Unable to locate a Java Runtime. >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = "did not run: Unable to locate a Java Runtime"
    with pytest.raises(Unavailable, match=reason):
        java.ptb_tokenize(["some text"])
    with pytest.raises(Unavailable, match=reason):
        java.meteor(REFERENCES, HYPOTHESES, [range(3)])
