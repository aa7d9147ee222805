"""One's own files: which columns are read, what is held out, and runs from file to prediction."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertModel, BertTokenizer

from prefix_tuning.errors import UserError
from ptuning_v2 import run
from ptuning_v2.arguments import get_args
from ptuning_v2.identity import data_files
from ptuning_v2.tasks.own.dataset import OwnTags, OwnTexts
from ptuning_v2.tasks.own.files import (
    Columns,
    Labelled,
    class_of,
    classes,
    held_out,
    labelled,
    words_of,
)
from ptuning_v2.tasks.qa.dataset import own_questions

REVIEWS = [(f"the cat sat on mat {i}", ("good", "bad")[i % 2]) for i in range(20)]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Write a CSV file."""

    def table(name: str, *rows: tuple[str, ...]) -> Path:
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
        return tmp_path / name

    return table


@pytest.fixture
def reviews(table: Callable[..., Path]) -> Path:
    return table("reviews.csv", ("review", "sentiment"), *REVIEWS)


def arguments(task: str, *given: object) -> Any:
    common = ["--model_name_or_path", "m", "--task_name", task, "--output_dir", "o"]
    return get_args([*common, *map(str, given)])


def texts(tokenizer: BertTokenizer, *given: object) -> OwnTexts:
    _, data_args, training_args, _ = arguments("classification", *given)
    return OwnTexts(tokenizer, data_args, training_args).load()


def test_texts_are_read_and_a_tenth_is_held_out(
    reviews: Path, bert_tokenizer: BertTokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    data = texts(bert_tokenizer, "--train_file", reviews)
    assert data.label_list == ["bad", "good"]
    assert data.train_dataset is not None
    assert data.eval_dataset is not None
    assert (len(data.train_dataset), len(data.eval_dataset)) == (18, 2)
    rows = [*data.train_dataset.rows, *data.eval_dataset.rows]
    found = Counter((row.pairs[0][0], data.label_list[int(row.label or 0)]) for row in rows)
    assert found == Counter(REVIEWS)
    first = data.train_dataset.rows[0].pairs[0][0]
    assert bert_tokenizer.decode(data.train_dataset[0]["input_ids"][1:-1]) == first
    assert "the text is 'review', the label 'sentiment'" in capsys.readouterr().out


def test_pairs_and_named_columns(table: Callable[..., Path], bert_tokenizer: BertTokenizer) -> None:
    header = ("a", "b", "kind", "text")
    rows = [(f"cat {i}", f"dog {i}", str(10 - i % 3), "no") for i in range(9)]
    file = table("pairs.csv", header, *rows)
    flags = ["--text_column", "a", "--text_pair_column", "b", "--label_column", "kind"]
    data = texts(bert_tokenizer, "--train_file", file, "--eval_fraction", 0, *flags)
    assert data.train_dataset is not None
    assert data.eval_dataset is None
    assert data.label_list == ["8", "9", "10"]  # numbers, not the alphabet
    assert [row.pairs[0] for row in data.train_dataset.rows] == [row[:2] for row in rows]


def test_files_of_validation_and_test(
    reviews: Path, table: Callable[..., Path], bert_tokenizer: BertTokenizer, tmp_path: Path
) -> None:
    valid = table("v.csv", ("review", "sentiment"), ("a dog", "bad"))
    new = table("new.csv", ("review",), ("who was the dog",), ("what",))
    flags = ["--train_file", reviews, "--validation_file", valid, "--test_file", new]
    data = texts(bert_tokenizer, *flags)
    assert data.train_dataset is not None
    assert data.eval_dataset is not None
    assert (len(data.train_dataset), len(data.eval_dataset)) == (20, 1)
    assert [row.label for row in data.predict_datasets["test"].rows] == [None, None]
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0]]).numpy()
    lines = data.write_predictions(tmp_path, "test", logits).read_text("utf-8").splitlines()
    expected = [("who was the dog", "good", 0.7311), ("what", "bad", 0.8808)]  # e / (1 + e), ...
    found = [json.loads(line) for line in lines]
    assert [
        tuple(row[n] for n in ("text", "predicted", "probability")) for row in found
    ] == expected


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        ([("a", "b"), ("x", "y")], "", "which of a, b is the text is not clear; name it with"),
        ([("text", "b"), ("x", "y")], "", "which of text, b is the label is not clear"),
        ([("text", "label"), ("x", "")], "", "line 2: 'label' is missing or empty"),
        ([("text", "label"), ("", "p")], "", "line 2: 'text' is missing or empty"),
        ([("text", "label"), ("x", "p"), ("y", "p")], "", "every row has the label 'p'"),
        ([("text", "label"), *((f"x{i}", f"p{i}") for i in range(30))], "", "30 different labels"),
        ([("text", "label"), ("x", "p")], "--label_column l", "--label_column l: there is no such"),
        ([("text", "label"), ("x", "p")], "--text_column t", "--text_column t: there is no such"),
        ([("text", "label"), ("x", "p"), ("x", "q")], "", "nothing can be held out of one text"),
        ([("text", "label")], "", "there are no rows to train on"),
    ],
)
def test_mistakes_in_files(
    rows: list[tuple[str, str]],
    flags: str,
    message: str,
    table: Callable[..., Path],
    bert_tokenizer: BertTokenizer,
) -> None:
    with pytest.raises(UserError, match=message):
        texts(bert_tokenizer, "--train_file", table("rows.csv", *rows), *flags.split())


@pytest.mark.parametrize("text", [["a", "b"], {"a": "b"}, 5])
def test_texts_that_are_none(
    text: Any, write: Callable[[str, Any], Path], bert_tokenizer: BertTokenizer
) -> None:
    rows = [{"text": "a", "label": "p"}, {"text": text, "label": "q"}]
    with pytest.raises(UserError, match="line 2: not a text"):
        texts(bert_tokenizer, "--train_file", write("rows.jsonl", rows))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"question": "q", "label": "a"}, {"question": "q", "sentence": "s", "label": "b"}],
            "line 2: 'sentence' is not in the first row",
        ),
        ([{"text": "a"}, {"text": "b", "label": "x"}], "line 2: 'label' is not in the first row"),
        ([{"text": " \n", "label": "x"}], "line 1: 'text' is missing or empty"),
    ],
)
def test_columns_that_the_first_row_lacks_and_blank_texts(
    rows: list[dict[str, str]], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        list(labelled(str(path), "test", Columns(), False))


def test_a_word_with_a_line_break() -> None:
    with pytest.raises(UserError, match="line 3: a word has a line break"):
        words_of(Labelled((["a", "b\nc"],), None, "x, line 3"))


def test_a_folder_is_known_by_its_files(write: Callable[[str, Any], Path], tmp_path: Path) -> None:
    train = write("data/train.jsonl", [{"text": "a", "label": 0}])
    files = data_files(arguments("classification", "--train_file", tmp_path / "data"))
    assert files == {"train_file/train.jsonl": train}
    assert data_files(arguments("classification", "--train_file", train)) == {"train_file": train}


def test_unknown_label_of_validation(
    reviews: Path, table: Callable[..., Path], bert_tokenizer: BertTokenizer
) -> None:
    valid = table("v.csv", ("review", "sentiment"), ("a dog", "bad"), ("a cat", "mixed"))
    with pytest.raises(UserError, match=r"v\.csv, line 3: the label 'mixed' is none of bad, good"):
        texts(bert_tokenizer, "--train_file", reviews, "--validation_file", valid)


@pytest.mark.parametrize(
    ("task", "flags", "message"),
    [
        ("classification", "", "nothing to do|--train_file"),
        ("classification", "--do_train", "name the data with --train_file"),
        ("classification", "--train_file no.csv", "--train_file no.csv: there is no such file"),
        ("tagging", "--do_eval", "name the data with --validation_file"),
        ("classification", "--train_file {} --data_dir .", "--data_dir .: name one's own data"),
        ("classification", "--train_file {} --dataset_name rte", "--dataset_name rte"),
        ("classification", "--train_file {0} --validation_file {0} --eval_fraction 0.5", "one of"),
        ("glue", "--train_file {} --dataset_name rte --do_train", "reads the official files"),
        ("tagging", "--train_file {} --prompt", "--prompt with --task_name tagging"),
        ("glue", "--do_train", "--task_name glue has cola"),
        ("tagging", "--train_file {} --text_column a --text_pair_column b", "tagging has one text"),
        ("glue", "--dataset_name rte --do_train --label_column b", "--label_column b: --task_name"),
        ("qa", "--train_file {} --text_column b", "--text_column b: --task_name qa has columns"),
        ("classification", "--train_file {} --text_pair_column b", "--text_pair_column b: name"),
    ],
)
def test_mistakes_in_flags(task: str, flags: str, message: str, reviews: Path) -> None:
    with pytest.raises(UserError, match=message):
        arguments(task, *flags.format(reviews).split())


def test_defaults_by_size(reviews: Path) -> None:
    model, data, run_args, _ = arguments("classification", "--train_file", reviews)
    assert (model.prefix, model.pre_seq_len, run_args.learning_rate) == (True, 16, 1e-2)
    assert (run_args.do_train, run_args.do_eval, run_args.do_predict) == (True, True, False)
    assert run_args.per_device_train_batch_size == 16
    assert run_args.num_train_epochs * 2 >= 300  # two batches hold 18 rows
    assert data.eval_fraction == 0.1
    given = ["--train_file", reviews, "--learning_rate", 0.5, "--num_train_epochs", 2, "--prompt"]
    model, _, run_args, _ = arguments("classification", *given)
    assert (model.prefix, model.prompt) == (False, True)
    assert (run_args.learning_rate, run_args.num_train_epochs) == (0.5, 2)


SENTENCES = [
    {"words": ["the", "cat", "sat"], "tags": ["O", "B-PET", "O"]},
    {"words": ["who", "was", "Anna", "the", "dog"], "tags": ["O", "O", "B-PER", "O", "B-PET"]},
    {"words": ["a", "big", "dog"], "tags": ["O", "B-PET", "I-PET"]},
]


def tags(tokenizer: BertTokenizer, *given: object) -> OwnTags:
    _, data_args, training_args, _ = arguments("tagging", *given)
    return OwnTags(tokenizer, data_args, training_args).load()


def test_tags_are_read(write: Callable[[str, Any], Path], bert_tokenizer: BertTokenizer) -> None:
    lines = "".join(
        "".join(f"{w} {t}\n" for w, t in zip(s["words"], s["tags"], strict=True)) + "\n"
        for s in SENTENCES
    )
    for file in (write("s.jsonl", SENTENCES), write("s.conll", lines)):
        data = tags(bert_tokenizer, "--train_file", file, "--eval_fraction", 0)
        assert data.label_list == ["O", "B-PER", "B-PET", "I-PET"]
        assert data.train_dataset is not None
        found = [(list(s.words), list(s.tags)) for s in data.train_dataset.rows]
        assert found == [(s["words"], s["tags"]) for s in SENTENCES]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tags": ["O", "O"]}, "line 1: 3 words, and 2 tags"),
        ({"tags": [0, 1, 0]}, "line 1: the tags are not a list of texts"),
        ({"tags": ["O", "PET", "O"]}, "line 1: tag 'PET'"),
        ({"tags": []}, "line 1: the tags are missing|'tags' is missing"),
        ({"words": "the cat sat"}, "line 1: the words are not a list of texts"),
        ({"words": ["the", "", "cat"]}, "line 1: the words are not a list of texts"),
    ],
)
def test_mistakes_in_tags(
    change: dict[str, Any],
    message: str,
    write: Callable[[str, Any], Path],
    bert_tokenizer: BertTokenizer,
) -> None:
    file = write("s.jsonl", [{**SENTENCES[0], **change}, *SENTENCES[1:]])
    with pytest.raises(UserError, match=message):
        tags(bert_tokenizer, "--train_file", file)


def test_words_without_tags_are_predicted(
    write: Callable[[str, Any], Path], bert_tokenizer: BertTokenizer, tmp_path: Path
) -> None:
    file = write("s.jsonl", SENTENCES)
    new = write("new.jsonl", [{"words": s["words"]} for s in SENTENCES])
    flags = ["--train_file", file, "--test_file", new, "--eval_fraction", 0]
    data = tags(bert_tokenizer, *flags)
    test = data.predict_datasets["test"]
    assert "labels" not in test[0]
    ids = [[0] * len(feature["input_ids"]) for feature in test.features]
    width = max(map(len, ids))
    logits = torch.zeros(len(ids), width, 4)
    logits[..., 2] = 1.0  # B-PET everywhere
    path = data.write_predictions(tmp_path, "test", logits.numpy())
    expected = "\n".join("".join(f"{w} B-PET\n" for w in s["words"]) for s in SENTENCES)
    assert path.read_text("utf-8") == expected + "\n"


ANSWER = {"text": "a cat", "answer_start": 4}


@pytest.mark.parametrize(
    "answers", [[ANSWER], {"text": ["a cat"], "answer_start": [4]}], ids=["list", "as the hub"]
)
def test_questions(answers: Any, write: Callable[[str, Any], Path]) -> None:
    row = {"question": " who was it", "context": "was a cat", "answers": answers}
    [question] = own_questions(str(write("q.jsonl", [row])), "train", False)
    assert (question.question, question.answers, question.starts) == (
        "who was it",
        ("a cat",),
        (4,),
    )
    paragraph = {"context": row["context"], "qas": [{**row, "answers": [ANSWER], "id": "1"}]}
    squad = {"data": [{"paragraphs": [paragraph]}]}
    [same] = own_questions(str(write("q.json", squad)), "train", False)
    assert (same.question, same.starts) == (question.question, question.starts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": None}, "line 1: .*answers"),
        ({"answers": ["a cat"]}, "line 1: answers are a list of"),
        ({"answers": [{"text": "a cat"}]}, "line 1: answers are a list of"),
        ({"answers": [{**ANSWER, "answer_start": 3}]}, "line 1: at answer_start 3"),
        ({"answers": []}, "line 1 has no answer: use --dataset_name squad_v2"),
        ({"context": None}, "line 1: the context is not a text"),
    ],
)
def test_mistakes_in_questions(
    change: dict[str, Any], message: str, write: Callable[[str, Any], Path]
) -> None:
    row = {"question": "who", "context": "was a cat", "answers": [ANSWER], **change}
    with pytest.raises(UserError, match=message):
        own_questions(str(write("q.jsonl", [row])), "train", False)


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=2).filter(lambda rows: len({*rows}) > 1),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
)
def test_held_out(rows: list[str], fraction: float, seed: int) -> None:
    train, out = held_out(rows, fraction, seed, str.upper, "file")
    assert train
    assert out
    assert not {*train} & {*out}
    assert Counter(train) + Counter(out) == Counter(rows)
    assert held_out(rows, fraction, seed, str.upper, "file") == (train, out)


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.text()))
def test_names_and_numbers_are_classes(value: Any) -> None:
    name = class_of(Labelled(("text",), value, "here"))
    assert name is None if value is None else isinstance(name, str)


@pytest.mark.parametrize("value", [0.5, [], {}, ["a"]])
def test_other_values_are_no_classes(value: Any) -> None:
    with pytest.raises(UserError, match="here: the label"):
        class_of(Labelled(("text",), value, "here"))
    assert class_of(Labelled(("text",), 2.0, "here")) == "2"


def test_labels_are_known_in_one_order() -> None:
    assert classes(["b", "a", "b"], "file") == ["a", "b"]
    assert classes(["10", "9", "9"], "file") == ["9", "10"]
    assert classes(["9" * 5000, "1"], "file") == ["1", "9" * 5000]


def test_a_folder_and_parquet(write: Callable[[str, Any], Path], tmp_path: Path) -> None:
    rows = [{"text": f"a {i}", "label": i % 2} for i in range(3)]
    write("data/train.jsonl", rows)
    write("data/validation.json", json.dumps(rows[:1]))
    found = [*labelled(str(tmp_path / "data"), "validation", Columns(), True, str)]
    assert [(row.values, row.label) for row in found] == [(("a 0",), 0)]
    folder = tmp_path / "data"
    _, data, run_args, _ = arguments("classification", "--train_file", folder)
    assert (data.validation_file, data.eval_fraction) == (str(folder), None)
    assert run_args.do_eval
    _, data, _, _ = arguments("classification", "--train_file", folder, "--eval_fraction", 0.5)
    assert (data.validation_file, data.eval_fraction) == (None, 0.5)
    (folder / "validation.json").unlink()
    _, data, _, _ = arguments("classification", "--train_file", folder)
    assert (data.validation_file, data.eval_fraction) == (None, 0.1)
    pytest.importorskip("pyarrow")
    from datasets import Dataset

    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    found = [*labelled(str(tmp_path / "rows.parquet"), "train", Columns(), True, str)]
    assert [row.label for row in found] == [0, 1, 0]


def test_from_a_file_to_predictions(
    table: Callable[..., Path],
    bert_tokenizer: BertTokenizer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The second command is the one that the first one prints."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(vocab_size=len(bert_tokenizer), intermediate_size=32, **sizes)
    BertModel(config).save_pretrained(tmp_path / "bert")
    bert_tokenizer.save_pretrained(tmp_path / "bert")
    file = table("r.csv", ("text", "label"), *((a, b) for a, b in REVIEWS))
    new = table("new.csv", ("text",), ("a cat",), ("what does it mean",))
    given = f"--task_name classification --train_file {file} --output_dir {tmp_path / 'run'}"
    base = f"--model_name_or_path {tmp_path / 'bert'} --report_to none --use_cpu"
    run.main(f"{given} {base} --num_train_epochs 1 --pre_seq_len 2".split())
    said = capsys.readouterr().out.splitlines()
    assert any(line.startswith("step 1/") for line in said)
    assert any(re.match(r"evaluation at step \d+  loss \S+  acc\w* ", line) for line in said)
    assert not [line for line in said if line.startswith("{")]
    [line] = [line for line in said if "to predict" in line]
    command = line.split("run.py ")[1].replace("FILE", str(new))
    run.main([*command.split(), "--report_to", "none", "--use_cpu"])
    path = tmp_path / "run" / "predictions" / "test_predictions.jsonl"
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [row["text"] for row in found] == ["a cat", "what does it mean"]
    assert {row["predicted"] for row in found} <= {"good", "bad"}
