"""A score that cannot be computed is undefined, and never 0."""

from __future__ import annotations

import json

import pytest
import sacrebleu

from evaluation import e2e, summarization, words
from evaluation.report import format_table
from prefix_tuning.errors import UserError

UNREAD = {  # by rouge-score; the tokeniser that fits
    "今天天气很好": "zh",
    "こんにちは世界": "ja-mecab",
    "สวัสดีครับ": "char",
    "добрый день": "intl",
    "καλημέρα": "intl",
    "안녕하세요": "intl",
}


@pytest.mark.parametrize(("text", "fitting"), UNREAD.items())
def test_rouge_of_a_script_that_it_does_not_read(text, fitting):
    scores = summarization.score(["a cat", text], ["a cat", text], segments=True)
    assert set(scores.values.values()) == {None}
    assert scores.segments["ROUGE-1"] == [100, None]
    sentence = (
        "undefined: the tokeniser rouge sees no word in 1 of 2 texts, first in number 2, which are "
        f"not in its scripts; use --tokenizer {fitting} of evaluation.summarization"
    )
    assert scores.note == sentence
    assert format_table({"x": scores}).count("undefined") == 1
    assert set(summarization.score([text], [text], bootstrap_seed=1).values.values()) == {None}


@pytest.mark.parametrize(
    ("reference", "output"),
    [
        ("a cat", ""),
        ("a cat", "..."),
        ("a cat", "😀"),
        ("a cat", "猫"),
        ("a cat", "dogs"),
        ("!", "a"),
    ],
)
def test_a_true_0_stays(reference, output):
    assert summarization.score([reference], [output])["ROUGE-1"] == 0


def test_an_output_that_shares_what_is_not_read():
    # Half of the words agree, and rouge-score sees none of them.
    assert summarization.score(["iPhone 手机"], ["手机"])["ROUGE-1"] is None
    assert summarization.score(["手机"], ["Error"])["ROUGE-1"] is None
    assert summarization.score(["手机 iPhone"], ["iPhone"])["ROUGE-1"] == 100


def test_rouge_with_another_tokeniser_by_hand():
    scores = summarization.score(["今天天气很好。"], ["今天很好!"], tokenizer="zh")
    # 4 of 4 and of 6 characters, in order; of 3 and 5 pairs of neighbours 2 agree.
    assert scores.values == pytest.approx({"ROUGE-1": 80, "ROUGE-2": 50, "ROUGE-L": 80})
    assert scores.note == "words as the tokeniser zh splits them"
    scores = summarization.score(["Добрый день, друг."], ["добрый вечер"], tokenizer="intl")
    assert scores["ROUGE-1"] == pytest.approx(100 * 2 / 5)


def test_a_tokeniser_whose_package_is_missing(monkeypatch):
    def missing(tokenize):
        raise RuntimeError("Please install")

    monkeypatch.setattr(words, "BLEU", missing)
    with pytest.raises(UserError, match=r"the tokeniser ja-mecab needs a package: pip install sac"):
        summarization.score(["a"], ["a"], tokenizer="ja-mecab")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天天气很好我们", True),
        ("今天天气 很好。", True),
        ("สวัสดีครับ", True),
        ("2019 年天气很好", False),
        ("добрый день", False),
        ("좋은 아침 입니다", False),
        ("猫", False),
        ("a cat", False),
        ("。", False),
    ],
)
def test_bleu_13a_needs_blanks(text, expected):
    assert bool(words.unread_instances([[text]], [text], "13a")) == expected
    if expected:  # nothing but the tokeniser makes it so
        assert sacrebleu.corpus_bleu([text], [[text]]).score == 0
        assert sacrebleu.corpus_bleu([text], [[text]], tokenize="char").score == pytest.approx(100)


def test_e2e_of_a_script_without_blanks(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java
    text = "今天天气很好我们"
    scores = e2e.score([[text], ["a cat sat on it"]], [text, "a cat sat on it"], segments=True)
    assert set(scores.values.values()) == {None}
    assert scores.note.endswith("sacrebleu REFERENCES -i HYPOTHESES -tok zh scores such texts")
    assert scores.segments["BLEU -p"] == [None, pytest.approx(1)]
    assert format_table({"x": scores}).count("undefined") == 1


def test_the_command_prints_a_dash_and_writes_null(tmp_path, capsys):
    path = tmp_path / "a.txt"
    path.write_text("добрый день\n", "utf-8")
    summarization.main([str(path), str(path), "--json", str(tmp_path / "o.json")])
    assert capsys.readouterr().out.splitlines()[1].split() == ["summaries", "-", "-", "-"]
    document = json.loads((tmp_path / "o.json").read_text("utf-8"))
    assert document["scores"]["summaries"]["values"]["ROUGE-1"] is None
    summarization.main([str(path), str(path), "--tokenizer", "intl"])
    assert "100.0000" in capsys.readouterr().out
