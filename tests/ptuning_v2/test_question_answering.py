"""SQuAD: files, windows, positions of answers, from logits to answers, metrics."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from evaluation import qa
from prefix_tuning.errors import UserError
from ptuning_v2.tasks.qa import dataset
from ptuning_v2.tasks.qa.dataset import SQuAD, answer_tokens, read_squad
from ptuning_v2.tasks.qa.utils_qa import (
    Answers,
    Question,
    Window,
    postprocess_qa_predictions,
    rank,
)

CONTEXT = "a cat sat on the mat because it was a dog"


def _squad(*questions, context=CONTEXT):
    qas = [
        {"id": f"q{i}", "question": text, "answers": answers, **more}
        for i, (text, answers, more) in enumerate(questions)
    ]
    return {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": qas}]}]}


def _answer(text, context=CONTEXT):
    return {"text": text, "answer_start": context.index(text)}


# Files


def test_files_of_both_versions(write):
    content = _squad(
        ("  who sat?", [_answer("a cat"), _answer("cat")], {}),
        ("who flew?", [], {"is_impossible": True, "plausible_answers": [_answer("cat")]}),
    )
    first, second = read_squad(write("dev-v2.0.json", content), unanswerable=True)
    assert first == Question("q0", "who sat?", CONTEXT, ("a cat", "cat"), (0, 2))
    assert (second.answers, second.starts) == ((), ())
    with pytest.raises(UserError, match=r"dev-v1\.1\.json, question q1 has no answer.*squad_v2"):
        read_squad(write("dev-v1.1.json", content), unanswerable=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"version": "1.1"}, "not as in SQuAD's files"),
        (_squad(("who?", [{"text": "dog"}], {})), "question q0.*answer_start"),
        (_squad(("who?", [{"text": "dog", "answer_start": 39}], {})), "answer_start 39 is outside"),
        ({"data": []}, "has no questions"),
        ("{", "not JSON"),
    ],
)
def test_malformed_files(write, content, message):
    with pytest.raises(UserError, match=r"dev\.json.*" + message):
        read_squad(write("dev.json", content), unanswerable=False)


def test_records_of_the_hub(parse, bert_tokenizer, monkeypatch):
    answers = {"text": ["cat"], "answer_start": [2]}
    record = {"id": "q", "question": " who sat?", "context": CONTEXT, "answers": answers}

    def load_dataset(repository, configuration, split):
        assert (repository, configuration, split) == ("rajpurkar/squad", None, "validation")
        return Dataset.from_list([record])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    _, data, run, qa_args = parse("qa", "squad")
    data.data_dir = None
    (question,) = SQuAD(bert_tokenizer, data, run, qa_args).load().eval_dataset.questions
    assert question == Question("q", "who sat?", CONTEXT, ("cat",), (2,))


# Windows


def _data(parse, write, tokenizer, content, *flags, name="squad", **values):
    version = "v2.0" if name == "squad_v2" else "v1.1"
    for split in ("train", "dev"):
        write(f"{name}/{split}-{version}.json", content)
    return SQuAD(tokenizer, *parse("qa", name, *flags, **values)[1:]).load()


def test_windows_by_hand(parse, write, bert_tokenizer):
    content = _squad(("who?", [_answer("dog")], {}))
    flags = ("do_train", "do_eval")
    data = _data(parse, write, bert_tokenizer, content, *flags, max_seq_length=12)
    # 12 - 3 special tokens - who ? = 7 tokens of the context, 12 // 3 = 4 of them shared.
    windows = [
        bert_tokenizer.convert_ids_to_tokens(f["input_ids"]) for f in data.train_dataset.features
    ]
    question = ["[CLS]", "who", "?", "[SEP]"]
    assert windows == [
        [*question, *"a cat sat on the mat because".split(), "[SEP]"],
        [*question, *"on the mat because".split(), "i", "##t", "was", "[SEP]"],
        [*question, *"because i ##t was a dog".split(), "[SEP]"],
    ]
    positions = [(f["start_positions"], f["end_positions"]) for f in data.train_dataset.features]
    assert positions == [(0, 0), (0, 0), (9, 9)]
    assert [f["input_ids"].tolist() for f in data.eval_dataset.features] == [
        f["input_ids"].tolist() for f in data.train_dataset.features
    ]
    first = data.eval_dataset.rows[0].offsets
    assert first[:5].tolist() == [[-1, -1]] * 4 + [[0, 1]]
    assert first[10].tolist() == [21, 28]
    batch = data.data_collator(data.train_dataset.features)
    assert batch["input_ids"].shape == (3, 12)
    assert batch["start_positions"].tolist() == [0, 0, 9]
    assert "start_positions" not in data.eval_dataset[0]


def test_lengths(parse, write, bert_tokenizer):
    content = _squad(("who?", [_answer("cat")], {}))
    data = _data(parse, write, bert_tokenizer, content)
    assert (data.max_seq_length, data.stride) == (384, 128)
    assert data.data_collator(data.eval_dataset.features)["input_ids"].shape == (1, 384)
    # Two tokens of question, three special ones, two shared with the window before, and a new one.
    assert len(_data(parse, write, bert_tokenizer, content, max_seq_length=8).eval_dataset) > 3
    with pytest.raises(UserError, match="question q0 has 2 tokens, --max_seq_length 7 has room"):
        _data(parse, write, bert_tokenizer, content, max_seq_length=7)


def test_samples_are_questions_in_evaluation_and_windows_in_training(parse, write, bert_tokenizer):
    content = _squad(*(("who?", [_answer("cat")], {}) for _ in range(3)))
    flags, limits = ("do_train", "do_eval"), {"max_eval_samples": 2, "max_train_samples": 2}
    data = _data(parse, write, bert_tokenizer, content, *flags, max_seq_length=12, **limits)
    assert [window.question for window in data.eval_dataset.rows] == [0, 0, 0, 1, 1, 1]
    assert [question.id for question in data.eval_dataset.questions] == ["q0", "q1"]
    assert len(data.train_dataset) == 2


_CHARACTERS = st.text("ab cdé.\u2028", min_size=1, max_size=60).filter(str.strip)


@given(context=_CHARACTERS, data=st.data())
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_positions_cover_the_answer(request, kind, context, data):
    tokenizer = request.getfixturevalue(f"{kind}_tokenizer")
    encoded = tokenizer("who", context, return_offsets_mapping=True)
    inside = np.array([part == 1 for part in encoded.sequence_ids()])
    offsets = np.where(inside[:, None], np.array(encoded["offset_mapping"]), -1)
    spans = [tuple(span) for span in offsets.tolist() if span[0] >= 0]
    if not spans:
        return
    i = data.draw(st.integers(0, len(spans) - 1))
    j = data.draw(st.integers(i, len(spans) - 1))
    begin, end = spans[i][0], spans[j][1]
    question = Question("q", "who", context, (context[begin:end],), (begin,))
    first, last = answer_tokens(question, offsets)
    assert offsets[first][0] == begin
    assert offsets[last][1] == end


def test_positions_of_an_answer_that_is_not_there():
    offsets = np.array([[-1, -1], [0, 3], [4, 7], [-1, -1]])
    for answers, starts in (((), ()), (("dog",), (8,)), (("cat dog sat",), (0,))):
        assert answer_tokens(Question("q", "", "cat dog sat", answers, starts), offsets) == (0, 0)
    # Part of a token: the tokens around it. The last token of a window is a start as any other.
    assert answer_tokens(Question("q", "", "", ("at d",), (1,)), offsets) == (1, 2)
    assert answer_tokens(Question("q", "", "", ("dog",), (4,)), offsets) == (2, 2)


# From logits to answers


def _post(questions, windows, starts, ends, unanswerable=False, **options):
    return postprocess_qa_predictions(
        questions, windows, np.array(starts), np.array(ends), unanswerable=unanswerable, **options
    )


QUESTION = Question("q", "who?", "cat dog sat", ("dog",), (4,))
OFFSETS = np.array([[-1, -1], [0, 3], [4, 7], [8, 11], [-1, -1]])


def test_answer_by_hand():
    starts, ends = [[0.0, 1.0, 3.0, 0.0, 9.0, 9.0]], [[0.0, 5.0, 1.0, 2.0, 9.0, 9.0]]
    # The last two positions are outside the context, and cat (1 + 5) ends before dog (3) begins.
    found = _post([QUESTION], [Window(0, OFFSETS)], starts, ends)
    assert found.texts == {"q": "cat"}
    texts = [candidate["text"] for candidate in found.nbest["q"]]
    assert texts == ["cat", "dog sat", "dog", "cat dog sat", "cat dog", "sat"]
    scores = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 2.0])
    probabilities = [candidate["probability"] for candidate in found.nbest["q"]]
    assert probabilities == pytest.approx(np.exp(scores) / np.exp(scores).sum())
    assert found.null_odds == {}
    short = _post([QUESTION], [Window(0, OFFSETS)], starts, ends, max_answer_length=1)
    assert [c["text"] for c in short.nbest["q"]] == ["cat", "dog", "sat"]
    greedy = _post([QUESTION], [Window(0, OFFSETS)], starts, ends, n_best_size=4)
    # Of the four best starts and ends two each are inside: dog, cat and cat, sat.
    assert [c["text"] for c in greedy.nbest["q"]] == ["cat", "dog sat", "cat dog sat"]


def test_no_answer_by_hand():
    windows = [Window(0, OFFSETS), Window(0, OFFSETS)]
    starts = [[2.0, 0.0, 3.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]]
    ends = [[2.0, 0.0, 1.5, 0.0, 0.0], [3.5, 0.0, 0.0, 0.0, 0.0]]
    # dog 4.5; no answer 4 in the first window, 4.5 in the second: the least counts.
    found = _post([QUESTION], windows, starts, ends, unanswerable=True)
    assert found.texts == {"q": "dog"}
    assert found.null_odds == {"q": -0.5}
    stricter = {"null_score_diff_threshold": -1.0}
    assert _post([QUESTION], windows, starts, ends, True, **stricter).texts == {"q": ""}
    starts[0][0] = 3.0  # no answer: 4.5 now, as good as dog: not better by more than 0
    assert _post([QUESTION], windows, starts, ends, True).texts == {"q": "dog"}
    starts[0][0] = starts[1][0] = 4.0
    assert _post([QUESTION], windows, starts, ends, True).texts == {"q": ""}


def test_flags_of_answers_reach_their_choice(parse, write, bert_tokenizer, monkeypatch):
    seen = {}

    def choose(*_, **options):
        seen.update(options)
        return Answers()

    monkeypatch.setattr(dataset, "postprocess_qa_predictions", choose)
    flags = {"n_best_size": 3, "max_answer_length": 4, "null_score_diff_threshold": 0.5}
    content = _squad(("who?", [_answer("cat")], {}))
    data = _data(parse, write, bert_tokenizer, content, **flags)
    data.predict(data.eval_dataset, (np.zeros((1, 9)), np.zeros((1, 9))))
    assert seen == {**flags, "unanswerable": False}


def test_nothing_to_choose_from():
    outside = np.full((5, 2), -1)
    window, logits = [Window(0, outside)], [[1.0, 0.0, 0.0, 0.0, 0.0]]
    found = _post([QUESTION], window, logits, logits)
    assert found.texts == {"q": "empty"}
    found = _post([QUESTION], window, logits, logits, unanswerable=True)
    assert (found.texts, found.null_odds) == ({"q": ""}, {"q": 2.0})


def test_no_answer_is_kept_whatever_its_score():
    spans = [(0, 3, float(i), 0.0) for i in range(5)]
    null = (0, 0, -9.0, -9.0)
    assert rank(spans, null, 2) == [spans[4], spans[3], null]
    assert rank(spans, None, 2) == [spans[4], spans[3]]
    assert rank(spans, (0, 0, 9.0, 9.0), 2) == [(0, 0, 9.0, 9.0), spans[4]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_best_of_all_spans(seed, length):
    random = np.random.default_rng(seed)
    context = "abcdefghij"
    windows = [
        Window(0, np.array([[-1, -1], *([i, i + 1] for i in range(first, first + 6)), [-1, -1]]))
        for first in (0, 4)
    ]
    starts, ends = random.normal(size=(2, 2, 8))
    question = Question("q", "", context, ("a",), (0,))
    found = _post([question], windows, starts, ends, max_answer_length=length)
    best = max(
        (starts[w, s] + ends[w, e], context[window.offsets[s, 0] : window.offsets[e, 1]])
        for w, window in enumerate(windows)
        for s in range(1, 7)
        for e in range(s, min(s + length, 7))
    )
    assert found.texts == {"q": best[1]}


# Runs


@pytest.mark.parametrize("name", ["squad", "squad_v2"])
def test_right_logits_give_full_marks(parse, write, bert_tokenizer, tmp_path, name):
    questions = [(f"who {w}?", [_answer(w)], {}) for w in ("dog", "cat", "the mat")]
    if name == "squad_v2":
        questions.append(("who flew?", [], {"is_impossible": True}))
    flags = ("do_train", "do_eval", "do_predict")
    content = _squad(*questions)
    data = _data(parse, write, bert_tokenizer, content, *flags, name=name, max_seq_length=18)
    assert (data.num_labels, data.test_key, data.task_type) == (2, "f1", "qa")
    logits = np.zeros((2, len(data.train_dataset), 18))
    for number, feature in enumerate(data.train_dataset.features):
        inside = feature["start_positions"] > 0
        # Where the window has the answer it is sure, and where not less sure of none.
        logits[0, number, feature["start_positions"]] = 8.0 if inside else 3.0
        logits[1, number, feature["end_positions"]] = 8.0 if inside else 3.0
    answers = data.predict(data.eval_dataset, tuple(logits))
    expected = {"q0": "dog", "q1": "cat", "q2": "the mat"}
    if name == "squad_v2":
        expected["q3"] = ""
    assert answers.texts == expected
    scores = data.score(data.eval_dataset, answers)
    assert scores["f1"] == scores["exact" if name == "squad_v2" else "exact_match"] == 100.0
    path = data.write_predictions(tmp_path / "out", "validation", tuple(logits))
    assert json.loads(path.read_text(encoding="utf-8")) == expected
    names = {file.name for file in (tmp_path / "out").iterdir()}
    v1 = {"validation_predictions.json", "validation_nbest_predictions.json"}
    assert names == v1 | ({"validation_null_odds.json"} if name == "squad_v2" else set())
    version = "2.0" if name == "squad_v2" else "1.1"
    official = qa.read_squad(tmp_path / name / f"dev-v{version}.json")
    assert getattr(qa, name)(official, qa.read_predictions(path)).values == scores


# Real files


def test_xquad(shared, roberta_tokenizer):
    path = shared / "data" / "squad" / "xquad.en.json"
    questions = read_squad(path, unanswerable=False)
    assert len(questions) == 1190
    for question in questions:
        (text,), (start,) = question.answers, question.starts
        assert question.context[start:].startswith(text)
    assert {q.id: list(q.answers) for q in questions} == qa.read_squad(path)


def test_windows_of_real_paragraphs(shared, parse, write, bert_tokenizer):
    path = shared / "data" / "squad" / "xquad.en.json"
    write("squad/dev-v1.1.json", path.read_text(encoding="utf-8"))
    arguments = parse("qa", "squad", max_eval_samples=40)[1:]
    data = SQuAD(bert_tokenizer, *arguments).load()
    covered = {number: set() for number in range(40)}
    for feature, window in zip(data.eval_dataset.features, data.eval_dataset.rows, strict=True):
        assert len(feature["input_ids"]) == len(window.offsets) <= 384
        covered[window.question] |= {tuple(span) for span in window.offsets.tolist()}
    for number, question in enumerate(data.eval_dataset.questions):
        encoded = bert_tokenizer(
            question.context, add_special_tokens=False, return_offsets_mapping=True
        )
        assert covered[number] - {(-1, -1)} == {tuple(s) for s in encoded["offset_mapping"]}


def test_files_of_both_versions_in_the_wild(shared):
    folder = shared / "data" / "squad"
    assert len(read_squad(folder / "allennlp_squad.json", unanswerable=False)) == 5
    assert len(read_squad(folder / "allennlp_squad2.json", unanswerable=True)) == 6


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"text": "cat", "answer_start": 0}, "at answer_start 0 stands 'a c' and not 'cat'"),
        ({"text": "cat", "answer_start": 2.0}, "not a whole number"),
        ({"text": "cat", "answer_start": "2"}, "not a whole number"),
        ({"text": "cat", "answer_start": True}, "not a whole number"),
        ({"text": "cat", "answer_start": float("inf")}, "not a whole number"),
        ({"text": "cat", "answer_start": -1}, "answer_start -1 is outside"),
        ({"text": "", "answer_start": 2}, "not a text, or empty"),
        ({"text": None, "answer_start": 2}, "not a text, or empty"),
        ({"text": ["cat"], "answer_start": 2}, "not a text, or empty"),
    ],
)
def test_answers_stand_where_they_should(write, answer, message):
    content = _squad(("who sat?", [_answer("cat")], {}), ("who?", [answer], {}))
    with pytest.raises(UserError, match=r"dev\.json, question q1: .*" + message):
        read_squad(write("dev.json", content), unanswerable=True)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("id", None), ("id", ["q"]), ("id", True), ("id", ""), ("id", {"a": 1}),
        ("question", None), ("question", ["who"]), ("question", 5), ("answers", "cat"),
        ("answers", None), ("answers", {"text": "cat"}), ("is_impossible", "false"),
        ("context", None), ("context", ["a"]), ("context", {}),
    ],
)  # fmt: skip
def test_fields_of_wrong_types(write, place, value):
    content = _squad(("who sat?", [_answer("cat")], {}))
    paragraph = content["data"][0]["paragraphs"][0]
    (paragraph if place == "context" else paragraph["qas"][0])[place] = value
    with pytest.raises(UserError, match=r"dev\.json, .*question"):
        read_squad(write("dev.json", content), unanswerable=True)


def test_an_id_comes_once(write, parse, bert_tokenizer):
    content = _squad(("who sat?", [_answer("cat")], {}), ("who?", [_answer("cat")], {}))
    for qas in content["data"][0]["paragraphs"][0]["qas"]:
        qas["id"] = "same"
    write("dev-v1.1.json", content)
    data = SQuAD(bert_tokenizer, *parse("qa", "squad")[1:])
    with pytest.raises(UserError, match=r"dev-v1\.1\.json: two questions have the id same"):
        data.read("validation")


def test_logits_that_are_not_finite_answer_nothing(write, parse, bert_tokenizer):
    write("dev-v1.1.json", _squad(("who sat?", [_answer("cat")], {})))
    data = SQuAD(bert_tokenizer, *parse("qa", "squad")[1:])
    examples = data.encode(data.read("validation"))
    logits = np.zeros((len(examples), data.max_seq_length), dtype=np.float32)
    assert data.predict(examples, (logits, logits)).texts
    bad = logits.copy()
    bad[0, 3] = np.nan
    for pair in ((bad, logits), (logits, bad)):
        with pytest.raises(UserError, match="not finite numbers, which predict nothing"):
            data.predict(examples, pair)
