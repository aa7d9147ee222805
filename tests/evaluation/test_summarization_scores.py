"""ROUGE against official numbers and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import official_files
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.scoring import BootstrapAggregator, Score

from evaluation import summarization
from evaluation.summarization import COLUMNS, score
from prefix_tuning.errors import UserError

TEXT = st.lists(st.sampled_from(["cats", "sat", "the", "runs", "£5", "x."]), min_size=2).map(
    " ".join
)


@pytest.mark.parametrize("stemmer", [True, False])
@pytest.mark.parametrize("name", official_files("rouge_"))
def test_official_scores(vectors, name, stemmer):
    file = vectors(name)
    refs, hyps = (
        ["<n>".join(item[f"{side}_sentences"]) for item in file["items"]] for side in ("ref", "hyp")
    )
    scores = score(refs, hyps, "<n>", use_stemmer=stemmer, segments=True)
    scorer = f"rouge_score_0.1.2_{'stem' if stemmer else 'nostem'}"
    for measure, column in COLUMNS.items():
        assert scores[column] == pytest.approx(100 * file["mean_F"][scorer][measure], abs=1e-9)
        official = [100 * item[scorer][measure]["F"] for item in file["items"]]
        assert scores.segments[column] == pytest.approx(official, abs=1e-9)
    if not stemmer:  # the Perl program prints five digits
        perl = file["mean_F"]["ROUGE-1.5.5_nostem"]
        ours = (scores["ROUGE-1"], scores["ROUGE-2"], scores["ROUGE-Lsum"])
        assert ours == pytest.approx([100 * value for value in perl.values()], abs=2e-3)


def test_by_hand():
    # Of 3 and 4 words 2 agree in order after stemming; no two words in a row do.
    scores = score(["the cats sat there"], ["a cat there"])
    assert scores.values == pytest.approx(
        {"ROUGE-1": 400 / 7, "ROUGE-2": 0, "ROUGE-L": 400 / 7}, abs=1e-9
    )


def test_sentences_matter_to_rouge_lsum_only():
    scores = score(["a b c.<n>d e f."], ["d e f.<n>a b c."], sentence_separator="<n>")
    assert scores["ROUGE-L"] == pytest.approx(50)
    assert scores["ROUGE-Lsum"] == pytest.approx(100)


def test_bootstrap_repeats_and_leaves_the_global_generator_alone():
    refs, hyps = ["a b c", "d e f", "g h"], ["a b", "d x y", "h g"]
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    first = score(refs, hyps, bootstrap_seed=1)
    assert np.random.random() == expected
    assert first.values == score(refs, hyps, bootstrap_seed=1).values
    assert first["ROUGE-1"] == pytest.approx(score(refs, hyps)["ROUGE-1"], abs=15)


@pytest.mark.parametrize("n_text", [1, 2, 10, 33, 1500])
def test_bootstrap_is_that_of_rouge_score_to_the_last_bit(n_text):
    random = np.random.RandomState(n_text)
    names = ("rouge1", "rouge2", "rougeL")
    results = [{name: Score(*random.rand(3)) for name in names} for _ in range(n_text)]
    aggregator = BootstrapAggregator()
    for result in results:
        aggregator.add_scores(result)
    np.random.seed(5)
    wanted = {name: found.mid.fmeasure for name, found in aggregator.aggregate().items()}
    assert summarization._medians(results, names, 5) == wanted


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_equal_texts_score_100(texts):
    scores = score(texts, texts)
    assert list(scores.values.values()) == pytest.approx([100, 100, 100])


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_order_of_summaries_does_not_matter(pairs):
    first, second = (score(*zip(*p, strict=True)).values for p in (pairs, pairs[::-1]))
    assert first == pytest.approx(second)


def test_an_empty_summary_scores_0_and_is_counted():
    scores = summarization.score(["a", "b"], ["a", ""], segments=True)
    assert scores.segments["ROUGE-1"] == [100, 0]
    assert scores["ROUGE-1"] == 50
    assert scores.note.startswith("1 of 2 outputs are empty")
    with pytest.raises(UserError, match="instance 2 has no reference"):
        summarization.score(["a", " "], ["a", "b"])
