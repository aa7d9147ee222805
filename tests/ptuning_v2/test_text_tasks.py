"""GLUE and SuperGLUE: files, wording, tokens, batches, metrics, submission files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics
from transformers.trainer_utils import EvalPrediction

from evaluation import qa
from prefix_tuning.errors import UserError
from ptuning_v2.tasks.base import Collator, draw, read_hub
from ptuning_v2.tasks.glue.dataset import GLUE_TASKS, GlueDataset, read_glue
from ptuning_v2.tasks.qa.dataset import SQuAD
from ptuning_v2.tasks.srl.dataset import SRLDataset
from ptuning_v2.tasks.superglue import dataset
from ptuning_v2.tasks.superglue.dataset import SuperGlueDataset
from ptuning_v2.tasks.superglue.records import compose, read_superglue
from ptuning_v2.tasks.text import TextRow, encode_texts

# Files


@pytest.mark.parametrize(
    ("name", "text", "first", "second", "label"),
    [
        ("cola", "gj04\t1\t\tThe cat sat.\n", "The cat sat.", None, 1),
        ("cola", "index\tsentence\n0\tA cat.\n", "A cat.", None, None),
        ("sst2", 'sentence\tlabel\n"good \t1\n', '"good ', None, 1),
        ("mrpc", "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\ta\tb\n", "a", "b", 0),
        ("rte", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n", "a", "b", 1),
        ("rte", "sentence1\tsentence2\tlabel\tidx\na\tb\t0\t7\n", "a", "b", 0),
        ("qqp", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n3\t4\t5\ta\tb\t1\n3\t4\n",
         "a", "b", 1),
        ("stsb", "index\tsentence1\tsentence2\tscore\n0\ta\tb\t3.8\n", "a", "b", 3.8),
        ("mnli", "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\ta\tb\tneutral\tentailment\n",
         "a", "b", 0),
    ],
)  # fmt: skip
def test_glue_files(write, name, text, first, second, label):
    (row,) = read_glue(name, write("file.tsv", text))
    assert (row.pairs, row.label, row.idx) == (((first, second),), label, 0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rte", "sentence1\tsentence2\tlabel\na\tb\n", r"line 2: 2 columns, expected 3"),
        ("rte", "sentence1\tsentence2\tlabel\na\tb\tmaybe\n", "line 2: label 'maybe' is none of"),
        ("rte", "premise\thypothesis\n", "no column 'sentence1'"),
        ("stsb", "sentence1\tsentence2\tscore\na\tb\thigh\n", "line 2: 'high' is not a score"),
        ("cola", "a sentence\t1\n", "line 1: 2 columns, expected 4"),
    ],
)
def test_malformed_glue_files(write, name, text, message):
    with pytest.raises(UserError, match=r"file\.tsv.*" + message):
        read_glue(name, write("file.tsv", text))


_CELL = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(st.tuples(_CELL, _CELL, st.booleans()), min_size=1, max_size=5))
def test_any_text_survives_a_glue_file(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("glue") / "train.tsv"
    lines = ["index\tsentence1\tsentence2\tlabel"]
    lines += [f"{i}\t{a}\t{b}\t{int(c)}" for i, (a, b, c) in enumerate(rows)]
    path.write_bytes(("\n".join(lines) + "\n").encode())
    found = [(*row.pairs[0], bool(row.label)) for row in read_glue("wnli", path)]
    assert found == rows


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("cb", {"premise": "a", "idx": 0, "label": "neutral"}, "no field 'hypothesis'"),
        ("cb", {"premise": "a", "hypothesis": "b", "idx": 0, "label": "no"}, "label 'no' is none"),
        ("boolq", {"question": 3, "passage": "b", "idx": 0}, "not a string"),
        ("boolq", 17, "no BoolQ record"),
        ("wsc", {"text": "a b", "idx": 0, "target": {"span2_index": 2, "span1_text": "a"}},
         "span2_index 2 is outside"),
        ("multirc", {"idx": 1, "passage": {"text": "a"}}, "no field 'questions'"),
    ],
)  # fmt: skip
def test_malformed_superglue_files(write, name, line, message):
    with pytest.raises(UserError, match=r"val\.jsonl, line 1.*" + message):
        read_superglue(name, write("val.jsonl", [line]), template_id=1)


def test_missing_files_and_no_hub(parse, bert_tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"neither CoLA/dev\.tsv nor dev\.tsv"):
        GlueDataset(bert_tokenizer, *parse("glue", "cola")[1:3]).load()
    _, data, run, _ = parse("glue", "cola")
    data.data_dir = None
    with pytest.raises(UserError, match=r"the hub gave no validation split.*--data_dir"):
        GlueDataset(bert_tokenizer, data, run).load()


def test_building_a_data_set_reads_nothing(parse, bert_tokenizer):
    """Whatever its file is like, and whichever family: only ``load`` meets it."""
    data = GlueDataset(bert_tokenizer, *parse("glue", "cola")[1:3])
    assert (data.label_list, data.num_labels) == (["unacceptable", "acceptable"], 2)
    assert data.test_key == "matthews_correlation"
    assert data.eval_dataset is None
    assert SuperGlueDataset(bert_tokenizer, *parse("superglue", "copa")[1:3]).num_labels == 1
    assert SRLDataset(bert_tokenizer, *parse("srl", "conll2005")[1:3]).eval_dataset is None
    assert SQuAD(bert_tokenizer, *parse("qa", "squad")[1:]).eval_dataset is None


def test_records_of_the_hub(parse, bert_tokenizer, monkeypatch):
    calls = []

    def load_dataset(repository, configuration, split):
        calls.append((repository, configuration, split))
        label = -1 if split.startswith("test") else 2
        return Dataset.from_list([{"premise": "a", "hypothesis": "b", "label": label, "idx": 5}])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    _, data_args, run_args, _ = parse("glue", "mnli", "do_train", "do_eval", "do_predict")
    data_args.data_dir = None
    data = GlueDataset(bert_tokenizer, data_args, run_args).load()
    assert calls == [
        ("nyu-mll/glue", "mnli", split)
        for split in ("train", "validation_matched", "test_matched", "test_mismatched")
    ]
    assert data.train_dataset[0]["labels"] == 2
    assert data.train_dataset.rows[0].pairs == (("a", "b"),)
    assert "labels" not in data.predict_datasets["test_matched"][0]


# Wording


def _pairs(name, record, template_id=0):
    return [row.pairs for row in compose(name, {"label": 0, "idx": 0, **record}, template_id)]


def test_half_an_emoji_of_the_hub_is_no_text(monkeypatch):
    rows = Dataset.from_list([{"text": "a"}])
    monkeypatch.setattr(rows, "to_list", lambda: [{"text": "a \ud83d b"}])
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: rows)
    (row,) = read_hub("any", None, "train")
    assert row["text"].encode("utf-8").decode("utf-8") == row["text"] != "a \ud83d b"


def test_wording_of_pairs():
    record = {"question": "is it", "passage": "It is."}
    assert _pairs("boolq", record) == [(("is it", "It is."),)]
    record = {"premise": "p", "hypothesis": "h"}
    assert _pairs("cb", record) == _pairs("rte", record) == [(("p", "h"),)]
    record = {"paragraph": "text", "question": "who?", "answer": "he"}
    assert _pairs("multirc", record) == [(("text", "who? he"),)]


def test_wording_of_wic_and_wsc():
    wic = {"word": "place", "sentence1": "Do you want to come over to my place?"}
    wic["sentence2"] = "A political system with no place for the less prominent groups."
    single = (
        "Do you want to come over to my place? A political system with no place for the less "
        "prominent groups. Does place have the same meaning in both sentences?"
    )
    assert _pairs("wic", wic) == [((single, None),)]
    assert _pairs("wic", wic, 1) == [
        ((f"place: {wic['sentence1']}", f"place: {wic['sentence2']}"),)
    ]
    wsc = {"text": "Mark told  Pete many lies. He should be truthful.", "span1_text": "Mark"}
    wsc |= {"span2_text": "He", "span2_index": 5}
    assert _pairs("wsc", wsc) == [((f"He: {wsc['text']}", "Mark"),)]
    marked = "Mark told Pete many lies. *He* should be truthful."
    assert _pairs("wsc", wsc, 1) == [((marked, "Mark"),)]


def test_the_wording_is_that_of_the_flag(parse, bert_tokenizer, write, monkeypatch):
    write("WSC/val.jsonl", [{}])
    for name in ("read_superglue", "read_superglue_hub"):
        monkeypatch.setattr(dataset, name, lambda *given: given)
    _, data, run, _ = parse("superglue", "wsc", template_id=1)
    assert SuperGlueDataset(bert_tokenizer, data, run).read("validation")[2] == 1
    data.data_dir = None
    read = SuperGlueDataset(bert_tokenizer, data, run).read("validation")
    assert read == ("wsc", "validation", 1)


def test_wording_of_copa():
    copa = {"premise": "It rained.", "choice1": "x", "choice2": "y", "question": "cause"}
    cause = "It rained. because"
    assert _pairs("copa", copa) == [((cause, "x"), (cause, "y"))]
    effect = "It rained. so"
    assert _pairs("copa", {**copa, "question": "effect"}) == [((effect, "x"), (effect, "y"))]


RECORD_TEXT = "Ann met Bob.\n@highlight\nAnn left\n@highlight\nBob stayed"
RECORD = {
    "idx": 3,
    "passage": {
        "text": RECORD_TEXT,
        "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 10}, {"start": 24, "end": 26}],
    },
    "qas": [
        {"query": "@placeholder left Bob", "idx": 7, "answers": [{"text": "Ann"}, {"text": "Ann"}]},
        {"query": "@placeholder stayed", "idx": 8, "answers": [{"text": "Bob"}]},
    ],
}


def test_wording_of_record(write):
    rows = read_superglue("record", write("val.jsonl", [RECORD]))
    passage = "Ann met Bob.\n- Ann left\n- Bob stayed"
    assert [row.pairs[0] for row in rows] == [
        (passage, "Ann left Bob"),
        (passage, "Bob left Bob"),
        (passage, "Ann stayed"),
        (passage, "Bob stayed"),
    ]
    assert [row.label for row in rows] == [1, 0, 0, 1]
    assert [row.idx for row in rows] == [{"passage": 3, "query": q} for q in (7, 7, 8, 8)]


# Tokens and batches


def test_pairs_are_cut_and_padded(parse, bert_tokenizer, write):
    long = " ".join("abcdefgh")
    write("dev.tsv", f"sentence1\tsentence2\tlabel\n{long}\tcat dog\t1\nmat\ton\t0\n")
    data = GlueDataset(bert_tokenizer, *parse("glue", "rte", max_seq_length=9)[1:3]).load()
    # 9 - 3 special tokens = 6: the longer text loses tokens, the shorter none.
    tokens = bert_tokenizer.convert_ids_to_tokens(data.eval_dataset[0]["input_ids"])
    assert tokens == "[CLS] a b c d [SEP] cat dog [SEP]".split()
    batch = data.data_collator([data.eval_dataset[0], data.eval_dataset[1]])
    assert batch["input_ids"].shape == (2, 9)
    assert batch["attention_mask"].tolist() == [[1] * 9, [1] * 5 + [0] * 4]
    assert batch["token_type_ids"].tolist() == [[0] * 6 + [1] * 3, [0] * 3 + [1] * 2 + [0] * 4]
    assert batch["labels"].tolist() == [1, 0]
    assert {v.dtype for v in batch.values()} == {torch.int64}


def test_choices_are_those_of_their_own_row(bert_tokenizer):
    pairs = ((("a", "cat"), ("a", "dog")), (("the", "mat"), ("the", "sat")))
    rows = [TextRow(pair, number, number) for number, pair in enumerate(pairs)]
    features = encode_texts(bert_tokenizer, rows, 16)
    found = [[bert_tokenizer.decode(ids) for ids in f["input_ids"]] for f in features]
    assert found == [[f"[CLS] {a} [SEP] {b} [SEP]" for a, b in pair] for pair in pairs]
    assert [feature["labels"] for feature in features] == [0, 1]


def test_no_text_is_longer_than_the_tokenizer_allows(parse, bert_tokenizer):
    data = GlueDataset(bert_tokenizer, *parse("glue", "sst2", max_seq_length=600)[1:3])
    assert data.max_seq_length == data.data_collator.length == 512


@pytest.mark.parametrize(("flags", "width"), [((), 7), (("fp16",), 8), (("bf16", "use_cpu"), 8)])
def test_padding_to_the_longest(parse, bert_tokenizer, write, flags, width):
    write("dev.tsv", "sentence\tlabel\na cat sat on mat\t1\nmat\t0\n")
    flags = ("do_eval", "no_pad_to_max_length", *flags)
    data = GlueDataset(bert_tokenizer, *parse("glue", "sst2", *flags)[1:3]).load()
    batch = data.data_collator(data.eval_dataset.features)
    assert batch["input_ids"].shape == (2, width)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_two_choices_and_tokenizers_without_token_types(request, parse, write, kind):
    tokenizer = request.getfixturevalue(f"{kind}_tokenizer")
    copa = {"premise": "It sat.", "choice1": "a cat", "choice2": "a dog was on the mat"}
    copa |= {"question": "effect", "idx": 0}
    write("COPA/val.jsonl", [{**copa, "label": 1}, {**copa, "label": 0}])
    write("COPA/test.jsonl", [copa])
    flags = ("do_eval", "do_predict", "no_pad_to_max_length")
    data = SuperGlueDataset(tokenizer, *parse("superglue", "copa", *flags)[1:3]).load()
    assert (data.task_type, data.num_labels, data.label_list) == ("choice", 1, None)
    batch = data.data_collator(data.eval_dataset.features)
    expected = tokenizer(["It sat. so"] * 2, ["a cat", "a dog was on the mat"], padding=True)
    for name, rows in expected.items():
        assert batch[name].tolist() == [rows, rows]
    assert batch["labels"].tolist() == [1, 0]
    assert ("token_type_ids" in batch) == (kind == "bert")
    assert "labels" not in data.data_collator(data.predict_datasets["test"].features)


def test_record_with_a_tokenizer_without_token_types(parse, write, roberta_tokenizer):
    write("ReCoRD/val.jsonl", [RECORD])
    data = SuperGlueDataset(roberta_tokenizer, *parse("superglue", "record")[1:3]).load()
    batch = data.data_collator(data.eval_dataset.features)
    assert sorted(batch) == ["attention_mask", "input_ids", "labels"]
    assert batch["input_ids"].shape == (4, 128)


def test_scores_of_stsb_are_floats(bert_tokenizer):
    ids = np.array([2, 3], dtype=np.int32)
    batch = Collator(bert_tokenizer)([{"input_ids": ids, "labels": 3.5}])
    assert batch["labels"].dtype == torch.float32


def test_how_many_rows(parse, bert_tokenizer, write):
    text = "sentence\tlabel\n" + "".join(f"{c}\t0\n" for c in "abcdefghij")
    for split in ("train", "dev", "test"):
        write(f"SST-2/{split}.tsv", text)
    flags = ("do_train", "do_eval", "do_predict")

    def texts(**values):
        data = GlueDataset(bert_tokenizer, *parse("glue", "sst2", *flags, **values)[1:3]).load()
        parts = (data.train_dataset, data.eval_dataset, data.predict_datasets["test"])
        return ["".join(row.pairs[0][0] for row in part.rows) for part in parts]

    samples = {"max_train_samples": 4, "max_eval_samples": 3, "max_predict_samples": 2}
    assert texts(**samples) == ["abcd", "abc", "ab"]
    drawn = texts(train_size=4, seed=1)[0]
    assert drawn != "abcd"
    assert sorted(drawn) == list(drawn)
    assert len(set(drawn)) == 4
    with pytest.raises(UserError, match="--train_size 11: there are only 10"):
        texts(train_size=11)
    assert draw([1, 2, 3], None, 0) == [1, 2, 3]
    assert len({tuple(draw([*range(50)], 4, seed)) for seed in range(5)}) == 5


def test_a_share_of_the_official_training_rows_stands_for_the_development_set(
    parse, bert_tokenizer, write
):
    rows = "".join(f"{c}\t0\n" for c in "abcdefghij")
    write("SST-2/train.tsv", f"sentence\tlabel\n{rows}")  # and no dev.tsv

    def texts(*flags, **values):
        given = parse("glue", "sst2", "do_eval", *flags, eval_fraction=0.2, **values)
        data = GlueDataset(bert_tokenizer, *given[1:3]).load()
        parts = (data.train_dataset, data.eval_dataset)
        return [part and "".join(row.pairs[0][0] for row in part.rows) for part in parts]

    train, held = texts("do_train", seed=1)
    assert sorted(train + held) == list("abcdefghij")
    assert len(held) == 2
    assert texts(seed=1) == [None, held]
    assert len({texts(seed=seed)[1] for seed in range(4)}) > 1
    train, one = texts("do_train", seed=1, train_size=5, max_eval_samples=1)
    assert [len(train), len(one)] == [4, 1]


# Metrics and submission files


def _one_hot(classes, width=2):
    return np.eye(width)[np.array(classes)]


@pytest.mark.parametrize("name", ["cola", "mrpc", "sst2", "stsb"])
def test_glue_metrics(parse, bert_tokenizer, name):
    data = GlueDataset(bert_tokenizer, *_without_data(parse, "glue", name)).load()
    labels, predicted = [0, 1, 1, 0, 1, 1], [0, 1, 0, 0, 1, 0]
    logits = np.array(predicted, float)[:, None] if name == "stsb" else _one_hot(predicted)
    found = data.compute_metrics(EvalPrediction(logits, np.array(labels)), ())
    accuracy, f1 = metrics.accuracy_score(labels, predicted), metrics.f1_score(labels, predicted)
    correlation = metrics.matthews_corrcoef(labels, predicted)
    expected = {
        "cola": {"matthews_correlation": correlation},
        "mrpc": {"accuracy": accuracy, "f1": f1, "combined_score": (accuracy + f1) / 2},
        "sst2": {"accuracy": accuracy},
        # Of two-valued scores, both correlations are the phi coefficient, i.e. Matthews'.
        "stsb": dict.fromkeys(("pearson", "spearmanr", "combined_score"), correlation),
    }
    assert found == pytest.approx(expected[name])


def test_constant_scores_correlate_with_nothing(parse, bert_tokenizer):
    data = GlueDataset(bert_tokenizer, *_without_data(parse, "glue", "stsb")).load()
    found = data.compute_metrics(EvalPrediction(np.ones((3, 1)), np.array([1.0, 2.0, 3.0])), ())
    assert found == {"pearson": 0.0, "spearmanr": 0.0, "combined_score": 0.0}


def test_test_keys_are_metrics(parse, bert_tokenizer):
    for name in GLUE_TASKS:
        data = GlueDataset(bert_tokenizer, *_without_data(parse, "glue", name)).load()
        logits = np.array([[0.1], [0.2]]) if name == "stsb" else _one_hot([0, 1], data.num_labels)
        assert data.test_key in data.compute_metrics(
            EvalPrediction(logits, np.array([0, 1])), ()
        ), name
    keys = {"cola": "matthews_correlation", "stsb": "combined_score", "mrpc": "accuracy"}
    for name, key in keys.items():
        assert (
            GlueDataset(bert_tokenizer, *_without_data(parse, "glue", name)).load().test_key == key
        )
    for name, key in {"record": "f1", "multirc": "f1", "cb": "accuracy"}.items():
        data = SuperGlueDataset(bert_tokenizer, *_without_data(parse, "superglue", name)).load()
        assert data.test_key == key


def _without_data(parse, task, name):
    _, data, run, _ = parse(task, name)
    run.do_eval = False
    return data, run


def test_cb_metrics(shared, parse, bert_tokenizer):
    path = shared / "vectors" / "metrics" / "classification_qa_ner.json"
    official = json.loads(path.read_text(encoding="utf-8"))["cb_3class"]
    data = SuperGlueDataset(bert_tokenizer, *_without_data(parse, "superglue", "cb")).load()
    p = EvalPrediction(_one_hot(official["preds"], 3), np.array(official["labels"]))
    expected = {"accuracy": official["accuracy"], "f1": official["f1"]}
    expected["combined_score"] = official["ptuningv2_combined_score"]
    assert data.compute_metrics(p, ()) == pytest.approx(expected)


def test_record_metrics_and_submission(parse, write, bert_tokenizer, tmp_path):
    write("ReCoRD/val.jsonl", [RECORD])
    flags = ("do_eval", "do_predict")
    arguments = parse("superglue", "record", *flags, predict_split="validation")
    data = SuperGlueDataset(bert_tokenizer, *arguments[1:3]).load()
    # Query 7: Ann 0.2, Bob 0.1 -> Ann, right. Query 8: equal -> the last by alphabet, Bob, right.
    logits = np.array([[0, 0.2], [9, 0.1], [0, 0.5], [0, 0.5]])
    p = EvalPrediction(logits, np.array([1, 0, 0, 1]))
    assert data.compute_metrics(p, data.eval_dataset.rows) == {"f1": 1.0, "exact_match": 1.0}
    p = EvalPrediction(logits[::-1], np.array([1, 0, 0, 1]))  # Bob (tie) is wrong, Bob right
    assert data.compute_metrics(p, data.eval_dataset.rows) == {"f1": 0.5, "exact_match": 0.5}
    path = data.write_predictions(tmp_path / "out", "validation", logits)
    assert path.name == "ReCoRD.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == [{"idx": 7, "label": "Ann"}, {"idx": 8, "label": "Bob"}]
    chosen = {str(row["idx"]): row["label"] for row in rows}
    scores = qa.record(qa.read_record(tmp_path / "ReCoRD" / "val.jsonl"), chosen)
    assert scores["exact_match"] == 1.0
    shorter = parse("superglue", "record", *flags, predict_split="validation", max_eval_samples=2)
    data = SuperGlueDataset(bert_tokenizer, *shorter[1:3]).load()
    p = EvalPrediction(logits[:2], np.array([1, 0]))
    assert data.compute_metrics(p, data.eval_dataset.rows) == {"f1": 1.0, "exact_match": 1.0}
    predicted = data.predict_datasets["validation"].rows
    p = EvalPrediction(logits, np.zeros(4))
    assert data.compute_metrics(p, predicted)["f1"] == 1.0


def test_multirc_metrics_and_submission(parse, write, bert_tokenizer, tmp_path):
    def question(idx, *labels):
        answers = [{"text": "a", "idx": 10 * idx + i, "label": v} for i, v in enumerate(labels)]
        return {"question": "who?", "idx": idx, "answers": answers}

    passages = [
        {"idx": 4, "passage": {"text": "cat", "questions": [question(0, 1, 0), question(1, 1)]}},
        {"idx": 5, "passage": {"text": "dog", "questions": [question(2, 0, 1)]}},
    ]
    write("MultiRC/val.jsonl", passages)
    arguments = parse("superglue", "multirc", "do_eval", "do_predict", predict_split="validation")
    data = SuperGlueDataset(bert_tokenizer, *arguments[1:3]).load()
    logits = _one_hot([1, 0, 0, 0, 1])
    found = data.compute_metrics(
        EvalPrediction(logits, np.array([1, 0, 1, 0, 1])), data.eval_dataset.rows
    )
    # 2 true positives, 1 answer missed; two of three questions have all answers right.
    assert found == pytest.approx({"f1": 4 / 5, "exact_match": 2 / 3})
    path = data.write_predictions(tmp_path / "out", "validation", logits)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    first = [{"idx": 0, "label": 1}, {"idx": 1, "label": 0}]
    assert rows[0] == {
        "idx": 4,
        "passage": {
            "questions": [
                {"idx": 0, "answers": first},
                {"idx": 1, "answers": [{"idx": 10, "label": 0}]},
            ]
        },
    }
    assert [row["idx"] for row in rows] == [4, 5]


@pytest.mark.parametrize(
    ("name", "line", "logits", "expected"),
    [
        ("boolq", {"question": "a", "passage": "b"}, [0, 1], "true"),
        ("cb", {"premise": "a", "hypothesis": "b"}, [0, 1, 0], "contradiction"),
        ("rte", {"premise": "a", "hypothesis": "b"}, [0, 1], "not_entailment"),
        ("copa", {"premise": "a", "choice1": "b", "choice2": "c", "question": "cause"}, [0, 1], 1),
        ("wic", {"word": "a", "sentence1": "b", "sentence2": "c"}, [1, 0], "false"),
        ("wsc", {"text": "a", "target": {"span1_text": "a", "span2_text": "b", "span2_index": 0}},
         [0, 1], "True"),
    ],
)  # fmt: skip
def test_superglue_submissions(
    parse, write, bert_tokenizer, tmp_path, name, line, logits, expected
):
    write("test.jsonl", [{**line, "idx": 12}])
    data = SuperGlueDataset(bert_tokenizer, *parse("superglue", name, "do_predict")[1:3]).load()
    path = data.write_predictions(tmp_path / "out", "test", np.array([logits]))
    assert json.loads(path.read_text(encoding="utf-8")) == {"idx": 12, "label": expected}


@pytest.mark.parametrize(
    ("name", "split", "file", "logits", "expected"),
    [
        ("rte", "test", "RTE.tsv", [0, 1], "not_entailment"),
        ("sst2", "test", "SST-2.tsv", [0, 1], "1"),
        ("stsb", "test", "STS-B.tsv", [5.2], "5.000"),
        ("mnli", "test_matched", "MNLI-m.tsv", [0, 0, 1], "contradiction"),
        ("mnli", "test_mismatched", "MNLI-mm.tsv", [0, 1, 0], "neutral"),
    ],
)
def test_glue_submissions(
    parse, write, bert_tokenizer, tmp_path, name, split, file, logits, expected
):
    header = "\t".join(["index", *GLUE_TASKS[name].texts])
    text = header + "\n" + "\t".join(["0", *("a" for _ in GLUE_TASKS[name].texts)]) + "\n"
    for part in ("test", "test_matched", "test_mismatched"):
        write(f"{part}.tsv", text)
    data = GlueDataset(bert_tokenizer, *parse("glue", name, "do_predict")[1:3]).load()
    path = data.write_predictions(tmp_path / "out", split, np.array([logits]))
    assert path.name == file
    assert path.read_text(encoding="utf-8") == f"index\tprediction\n0\t{expected}\n"


# Real files


@pytest.mark.parametrize(
    ("name", "count"),
    [("boolq", 3270), ("cb", 56), ("copa", 100), ("rte", 277), ("wsc", 104), ("wic", 638)],
)
def test_superglue_development_sets(shared, name, count):
    folders = {"boolq": "BoolQ", "wic": "WiC"}
    path = shared / "data" / "superglue" / folders.get(name, name.upper()) / "val.jsonl"
    rows = read_superglue(name, path, template_id=1)
    assert len(rows) == count
    assert {row.label for row in rows} == set(range(3 if name == "cb" else 2))


def test_multirc_and_record_files(shared):
    folder = shared / "data" / "superglue"
    rows = read_superglue("multirc", folder / "MultiRC" / "val.jsonl")
    questions, labels = qa.read_multirc(folder / "MultiRC" / "val.jsonl")
    assert len({row.idx["paragraph"] for row in rows}) == 83
    assert [(row.idx["paragraph"], row.idx["question"]) for row in rows] == questions
    assert [row.label for row in rows] == labels
    rows = read_superglue("record", folder / "ReCoRD" / "train.jsonl")
    assert len({row.idx["query"] for row in rows}) == 32
    assert not any("@placeholder" in row.pairs[0][1] for row in rows)
    assert not any("@highlight" in row.pairs[0][0] for row in rows)


@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("rte", "RTE/train.tsv", 2490),
        ("rte", "RTE/dev.tsv", 277),
        ("sst2", "SST-2/test.tsv", 872),
    ],
)
def test_glue_files_of_the_release(shared, name, file, count):
    rows = read_glue(name, shared / "data" / "glue" / file)
    assert len(rows) == count
    assert {row.label for row in rows} == {0, 1}


def test_every_glue_file_of_a_few_lines(shared):
    seen = 0
    for name, task in GLUE_TASKS.items():
        folder = shared / "data" / "hf_format_fixtures" / "glue" / name
        for path in sorted(folder.glob("*/*.tsv")):
            rows = read_glue(name, path)
            texts = [text for row in rows for text in row.pairs[0]]
            assert all(texts) if len(task.texts) == 2 else texts[1::2] == [None] * len(rows)
            labelled = [row.label is not None for row in rows]
            assert not any(labelled) if path.name.startswith("test") else all(labelled), path
            seen += len(rows)
    assert seen >= 8 * 6


@pytest.mark.parametrize("score", ["nan", "inf", "1e9", "-0.1", "5.01"])
def test_scores_of_stsb_have_a_range(write, score):
    path = write("file.tsv", f"index\tsentence1\tsentence2\tscore\n0\ta\tb\t{score}\n")
    with pytest.raises(UserError, match=r"file\.tsv, line 2: the score .* not between 0 and 5"):
        read_glue("stsb", path)
    ends = "index\tsentence1\tsentence2\tscore\n0\ta\tb\t0\n1\ta\tb\t5.0\n"
    assert [row.label for row in read_glue("stsb", write("ends.tsv", ends))] == [0, 5]


def test_lines_of_qqp_that_are_cut_are_counted(write, capsys):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    path = write("train.tsv", header + "3\t4\t5\ta\tb\t1\n3\t4\n5\n4\t4\t5\tc\td\t0\n")
    assert [row.pairs for row in read_glue("qqp", path)] == [(("a", "b"),), (("c", "d"),)]
    assert "left out 2 of 4 lines, which have fewer than 6 columns; the first is line 3" in (
        capsys.readouterr().out
    )
    with pytest.raises(UserError, match=r"line 3: 7 columns, expected 6"):
        read_glue("qqp", write("b.tsv", header + "3\t4\t5\ta\tb\t1\n3\t4\t5\ta\tb\t1\t\n"))


def test_rows_of_glue_keep_the_numbers_of_their_file(write):
    for name, index, text in [("rte", "index", "sentence1\tsentence2"),
                              ("qqp", "id", "question1\tquestion2")]:  # fmt: skip
        lines = [f"{index}\t{text}", "7\ta\tb", "3\tc\td", ""]
        rows = read_glue(name, write("test.tsv", "\n".join(lines)))
        assert [row.idx for row in rows] == [7, 3]
        with pytest.raises(UserError, match="line 3: two rows have the number 7"):
            read_glue(name, write("test.tsv", "\n".join([*lines[:2], "7\tc\td"])))
        with pytest.raises(UserError, match=f"line 1: the column '{index}' comes twice"):
            read_glue(name, write("test.tsv", "\n".join([f"{index}\t{lines[0]}", "1\t2\ta\tb"])))
        with pytest.raises(UserError, match=r"line 3: '-1' is no number of a row"):
            read_glue(name, write("test.tsv", "\n".join([*lines[:2], "-1\tc\td"])))


def test_two_predictions_for_one_number_of_superglue(write):
    row = json.dumps({"premise": "a", "hypothesis": "b", "idx": 3})
    with pytest.raises(UserError, match=r"line 2 is no CB record: another record has the idx 3"):
        read_superglue("cb", write("test.jsonl", f"{row}\n" * 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": 0, "end": 99}, "outside the passage of 9"),
        ({"start": -1, "end": 2}, "outside the passage"),
        ({"start": 3, "end": 2}, "outside the passage"),
        ({"start": 0.0, "end": 2}, "no whole numbers"),
        ({"start": True, "end": 2}, "no whole numbers"),
        ({"start": 0}, "no field 'end'"),
    ],
)
def test_entities_of_record_lie_in_their_text(write, change, message):
    row = {
        "idx": 0,
        "passage": {"text": "Ann. Bob.", "entities": [change]},
        "qas": [{"idx": 0, "query": "@placeholder won", "answers": [{"text": "Ann"}]}],
    }
    with pytest.raises(UserError, match=r"val\.jsonl, line 1 is no ReCoRD record: .*" + message):
        read_superglue("record", write("val.jsonl", json.dumps(row)))
    row["passage"]["entities"] = [{"start": 0, "end": 2}, {"start": 5, "end": 7}]
    path = write("val.jsonl", json.dumps(row))
    assert [r.entity for r in read_superglue("record", path)] == ["Ann", "Bob"]
    for answers in ([{"text": ""}], [{"text": None}], [{"text": ["Ann"]}]):
        wrong = {**row, "qas": [{**row["qas"][0], "answers": answers}]}
        with pytest.raises(UserError, match="not a text, or empty"):
            read_superglue("record", write("val.jsonl", json.dumps(wrong)))
    with pytest.raises(UserError, match=r"line 2 .*another record has the idx"):
        read_superglue("record", write("val.jsonl", f"{json.dumps(row)}\n" * 2))
    for idx in ("0", 0.5, True, None, [0]):
        wrong = {**row, "qas": [{**row["qas"][0], "idx": idx}]}
        with pytest.raises(UserError, match="not a whole number"):
            read_superglue("record", write("val.jsonl", json.dumps(wrong)))
