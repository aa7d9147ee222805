"""Empty outputs are scored as each official script does."""

from __future__ import annotations

import math

import pytest
from conftest import official_files

from evaluation import dart, e2e, ter, triples, webnlg


@pytest.mark.parametrize("name", official_files("e2e_empty_hyp"))
def test_official_scores_of_e2e(vectors, needs_java, name):
    file = vectors(name)
    scores = e2e.score(file["refs"], file["hyps"])
    official = file["official"]["corpus"]
    for column in ("METEOR", "ROUGE_L", "CIDEr"):
        assert scores[column] == pytest.approx(official[column], abs=1e-9)
    for column, key in (("BLEU", "BLEU_perl_mteval_4dp"), ("NIST", "NIST_perl_mteval_4dp")):
        assert scores[column] == pytest.approx(official[key], abs=5e-5)
    assert scores["BLEU -p"] == pytest.approx(official["BLEU_pymteval(-p)"], abs=1e-9)
    empty = sum(not hyp.strip() for hyp in file["hyps"])
    assert scores.note.startswith(f"{empty} of {len(file['hyps'])} outputs are empty")


def test_multi_bleu_by_hand():
    # All n-grams of the other output match; the empty one only makes the whole shorter.
    refs = [["a b c d e"] * 3, ["x y", "x y z", "x y z"]]
    assert triples.multi_bleu(refs, ["a b c d e", ""], lowercase=False) == pytest.approx(
        100 * math.exp(1 - 7 / 5)
    )
    # Beside fewer than three references stands an empty one, as long as the output.
    refs[1] = ["x y"]
    assert triples.multi_bleu(refs, ["a b c d e", ""], lowercase=False) == pytest.approx(100)


def test_ter_of_nothing_is_one_insertion_a_word():
    # tercom: the fewest edits over the references, by their mean length.
    assert ter.statistics([["a b", "c d e f"]], [""]) == [(2, 3)]
    assert ter.edits([], []) == 0


@pytest.mark.parametrize("text", ["", " ", "\u00a0"])
def test_webnlg_and_dart_count_them(monkeypatch, tmp_path, text):
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java
    references = [["one two three four"], ["five six seven"]]
    hypotheses = ["one two three four", text]
    rows = webnlg.score(references, hypotheses, ["Food", "Artist"], segments=True)
    assert rows["All"].segments["TER"] == [0, 1]
    assert rows["All"]["TER"] == pytest.approx(3 / 7)
    assert [rows[part].segments["TER"] for part in ("Seen", "Unseen")] == [[0], [1]]
    assert rows["Unseen"]["BLEU"] == 0
    assert rows["All"].note == "1 of 2 outputs are empty and scored as the official script does"
    scores = dart.score(references, hypotheses, models=False)
    assert scores["TER"] == pytest.approx(3 / 7)
    assert scores.note.endswith("1 of 2 outputs are empty and scored as the official script does")


def test_meteor_takes_them(needs_java):
    rows = webnlg.score([["a soup ."], ["a city ."]], ["a soup .", ""], ["Food", "Food"], True)
    assert rows["All"].segments["METEOR"][1] == 0
    assert 0 < rows["All"]["METEOR"] < 1
