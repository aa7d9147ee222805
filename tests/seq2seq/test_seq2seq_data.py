"""Files, records and batches."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from transformers import MBartTokenizer, PreTrainedTokenizerFast

from harness.own_data import Columns
from prefix_tuning.errors import UserError
from seq2seq.data import Seq2SeqDataset, read_split
from seq2seq.files import Record, write_splits
from seq2seq.samplers import TokenBatchSampler


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path: Path, split: str = "train", training: bool = True, **kwargs: Any) -> list[Any]:
    return [(r.source, r.target) for r in read_split(path, split, training, **kwargs)]


def records(count: int, name: str = "r") -> list[Record]:
    return [Record(f"{name} {i}", f"target {i}", "") for i in range(count)]


# The original's layout.


def test_lines_of_two_files(tmp_path: Path) -> None:
    write(tmp_path / "val.source", "a b\r\nc\u2028d \r\n")
    write(tmp_path / "val.target", "1\n 2")
    (one, two) = read_split(tmp_path, "val", training=True)
    assert (one.source, one.target, two.source, two.target) == ("a b", "1", "c\u2028d ", " 2")
    assert two.where == f"{tmp_path / 'val.source'}, line 2"


def test_sources_alone_can_be_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "test.source", "a\nb\n")
    assert read(tmp_path, "test", training=False) == [("a", None), ("b", None)]
    with pytest.raises(
        UserError, match=r"test\.target: there is no such file, and nothing to train"
    ):
        read(tmp_path, "test")
    write(path, "a\n\nb\n")
    with pytest.raises(UserError, match=r"test\.source, line 2: the source is missing or empty"):
        read(tmp_path, "test", training=False)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("a\nb\n", "1\n", "train.source has 2 lines and train.target 1"),
        ("a\n \n", "1\n2\n", "train.source, line 2: the source is missing"),
        ("a\nb\n", "1\n\t\n", "train.target, line 2: the target is missing"),
        ("a\nb\n\n", "1\n2\n\n", "train.source, line 3: the source is missing"),
        (b"a\nb\xe9\n", "1\n2\n", "train.source, line 2: not UTF-8"),
        ("", "", "the train split has no records"),
    ],
)
def test_malformed_lines(tmp_path: Path, source: str | bytes, target: str, message: str) -> None:
    write(tmp_path / "train.source", source)
    write(tmp_path / "train.target", target)
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


TEXT = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1).filter(
    lambda text: text.strip() and not text.startswith("\ufeff")
)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
def test_what_is_written_is_read(pairs: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "new"
        write_splits(out, {"train": [Record(s, t, "") for s, t in pairs]})
        assert read(out) == pairs
        assert [path.name for path in Path(folder).iterdir()] == ["new"]
        with pytest.raises(UserError, match="exists already"):
            write_splits(out, {})


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
def test_csv_and_jsonl_hold_the_same(pairs: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table, lines = Path(folder) / "a.csv", Path(folder) / "a.jsonl"
        with table.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("document", "summary"), *pairs])
        rows = [json.dumps({"document": s, "summary": t}) for s, t in pairs]
        lines.write_text("\n".join(rows), encoding="utf-8")
        assert read(table) == read(lines) == pairs


def test_sources_alone_are_written_alone(tmp_path: Path) -> None:
    write_splits(tmp_path / "a", {"test": [Record("a", None, ""), Record("b", None, "")]})
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["test.source"]


# Tables.


def test_line_breaks_inside_a_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'article,highlights\n"one\ntwo \r\n\r\n three\n",x\n"b",\n')
    with pytest.raises(UserError, match=r"a\.csv, line 7: the target is missing"):
        read(path)
    write(path, path.read_bytes() + b"c,y\n")
    write(path, path.read_bytes().replace(b'"b",', b'"b",z'))
    assert read(path) == [("one two three", "x"), ("b", "z"), ("c", "y")]


@pytest.mark.parametrize(
    ("header", "columns", "expected"),
    [
        ("source,target,x", None, ("1", "2")),
        ("id,document,summary", None, ("2", "3")),
        ("source,article,highlights", None, ("2", "3")),
        ("summary,text,label", None, ("2", "1")),
        ("in,out,summary", Columns("in", "out"), ("1", "2")),
        ("in,out,summary", Columns("in"), ("1", "3")),
        ("document,title,summary", Columns(target="title"), ("1", "2")),
    ],
)
def test_columns(
    tmp_path: Path, header: str, columns: Columns | None, expected: tuple[str, str]
) -> None:
    assert read(write(tmp_path / "a.csv", f"{header}\n1,2,3\n"), columns=columns) == [expected]


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "document,b\n1,2\n")
    with pytest.raises(UserError, match="which of document, b are source and target"):
        read(path)
    assert read(path, training=False) == [("1", None)]
    with pytest.raises(UserError, match="--target_column summary: there is no such column"):
        read(path, training=False, columns=Columns(target="summary"))


def test_jsonl(tmp_path: Path) -> None:
    rows = [{"source": "a", "target": "b"}, {"source": "c", "targets": ["d", "e"]}, {"source": "f"}]
    path = write(tmp_path / "train.jsonl", "\n\n".join(map(json.dumps, rows)))
    expected = [("a", "b"), ("c", "d"), ("c", "e")]
    assert read(tmp_path, training=False) == [*expected, ("f", None)]
    with pytest.raises(UserError, match=r"train\.jsonl, line 5: no 'target' or 'targets'"):
        read(path)


def test_a_field_that_is_misspelt_or_given_twice(tmp_path: Path) -> None:
    """In a decode a target may be missing; one that seems to be meant is not dropped."""
    path = tmp_path / "a.jsonl"
    for name, meant in (("taget", "target"), ("Target", "target"), ("summry", "summary")):
        write(path, json.dumps({"source": "a", "targets": ["x"]}) + "\n")
        with path.open("a") as file:
            file.write(json.dumps({"source": "b", name: "y"}))
        message = f"a.jsonl, line 2: the field '{name}' .* '{meant}'"
        for training in (True, False):
            with pytest.raises(UserError, match=message):
                read(path, training=training)
    write(path, json.dumps({"source": "b", "text": "y", "id": 1}))
    assert read(path, training=False) == [("b", None)]
    write(path, json.dumps({"source": "b", "target": "1", "targets": ["2"]}))
    for training in (True, False):
        with pytest.raises(UserError, match="line 1: there are both 'target' and 'targets'"):
            read(path, training=training)
    assert read(path, columns=Columns(target="targets")) == [("b", "2")]
    write(tmp_path / "a.csv", "source,target,target\na,b,c\n")
    with pytest.raises(UserError, match=r"a.csv, line 1: 'target' comes 2 times"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("value", [None, 5, ["a"], {"a": 1}, True, 1e400])
def test_a_source_that_is_no_text(tmp_path: Path, value: Any) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"source": value, "target": "b"}))
    for skip in (False, True):  # what is no text is not an empty text
        with pytest.raises(UserError, match=r"a.jsonl, line 1: the source is missing or empty"):
            read(path, skip_empty=skip)
    if not isinstance(value, list):
        write(path, json.dumps({"source": "a", "target": value}))
        with pytest.raises(UserError, match=r"a.jsonl, line 1: the target is missing or empty"):
            read(path)


def test_empty_sources_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "train.source", "a\n\n \nd\n")
    write(tmp_path / "train.target", "1\n2\n\n4\n")
    with pytest.raises(UserError, match=r"line 2: the source is missing .* --empty_sources skip"):
        read(tmp_path)
    assert read(tmp_path, skip_empty=True) == [("a", "1"), ("d", "4")]
    assert "train.source: left out 2 of 4 records, whose source is empty" in capsys.readouterr().out
    write(tmp_path / "train.target", "1\n2\n3\n\n")
    with pytest.raises(UserError, match=r"train.target, line 4: the target is missing"):
        read(tmp_path, skip_empty=True)
    table = write(tmp_path / "a.csv", 'source,target\n"",x\nb,y\n')
    assert read(table, skip_empty=True) == [("b", "y")]
    write(table, 'source,target\n"",x\n')
    with pytest.raises(UserError, match=r"a.csv: the train split has no records"):
        read(table, skip_empty=True)


def test_flags_that_this_kind_of_data_would_ignore(tmp_path: Path) -> None:
    write(tmp_path / "train.source", "a\n")
    write(tmp_path / "train.target", "b\n")
    lines = write(tmp_path / "a.txt", "a||b\n")
    for data in (tmp_path, lines):
        with pytest.raises(UserError, match=r"--source_column zz: .* has no columns; leave it out"):
            read(data, columns=Columns("zz"))
        with pytest.raises(UserError, match="--target_column zz"):
            read(data, columns=Columns(target="zz"))
    with pytest.raises(UserError, match=r"--dataset_config 3.0.0: .* is a file and has none"):
        read(write(tmp_path / "a.csv", "source,target\na,b\n"), config="3.0.0")


def test_characters(tmp_path: Path) -> None:
    """A byte order mark, bare carriage returns, half an emoji, text in UTF-16 are told apart."""
    mark = "\ufeff"
    write(tmp_path / "train.source", f"{mark}a\rb\r")
    write(tmp_path / "train.target", f"{mark}1\r2\r")
    assert read(tmp_path) == [("a", "1"), ("b", "2")]
    path = tmp_path / "a.jsonl"
    half = r'"\ud83d half"'
    write(path, f'{mark}{{"source": {half}, "target": "x"}}\n')
    assert read(path) == [("\ufffd half", "x")]
    write(tmp_path / "a.csv", f"{mark}source,target\ra,b\r")
    assert read(tmp_path / "a.csv") == [("a", "b")]
    write(path, '{"source": "a", "target": "b"}'.encode("utf-16"))
    with pytest.raises(UserError, match=r"a.jsonl, line 1: not UTF-8"):
        read(path)


def test_e2e_lines(tmp_path: Path) -> None:
    write(tmp_path / "src1_valid.txt", "name : x||text . \nname : y||more . \n")
    assert read(tmp_path, "val") == [("name : x", "text . "), ("name : y", "more . ")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"source": "a"\n', "a.jsonl, line 1: not JSON"),
        ("a.jsonl", '["a"]\n', "a.jsonl, line 1: expected an object"),
        ("a.jsonl", '{"source": 1, "target": "b"}\n', "a.jsonl, line 1: the source is missing"),
        ("a.jsonl", '{"source": "a", "targets": []}\n', "a.jsonl, line 1: the target is missing"),
        ("a.jsonl", '{"source": "a", "target": null}\n', "a.jsonl, line 1: the target is missing"),
        ("a.csv", "source,target\na\n", "a.csv, line 2: 1 columns, the header has 2"),
        ("a.csv", "source,target\na,b\na,b,c\n", "a.csv, line 3: 3 columns, the header has 2"),
        ("a.csv", 'source,target\na,"b\n', "a.csv, line 2: not a table"),
        ("a.csv", "source,target\n", "the train split has no records"),
        ("a.csv", "", "the train split has no records"),
        ("a.txt", "a||b\nno separator\n", "a.txt, line 2: expected SOURCE||TARGET"),
        ("a.xml", "<a>", "a.xml: give a folder, or a file ending in one of .csv, .tsv, .json"),
    ],
)
def test_malformed_tables(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read(write(tmp_path / name, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds none of val\.source, val\.jsonl, val\.csv, src1_v"):
        read(tmp_path, "val")
    with pytest.raises(UserError, match="no such file or folder"):
        read(tmp_path / "a" / "b")
    with pytest.raises(UserError, match=r"train\.csv: there is no such file"):
        read(Path("train.csv"))


def test_a_document_longer_than_128_kib(tmp_path: Path) -> None:
    ((source, _),) = read(write(tmp_path / "a.csv", f"text,summary\n{'word ' * 40_000},s\n"))
    assert len(source) == 200_000


def test_real_pairs(shared: Path) -> None:
    found = read_split(shared / "data/xsum/xsum_test_500.csv", "test", training=True)
    assert len(found) == 500
    assert found[0].source.startswith("Prison Link Cymru had 1,099 referrals in 2015-16 and said")
    assert all("\n" not in r.source and len(r.source) > len(r.target or "") for r in found)
    # Physical lines: an editor's line number, although documents span lines.
    assert found[0].where.endswith("xsum_test_500.csv, line 2")
    text = (shared / "data/xsum/xsum_test_500.csv").read_text("utf-8").split("\n")
    for record in found[1::50]:
        line = int(record.where.rsplit(" ", 1)[1])
        assert record.source[:20] in text[line - 1]


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(name: str, config: str | None, split: str) -> datasets.Dataset:
        calls.append((name, config, split))
        return datasets.Dataset.from_dict({"article": ["a\nb", ""], "highlights": ["c", "d"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match="abisee/cnn_dailymail, validation row 2: the source is"):
        read_split("abisee/cnn_dailymail", "val", training=True, config="3.0.0")
    assert calls == [("abisee/cnn_dailymail", "3.0.0", "validation")]


def test_a_hub_that_does_not_answer() -> None:
    with pytest.raises(UserError, match="xsum is neither a file or folder here nor to be had"):
        read_split("EdinburghNLP/xsum", "train", training=True)


# Batches.


def test_batch(bart_tokenizer: PreTrainedTokenizerFast) -> None:
    vocabulary = bart_tokenizer.get_vocab()
    a, b, c = (vocabulary[word] for word in ("is", "in", "the"))
    pairs = [Record("is in the", "the in", ""), Record("in", "is", ""), Record("the", "in", "")]
    data = Seq2SeqDataset(bart_tokenizer, pairs, max_source_length=4, max_target_length=9)
    assert data[1] == {"src_texts": "in", "tgt_texts": "is", "id": 1}
    batch = data.collate_fn([data[0], data[1]])
    assert {k: v.tolist() for k, v in batch.items()} == {
        "input_ids": [[0, a, b, 2], [0, b, 2, 1]],  # cut to four, the end token kept
        "attention_mask": [[1, 1, 1, 1], [1, 1, 1, 0]],
        "labels": [[0, c, b, 2], [0, a, 2, 1]],
        "ids": [0, 1],
    }
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    assert data.token_lengths() == [4, 3, 3]
    assert data.src_lens == [9, 2, 3]


@pytest.mark.parametrize(("n_obs", "count"), [(None, 5), (-1, 5), (2, 2), (9, 5)])
def test_first_examples(
    bart_tokenizer: PreTrainedTokenizerFast, n_obs: int | None, count: int
) -> None:
    data = Seq2SeqDataset(bart_tokenizer, records(5), 8, 8, n_obs=n_obs, prefix="summarize: ")
    assert [data[i]["src_texts"] for i in range(len(data))] == [
        f"summarize: r {i}" for i in range(count)
    ]
    assert data.src_lens == [len("summarize: r 0")] * count


def test_no_labels_without_targets(bart_tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = [Record("is in", None, ""), Record("in", "is in the", "")]
    data = Seq2SeqDataset(bart_tokenizer, pairs, 8, 8)
    assert sorted(data.collate_fn([data[1]])) == ["attention_mask", "ids", "input_ids"]
    assert data.token_lengths() == [4, 3]


def test_token_lengths_over_chunks(bart_tokenizer: PreTrainedTokenizerFast) -> None:
    """Against the widths of batches of one, over more than the thousand encoded at once."""
    pairs = read_split(ROOT / "data/restaurants/src1_train.txt", "train", training=True)[:1010]
    data = Seq2SeqDataset(bart_tokenizer, pairs, max_source_length=30, max_target_length=40)
    lengths = data.token_lengths()
    assert len(lengths) == 1010
    for i in [0, 1, 999, 1000, 1009]:
        batch = data.collate_fn([data[i]])
        assert lengths[i] == max(batch["input_ids"].shape[1], batch["labels"].shape[1])
    assert 30 < max(lengths) <= 40


def test_token_batches_of_a_data_set(bart_tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = read_split(ROOT / "data/restaurants/src1_valid.txt", "val", training=True)
    data = Seq2SeqDataset(bart_tokenizer, pairs, max_source_length=40, max_target_length=40)
    sampler = TokenBatchSampler(data.token_lengths(), max_tokens=300)
    seen: list[int] = []
    for batch in DataLoader(data, batch_sampler=sampler, collate_fn=data.collate_fn):
        assert max(batch["input_ids"].numel(), batch["labels"].numel()) <= 300
        seen += batch["ids"].tolist()
    assert sorted(seen) == list(range(len(pairs)))


def test_languages(bart_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="--src_lang: the tokenizer of this model has no languages"):
        Seq2SeqDataset(bart_tokenizer, records(1), 8, 8, src_lang="en_XX")
    with pytest.raises(UserError, match="--tgt_lang"):
        Seq2SeqDataset(bart_tokenizer, records(1), 8, 8, tgt_lang="ro_RO")
    mbart = MBartTokenizer()  # no words, but all the languages
    data = Seq2SeqDataset(mbart, records(1), 8, 8, src_lang="en_XX", tgt_lang="ro_RO")
    batch = data.collate_fn([data[0]])
    end = mbart.eos_token_id
    english, romanian = mbart.convert_tokens_to_ids(["en_XX", "ro_RO"])
    assert batch["input_ids"][0, -2:].tolist() == [end, english]
    assert batch["labels"][0, -2:].tolist() == [end, romanian]


@pytest.mark.parametrize("end", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_ones_own_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str) -> None:
    rows = [{"instruction": "Say", "input": "1, 2", "output": "three"}]
    path = tmp_path / f"train{end}"
    if end == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif end in (".json", ".jsonl"):
        path.write_text(json.dumps(rows if end == ".json" else rows[0]), encoding="utf-8")
    else:
        tab = "\t" if end == ".tsv" else ","
        quoted = [f'"{value}"' for value in rows[0].values()]
        path.write_text(f"{tab.join(rows[0])}\n{tab.join(quoted)}\n", encoding="utf-8")
    assert read(tmp_path) == read(path) == [("Say 1, 2", "three")]
    assert "the source is 'instruction' and 'input', the target 'output'" in capsys.readouterr().out


def test_a_chat_ends_with_its_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [("user", "One?"), ("assistant", "1"), ("user", "Two,\nthen?"), ("assistant", "2")]
    chats = [
        {"messages": [{"role": role, "content": text} for role, text in turns[:n]]} for n in (2, 4)
    ]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(chats), encoding="utf-8")
    before = "user: One? assistant: 1 user: Two, then?"
    assert read(path) == [("One?", "1"), (before, "2")]
    assert "'messages' is a chat, its last answer the target" in capsys.readouterr().out
    path.write_text(json.dumps([{"messages": chats[1]["messages"][:3]}]), encoding="utf-8")
    (waiting,) = read_split(path, "test", False)
    assert (waiting.source, waiting.target) == (before, None)
    answered = {"messages": chats[1]["messages"][:3], "targets": ["2", "two"]}
    path.write_text(json.dumps([answered]), encoding="utf-8")
    assert read(path) == [(before, "2"), (before, "two")]
