"""GLUE, SuperGLUE, SQuAD, ReCoRD, MultiRC and chunk F1 against official numbers and by hand."""

from __future__ import annotations

import json
import math

import pytest
from conftest import official_files
from hypothesis import given
from hypothesis import strategies as st

from evaluation import classification, qa, tagging
from prefix_tuning.errors import UserError


@pytest.fixture(params=official_files("classification_qa_ner"))
def official(vectors, request):
    return vectors(request.param)


# Classification


def test_official_classification(official):
    binary = official["binary"]
    scores = classification.score("mrpc", binary["labels"], binary["preds"])
    assert scores["accuracy"] == pytest.approx(binary["accuracy"], abs=1e-12)
    assert scores["f1"] == pytest.approx(binary["f1_binary"], abs=1e-12)
    scores = classification.score("cola", binary["labels"], binary["preds"])
    assert scores["matthews_correlation"] == pytest.approx(binary["matthews"], abs=1e-12)
    cb = official["cb_3class"]
    scores = classification.score("cb", cb["labels"], cb["preds"])
    expected = {name: cb[name] for name in ("accuracy", "f1")}
    expected["combined_score"] = cb["ptuningv2_combined_score"]
    assert scores.values == pytest.approx(expected, abs=1e-12)
    stsb = official["stsb_regression"]
    scores = classification.score("stsb", stsb["labels"], stsb["preds"])
    assert scores["pearson"] == pytest.approx(stsb["pearson"], abs=1e-12)
    assert scores["spearmanr"] == pytest.approx(stsb["spearmanr"], abs=1e-12)


def test_classification_by_hand():
    labels, predictions = [1, 1, 1, 0, 0], [1, 1, 0, 0, 1]  # 2 true positives, 1 of each error
    assert classification.accuracy(labels, predictions) == pytest.approx(3 / 5)
    assert classification.f1(labels, predictions) == pytest.approx(2 / 3)
    assert classification.macro_f1(labels, predictions) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert classification.matthews_correlation(labels, predictions) == pytest.approx(1 / 6)
    assert classification.pearson([1, 2, 3], [1, 2, 5]) == pytest.approx(4 / math.sqrt(2 * 26 / 3))
    assert classification.spearman([1, 2, 3], [1, 2, 50]) == pytest.approx(1)


@given(st.lists(st.integers(0, 2), min_size=2, max_size=20), st.randoms(use_true_random=False))
def test_classification_ignores_order_and_rewards_equality(labels, random):
    assert classification.score("cb", labels, labels)["combined_score"] == pytest.approx(1)
    pairs = [(label, random.randint(0, 2)) for label in labels]
    shuffled = random.sample(pairs, len(pairs))
    first, second = (
        classification.score("cb", *zip(*p, strict=True)).values for p in (pairs, shuffled)
    )
    assert first == pytest.approx(second)


def test_correlation_of_constant_predictions_is_missing():
    scores = classification.score("stsb", [1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    assert scores["pearson"] is None
    assert "all the same" in scores.missing["combined_score"]


def test_classification_errors(tmp_path):
    with pytest.raises(UserError, match="unknown task 'cbb'"):
        classification.score("cbb", [1], [1])
    with pytest.raises(UserError, match="references have 2 labels, the hypotheses 1"):
        classification.score("cb", [1, 0], [1])
    (tmp_path / "labels.txt").write_text("1\nyes\n")
    with pytest.raises(UserError, match=r"labels\.txt, line 2: 'yes' is not a class number"):
        classification.read_labels(tmp_path / "labels.txt")
    (tmp_path / "scores.txt").write_text("2.5\nnan\n")
    with pytest.raises(UserError, match=r"scores\.txt, line 2: 'nan' is not a number"):
        classification.read_labels(tmp_path / "scores.txt", float)
    for labels in ([0, 1], [2, 2]):  # scikit-learn has another exception for each
        with pytest.raises(UserError, match="classes have to be 0 or 1, found 2"):
            classification.score("mrpc", labels, [2, 2])


# Questions


def test_official_question_answering(official):
    for name, scorer in (("squad_v1", qa.squad), ("squad_v2", qa.squad_v2), ("record", qa.record)):
        items = official[name]["items"]
        answers = {item["id"]: item["answers"] for item in items}
        predictions = {item["id"]: item["prediction"] for item in items}
        expected = {key: value for key, value in official[name].items() if key != "items"}
        assert scorer(answers, predictions).values == pytest.approx(expected, abs=1e-9)


def test_official_multirc(official):
    file = official["multirc"]
    questions = [(p["idx"]["paragraph"], p["idx"]["question"]) for p in file["preds"]]
    scores = qa.multirc(questions, file["labels"], [p["prediction"] for p in file["preds"]])
    expected = {name: file[name] for name in ("exact_match", "f1_m", "f1_a")}
    assert scores.values == pytest.approx(expected, abs=1e-12)


def test_answers_by_hand():
    assert qa.normalize("The  U.S.-based  a cat, an “Ape”") == "usbased cat “ape”"
    assert qa.exact_match("the Cat!", "cat") == 1
    assert qa.token_f1("a big big dog", "big dog house") == pytest.approx(2 / 3)
    assert qa.token_f1("the", "a") == 0
    answers = {"1": ["big dog house", "cat"], "2": ["no"]}
    scores = qa.squad(answers, {"1": "a big big dog", "2": "No."})
    assert scores.values == pytest.approx({"exact_match": 50, "f1": 100 * (2 / 3 + 1) / 2})


def test_squad_v2_by_hand():
    answers = {"1": ["cat"], "2": [], "3": []}
    scores = qa.squad_v2(answers, {"1": "a cat sat", "2": "", "3": "cat"})
    assert scores["exact"] == pytest.approx(100 / 3)
    assert scores["HasAns_f1"] == pytest.approx(100 * 2 / 3)
    assert (scores["NoAns_exact"], scores["NoAns_total"]) == (50, 2)
    assert "NoAns_f1" not in qa.squad_v2({"1": ["cat"]}, {"1": "cat"}).values
    # An answer of which normalising leaves nothing counts only where there is no other.
    assert qa.squad_v2({"1": ["the", "cat"]}, {"1": ""})["exact"] == 0
    assert qa.squad_v2({"1": ["the"]}, {"1": ""})["exact"] == 100


def test_best_entities():
    rows = [("q1", "Bonn", 0.5), ("q2", "Rome", -1.0), ("q1", "Köln", 0.5), ("q1", "Ulm", 0.1)]
    queries, entities, logits = zip(*rows, strict=True)
    assert qa.best_entities(queries, entities, logits) == {"q1": "Köln", "q2": "Rome"}


def test_multirc_by_hand():
    scores = qa.multirc(["a", "a", "b", "b"], [1, 0, 1, 1], [1, 0, 1, 0])
    assert scores.values == pytest.approx(
        {"exact_match": 0.5, "f1_m": (1 + 1 / 3) / 2, "f1_a": 0.8}
    )


@given(st.dictionaries(st.text("abc", min_size=1), st.lists(st.text("xy z"), min_size=1)))
def test_an_accepted_answer_is_perfect_in_any_order(answers):
    predictions = {question: texts[-1] for question, texts in answers.items()}
    if not answers:
        with pytest.raises(UserError, match="no questions"):
            qa.squad(answers, predictions)
        return
    assert qa.squad(answers, predictions)["exact_match"] == pytest.approx(100)
    backwards = {question: texts[::-1] for question, texts in reversed(answers.items())}
    for scorer in (qa.squad, qa.squad_v2, qa.record):
        first, second = scorer(answers, predictions), scorer(backwards, predictions)
        assert first.values == pytest.approx(second.values)


def test_question_files(tmp_path):
    squad = {"data": [{"paragraphs": [{"qas": [{"id": "1", "answers": [{"text": "cat"}]}]}]}]}
    (tmp_path / "squad.json").write_text(json.dumps(squad))
    assert qa.read_squad(tmp_path / "squad.json") == {"1": ["cat"]}
    record = {"qas": [{"idx": 7, "answers": [{"text": "Rome"}]}]}
    (tmp_path / "record.jsonl").write_text(json.dumps(record) + "\n")
    assert qa.read_record(tmp_path / "record.jsonl") == {"7": ["Rome"]}
    questions = [{"idx": 0, "answers": [{"label": 1}, {"label": 0}]}]
    (tmp_path / "multirc.jsonl").write_text(
        json.dumps({"idx": 3, "passage": {"questions": questions}}) + "\n"
    )
    assert qa.read_multirc(tmp_path / "multirc.jsonl") == ([(3, 0), (3, 0)], [1, 0])
    for reader in (qa.read_record, qa.read_multirc):
        with pytest.raises(UserError, match=r"squad\.json is not a "):
            reader(tmp_path / "squad.json")


def test_real_question_files(data):
    questions, labels = qa.read_multirc(data / "superglue/MultiRC/val.jsonl")
    assert len(set(questions)) == 953
    assert qa.multirc(questions, labels, labels)["f1_a"] == 1
    answers = qa.read_squad(data / "squad/xquad.en.json")
    assert qa.squad(answers, {q: texts[0] for q, texts in answers.items()})["f1"] == 100
    record = qa.read_record(data / "superglue/ReCoRD/dev32.jsonl")
    assert qa.record(record, {q: texts[0] for q, texts in record.items()})["exact_match"] == 1


def test_question_errors():
    with pytest.raises(UserError, match="1 of 2 questions have no prediction, first q2"):
        qa.squad({"q1": ["a"], "q2": ["b"]}, {"q1": "a"})
    with pytest.raises(UserError, match="question q1 has no answer"):
        qa.squad({"q1": []}, {"q1": "a"})
    with pytest.raises(UserError, match="references have 1 candidate answers, the hypotheses 2"):
        qa.multirc(["q"], [1], [1, 0])
    with pytest.raises(UserError, match="classes have to be 0 or 1, found -1"):
        qa.multirc(["q", "q"], [1, 0], [1, -1])


@pytest.mark.parametrize("answer", [None, 3, ["cat"]])
def test_an_answer_that_is_no_text(tmp_path, answer):
    (tmp_path / "out.json").write_text(json.dumps({"q1": "cat", "q2": answer}))
    with pytest.raises(UserError, match=r"out\.json: the answer to question q2 is not a text"):
        qa.read_predictions(tmp_path / "out.json")


# Tags


def test_official_chunks(official):
    ner = official["ner"]
    rows = tagging.score(ner["labels"], ner["preds"])
    assert rows["overall"].values == pytest.approx(ner["seqeval"], abs=1e-12)
    for line in ner["conlleval_perl_output"][2:]:  # "LOC: precision:  54.17%; recall: ..."
        name, *numbers = line.replace("%", "").replace(";", "").split()
        expected = [float(numbers[i]) / 100 for i in (1, 3, 5)]
        values = rows[name.rstrip(":")].values
        assert list(values.values()) == pytest.approx(expected, abs=5.1e-5)


def test_chunks_by_hand():
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["I-LOC", "I-LOC", "O"]]
    tags = [["B-PER", "O", "O", "B-LOC"], ["B-LOC", "I-LOC", "B-PER"]]
    rows = tagging.score(gold, tags)
    overall = {"precision": 2 / 4, "recall": 2 / 3, "f1": 4 / 7, "accuracy": 4 / 7}
    assert rows["overall"].values == pytest.approx(overall)
    assert rows["LOC"]["f1"] == 1
    assert rows["PER"]["f1"] == 0


TAGS = st.lists(st.sampled_from(["O", "B-A", "I-A", "B-B"]), min_size=1, max_size=6)


@given(st.lists(TAGS, min_size=1, max_size=5))
def test_equal_tags_are_perfect_in_any_order(sentences):
    sentences.append(["B-A"])
    assert tagging.score(sentences, sentences)["overall"].values == pytest.approx(
        {"precision": 1, "recall": 1, "f1": 1, "accuracy": 1}
    )
    other = [["O"] * len(tags) for tags in sentences[:-1]] + [["B-A"]]
    first = tagging.score(sentences, other)["overall"].values
    assert first == tagging.score(sentences[::-1], other[::-1])["overall"].values


def test_tag_files(tmp_path):
    columns = "-DOCSTART- -X- O O\n\nAnn NNP B-NP B-PER\nran VBD B-VP O\n\n\nBonn NNP B-NP B-LOC\n"
    (tmp_path / "ner.txt").write_text(columns)
    assert tagging.read_tags(tmp_path / "ner.txt") == [["B-PER", "O"], ["B-LOC"]]
    (tmp_path / "srl.txt").write_text("1 Ann ran ||| B-A0 B-V\n0 Go ||| B-V\n")
    assert tagging.read_tags(tmp_path / "srl.txt") == [["B-A0", "B-V"], ["B-V"]]


def test_tags_of_other_words_are_not_scored(tmp_path):
    files = [tmp_path / name for name in ("gold.txt", "alone.txt", "same.txt", "other.txt")]
    texts = ["Ann NNP B-PER\nran VBD O\n", "B-PER\nO\n", "1 Ann ran ||| B-PER O\n"]
    texts.append("Ann B-PER\nsat O\n")
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    for file in files[:3]:
        tagging.main([str(files[0]), str(file)])
    with pytest.raises(UserError, match=r"gold.txt, line 2: the word is 'ran', but 'sat' at .*2:"):
        tagging.main([str(files[0]), str(files[3])])


def test_tag_errors():
    with pytest.raises(UserError, match="sentence 2 has 2 tags in the references and 1 in"):
        tagging.score([["O"], ["B-A", "O"]], [["O"], ["O"]])
    with pytest.raises(UserError, match="references have 2 sentences, the hypotheses 1"):
        tagging.score([["O"], ["B-A"]], [["O"]])
    with pytest.raises(UserError, match="no chunk to find"):
        tagging.score([["O"]], [["O"]])


def test_a_tag_outside_the_scheme_is_named_with_its_sentence():
    """Of the hypotheses, too, it is the number of the sentence and not of both lists."""
    good, bad = [["O"], ["B-X"]], [["O"], ["L-X"]]
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(UserError, match="sentence 2: tag 'L-X'; tags of BILOU are not scored"):
            tagging.score(*pair)
