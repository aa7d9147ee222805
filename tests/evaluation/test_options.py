"""Every option reaches what it is for, and conventions that no official number shows."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evaluation import classification, dart, files, neural, summarization, triples, webnlg
from evaluation.report import Scores, format_table, percent
from prefix_tuning.errors import UserError


def test_options_of_dart_reach_the_models(monkeypatch, tmp_path):
    calls = {}
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java
    for name in ("moverscore", "bertscore", "bleurt"):

        def fake(refs, hyps, *options, name=name):
            calls[name] = (refs, hyps, *options)
            return [0.25, 0.75]

        monkeypatch.setattr(neural, name, fake)
    record = {"tripleset": [["a", "B", "c"]], "annotations": [{"text": "A."}, {"text": "B."}]}
    other = {"tripleset": [["a", "B", "d"]], "annotations": [{"text": "C."}]}
    refs, hyps = tmp_path / "refs.json", tmp_path / "hyps.txt"
    refs.write_text(json.dumps([record, other]))
    hyps.write_text("X.\nY.\n")
    options = ["--bertscore_model", "m", "--bertscore_layers", "3", "--bleurt_checkpoint", "c"]
    dart.main([str(refs), str(hyps), *options, "--segments", "--json", str(tmp_path / "o.json")])
    outputs, first = ["x .", "y ."], ["a .", "c ."]
    assert calls == {
        "moverscore": (first, outputs),
        "bertscore": ([["a .", "b ."], ["c ."]], outputs, "m", 3),
        "bleurt": (first, outputs, "c"),
    }
    scores = json.loads((tmp_path / "o.json").read_text())["scores"]["DART"]
    assert scores["values"]["BLEURT"] == 0.5
    assert scores["segments"]["BLEURT"] == [0.25, 0.75]
    dart.main([str(refs), str(hyps)])
    utils = pytest.importorskip("bert_score.utils")
    assert calls["bertscore"][2:] == ("roberta-large", utils.model2layers["roberta-large"])
    calls.clear()
    dart.main([str(refs), str(hyps), "--no_models"])
    assert not calls


def test_options_of_summaries_reach_their_scorer(monkeypatch, tmp_path):
    calls = []

    def score(references, hypotheses, **options):
        calls.append({"texts": (references, hypotheses), **options})
        return Scores({"ROUGE-1": 1.0})

    monkeypatch.setattr(summarization, "score", score)
    for name, text in (("refs", "a\n"), ("hyps", "b\n")):
        (tmp_path / name).write_text(text)
    plain = {"texts": (["a"], ["b"]), "sentence_separator": None, "bootstrap_seed": None}
    plain |= {"segments": False, "tokenizer": "rouge", "sentence_splitter": None}
    for options, changed in (
        ([], {}),
        (["--sentence_separator", "|"], {"sentence_separator": "|"}),
        (["--bootstrap", "0"], {"bootstrap_seed": 0}),
        (["--segments"], {"segments": True}),
        (["--tokenizer", "char"], {"tokenizer": "char"}),
        (["--sentence_splitter", "nltk"], {"sentence_splitter": "nltk"}),
    ):
        summarization.main([str(tmp_path / "refs"), str(tmp_path / "hyps"), *options])
        assert calls.pop() == plain | changed


def test_the_first_three_references_count(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java
    references = [["one two three four", "b c d e", "f g h i", "a cat sat down"]]
    rows = webnlg.score(references, ["a cat sat down"], ["Food"])
    scores = dart.score(references, ["a cat sat down"], models=False)
    assert rows["All"]["TER"] == scores["TER"] == 1
    assert rows["All"]["BLEU"] == scores["BLEU"] == 0


def test_every_part_has_the_scores_of_its_instances(monkeypatch):
    """One edit in four words of the second text; METEOR as the parts are asked for."""

    def meteor(references, hypotheses, parts):
        assert [[*part] for part in parts] == [[0], [1], [0, 1]]
        return [(0.1, [0.1]), (0.2, [0.2]), (0.3, [0.1, 0.2])]

    monkeypatch.setattr(triples.java, "meteor", meteor)
    references, outputs = [["a b c d"], ["A b c x", "e f g h i j"]], ["a b c d", "a b c d"]
    parts = {"Seen": [0], "Unseen": [1], "All": range(2)}
    rows = triples.score_parts(references, outputs, parts, lowercase=True, segments=True)
    values = {name: (row["METEOR"], row["TER"]) for name, row in rows.items()}
    assert values == {"Seen": (0.1, 0.0), "Unseen": (0.2, 1 / 5), "All": (0.3, 1 / 9)}
    assert rows["All"].segments == {"TER": [0.0, 1 / 5], "METEOR": [0.1, 0.2]}
    assert rows["Unseen"].segments == {"TER": [1 / 5], "METEOR": [0.2]}
    assert rows["Seen"]["BLEU"] == pytest.approx(100)
    assert rows["All"]["BLEU"] < 99


def test_scores_in_percent_and_taken_back():
    assert percent({"values": {"f1": 0.5}}, "f1") == 50  # of before there was ``full``
    assert percent({"values": {"f1": 50.0}, "full": {"f1": 100}}, "f1") == 50
    assert percent({"values": {"f1": None}}, "f1") is percent({"values": {}}, "f1") is None
    scores = Scores({"a": 1.0, "b": 2.0}, segments={"a": [1.0, 2.0, 3.0]}, note="said before")
    scores.undefine("unread", [0, 2])
    assert scores.values == {"a": None, "b": None}
    assert (scores.segments, scores.note) == ({"a": [None, 2.0, None]}, "said before; unread")


def test_bootstrap_draws_from_its_seed(tmp_path, capsys):
    rng = np.random.default_rng(0)
    refs, hyps = (
        [" ".join(rng.choice([*"abcdefgh"], rng.integers(3, 14))) for _ in range(40)]
        for _ in range(2)
    )
    first, second = (summarization.score(refs, hyps, bootstrap_seed=s).values for s in (1, 2))
    assert first != second
    (tmp_path / "r").write_text("\n".join(refs) + "\n")
    (tmp_path / "h").write_text("\n".join(hyps) + "\n")
    summarization.main([str(tmp_path / "r"), str(tmp_path / "h"), "--bootstrap", "2"])
    assert f"{second['ROUGE-1']:.4f}" in capsys.readouterr().out


def test_f_and_not_recall_or_precision():
    assert summarization.score(["a b c d"], ["a"])["ROUGE-1"] == pytest.approx(40)
    assert summarization.score(["a"], ["a b c d"])["ROUGE-1"] == pytest.approx(40)


def test_bleu_of_webnlg_ignores_case_that_transliteration_brings(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java
    assert webnlg.normalize_reference("℡ 5 is here") == "TEL 5 is here"
    assert webnlg.normalize_hypothesis("℡ 5 is here") == "tel 5 is here"
    rows = webnlg.score([["℡ 5 is here"]], ["℡ 5 is here"], ["Food"])
    assert rows["All"]["BLEU"] == pytest.approx(100)


def test_constant_predictions():
    scores = classification.score("cola", [0, 1, 1], [1, 1, 1])
    assert scores["matthews_correlation"] == 0
    assert scores.note == "matthews_correlation: 0 as labels or predictions are all the same"
    assert classification.score("cola", [1, 1], [0, 1]).note
    assert not classification.score("cola", [0, 1, 1], [0, 0, 1]).note
    for labels, predictions in (([2.0], [1.0]), ([1.0, 1.0], [1.0, 2.0])):
        scores = classification.score("stsb", labels, predictions)
        assert set(scores.values.values()) == {None}
        assert set(scores.missing) == {"pearson", "spearmanr", "combined_score"}
        assert "nan" not in format_table({"stsb": scores})
    # One metric says what the task is scored by; two also have a mean.
    assert "combined_score" not in classification.score("rte", [0, 1], [0, 1]).values


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(value):
    with pytest.raises(UserError, match="the predictions: 1 of 2 are not finite"):
        classification.score("stsb", [1.0, 2.0], [value, 1.0])
    with pytest.raises(UserError, match="the labels: 1 of 2 are not finite"):
        classification.score("stsb", [1.0, value], [2.0, 1.0])


def test_macro_f1_weighs_classes_alike():
    # Class 0: 2 of 3 right; class 1, once, wrong. Weighted by size it would be 0.5.
    assert classification.macro_f1([0, 0, 0, 1], [0, 0, 1, 0]) == pytest.approx((2 / 3 + 0) / 2)


def test_lines(tmp_path):
    path = tmp_path / "a.txt"
    for text, lines in (
        ("a\n\n", ["a", ""]),
        ("a\n\nb", ["a", "", "b"]),
        ("\ufeff a \r\nb\u2028c\r\n", ["a", "b\u2028c"]),
    ):
        path.write_bytes(text.encode())
        assert files.read_lines(path) == lines
    (tmp_path / "a.csv").write_text("\ufeff MR ,Ref\na,b\n", "utf-8")
    assert files.read_table(tmp_path / "a.csv") == (["mr", "ref"], [["a", "b"]])
