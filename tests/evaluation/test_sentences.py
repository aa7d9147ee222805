"""ROUGE-Lsum with NLTK's Punkt, against rouge-score with NLTK by hand."""

from __future__ import annotations

import nltk
import pytest
from rouge_score.rouge_scorer import RougeScorer

from evaluation import summarization
from prefix_tuning.errors import UserError

REFERENCES = [
    "Dr. Lee met Mr. Fox. They ate. It rained!",
    "One sentence only",
    "Cats sleep. Dogs run? Fish swim.",
]
HYPOTHESES = [
    "It rained! Dr. Lee ate.",
    "One sentence. Only one.",
    "Dogs run? Fish swim. Cats sleep.",
]


@pytest.fixture
def punkt(tmp_path, monkeypatch):
    """A Punkt that knows two abbreviations, in the layout of the published data."""
    folder = tmp_path / "tokenizers/punkt_tab/english"
    folder.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "ortho_context.tab"):
        (folder / name).touch()
    (folder / "abbrev_types.txt").write_text("dr\nmr\n")
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(summarization.punkt, "__defaults__", (tmp_path,))
    return tmp_path


def test_abbreviations_end_no_sentence(punkt):
    split = summarization.punkt()
    assert split(REFERENCES[0]) == ["Dr. Lee met Mr. Fox.", "They ate.", "It rained!"]
    assert nltk.data.path == []  # as it was


@pytest.mark.parametrize("stemmer", [True, False])
def test_rouge_lsum_is_that_of_rouge_score(punkt, monkeypatch, stemmer):
    scores = summarization.score(
        REFERENCES, HYPOTHESES, sentence_splitter="nltk", use_stemmer=stemmer, segments=True
    )
    assert list(scores.values) == ["ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-Lsum (nltk)"]
    monkeypatch.setattr(nltk.data, "path", [str(punkt)])
    scorer = RougeScorer(["rougeL", "rougeLsum"], use_stemmer=stemmer, split_summaries=True)
    for i, pair in enumerate(zip(REFERENCES, HYPOTHESES, strict=True)):
        expected = scorer.score(*pair)
        found = scores.segments["ROUGE-Lsum (nltk)"][i], scores.segments["ROUGE-L"][i]
        wanted = [100 * expected[name].fmeasure for name in ("rougeLsum", "rougeL")]
        assert found == pytest.approx(wanted)
    assert scores["ROUGE-Lsum (nltk)"] > scores["ROUGE-L"]
    by_hand = summarization.score(
        *(["|".join(nltk.sent_tokenize(t)) for t in texts] for texts in (REFERENCES, HYPOTHESES)),
        sentence_separator="|",
        use_stemmer=stemmer,
    )
    assert by_hand["ROUGE-Lsum"] == pytest.approx(scores["ROUGE-Lsum (nltk)"])


def test_data_that_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(UserError, match=r"--sentence_splitter nltk needs.*download_data\.sh nltk"):
        summarization.punkt(tmp_path)
    assert nltk.data.path == []


def test_two_ways_to_split_or_an_empty_one():
    with pytest.raises(UserError, match="--sentence_separator or --sentence_splitter"):
        summarization.score(["a"], ["a"], "|", sentence_splitter="nltk")
    with pytest.raises(UserError, match="--sentence_splitter spacy: there is only nltk"):
        summarization.score(["a"], ["a"], sentence_splitter="spacy")
    with pytest.raises(UserError, match="--sentence_separator is empty"):
        summarization.score(["a"], ["a"], "")


def test_the_command(punkt, tmp_path, capsys):
    refs, hyps = tmp_path / "refs.txt", tmp_path / "hyps.txt"
    refs.write_text("Cats sleep. Dogs run.\n")
    hyps.write_text("Dogs run. Cats sleep.\n")
    summarization.main([str(refs), str(hyps), "--sentence_splitter", "nltk"])
    header, values = capsys.readouterr().out.splitlines()
    assert header.endswith("ROUGE-L  ROUGE-Lsum (nltk)")
    assert values.split()[-2:] == ["50.0000", "100.0000"]
