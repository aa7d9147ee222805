"""Files of questions and answers: what is wrong is named, with its place."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evaluation import checks, qa, qa_files
from prefix_tuning.errors import UserError

CONTEXT = "A cat sat in Rome."


def question(id="q1", **changes):
    answer = {"text": "cat", "answer_start": 2} | changes
    return {"id": id, "answers": [answer]}


def squad(*questions, context=CONTEXT):
    return {"data": [{"paragraphs": [{"context": context, "qas": list(questions)}]}]}


def save(tmp_path, value, name="file.json"):
    (tmp_path / name).write_text(json.dumps(value), "utf-8")
    return tmp_path / name


def test_answers_that_stand_where_they_should(tmp_path):
    end = question("q2", text="Rome.", answer_start=len(CONTEXT) - 5)
    path = save(tmp_path, squad(question(), end))
    assert qa.read_squad(path) == {"q1": ["cat"], "q2": ["Rome."]}
    path = save(tmp_path, squad({"id": 7, "answers": []}))
    assert qa.read_squad(path) == {"7": []}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (squad(question(), question()), "two questions have the id q1"),
        (squad(question(7), question("7")), "two questions have the id 7"),
        (squad(question(None)), "the id of a question is neither text nor number: None"),
        (squad(question(True)), "the id of a question is neither text nor number: True"),
        (squad(question("")), "the id of a question is neither text nor number: ''"),
        (squad(question(["a"])), "the id of a question is neither text nor number: "),
        (squad(question(text=None)), "question q1: an answer is not a text, or empty: None"),
        (squad(question(text=["cat"])), "question q1: an answer is not a text, or empty: "),
        (squad(question(text=" ")), "question q1: an answer is not a text, or empty: ' '"),
        (squad(question(answer_start=3)), "at answer_start 3 stands 'at ' and not 'cat'"),
        (squad(question(answer_start=-1)), "answer_start -1 is outside the paragraph"),
        (squad(question(answer_start=16)), "answer_start 16 is outside the paragraph"),
        (squad(question(answer_start=2.0)), "the start 2.0 of a span is not a whole number"),
        (squad(question(answer_start="2")), "the start '2' of a span is not a whole number"),
        (squad(question(answer_start=True)), "the start True of a span is not a whole number"),
        (squad(question(answer_start=float("inf"))), "the start inf of a span is not"),
        (squad("q1"), "is not a SQuAD file"),
        ({"data": [{"paragraphs": [["qas"]]}]}, "is not a SQuAD file"),
        ([], "is not a SQuAD file"),
    ],
)
def test_squad_files_that_are_refused(tmp_path, document, message):
    path = save(tmp_path, document)
    with pytest.raises(UserError, match=rf"file\.json.*{message}"):
        qa.read_squad(path)


def test_a_question_that_comes_twice_in_record(tmp_path):
    row = {"qas": [{"idx": 7, "answers": [{"text": "Rome"}]}]}
    (tmp_path / "r.jsonl").write_text(f"{json.dumps(row)}\n\n{json.dumps(row)}\n")
    with pytest.raises(UserError, match=r"r\.jsonl, line 3: two questions have the id 7"):
        qa.read_record(tmp_path / "r.jsonl")
    row["qas"][0]["answers"] = [{"text": 5}]
    with pytest.raises(UserError, match="line 1: an answer is not a text, or empty: 5"):
        qa.read_record(save(tmp_path, row))


@pytest.mark.parametrize(
    ("label", "rows", "message"),
    [
        (2, 1, r"line 1: the labels \[2\] are not 0 or 1"),
        ("1", 1, r"line 1: the labels \['1'\] are not 0 or 1"),
        (None, 1, "line 1: the labels"),
        (1, 2, "line 2: two questions have the id 3, 0"),
    ],
)
def test_multirc_files_that_are_refused(tmp_path, label, rows, message):
    answers = [{"idx": 0, "answers": [{"label": label}]}]
    row = json.dumps({"idx": 3, "passage": {"questions": answers}})
    (tmp_path / "m.jsonl").write_text(f"{row}\n" * rows)
    with pytest.raises(UserError, match=message):
        qa.read_multirc(tmp_path / "m.jsonl")


def test_two_predictions_for_one_question(tmp_path):
    (tmp_path / "out.json").write_text('{"q1": "cat", "q2": "a", "q2": "b"}')
    with pytest.raises(UserError, match=r"out\.json: 'q2' comes twice"):
        qa.read_predictions(tmp_path / "out.json")


@pytest.mark.parametrize("scorer", [qa.squad, qa.squad_v2, qa.record])
@pytest.mark.parametrize("answer", [None, 3, ["cat"]])
def test_a_prediction_that_is_no_text(scorer, answer):
    with pytest.raises(UserError, match="the answer to question q1 is not a text"):
        scorer({"q1": ["cat"]}, {"q1": answer})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_choose_nothing(value):
    with pytest.raises(UserError, match="the logits of ReCoRD's entities: 1 of 2 are not finite"):
        qa.best_entities(["q", "q"], ["a", "b"], [0.0, value])
    logits = np.array([[0.0, 1.0], [value, value]], dtype=np.float32)
    with pytest.raises(UserError, match="the logits of x: 2 of 4 are not finite"):
        checks.check_finite(logits, "the logits of x")
    checks.check_finite(logits[:1], "the logits of x")


def test_spans():
    qa_files.check_span("abc", 0, 3, "here")
    for start, length in ((0, 4), (3, 1), (-1, 1), (1, 0), (1, -1)):
        with pytest.raises(UserError, match=f"here: answer_start {start} is outside"):
            qa_files.check_span("abc", start, length, "here")
