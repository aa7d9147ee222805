"""One's own data: every format gives the same pairs, and what is unclear is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from harness.own_data import CHATS, PAIRS, Columns, Pair, pairs
from harness.own_files import is_own, read_rows
from prefix_tuning.errors import UserError

ROWS = [("What is 2 + 2?", 'Four, "4".'), ("Söme\nlines, commas", "A\tb")]


def read(path: Path, training: bool = True, **columns: str) -> list[Pair]:
    return list(pairs(read_rows(path), Columns(**columns), training, say=lambda _: None))


def texts(path: Path) -> list[tuple[str, ...]]:
    return [(pair.source, *pair.targets) for pair in read(path)]


def write(folder: Path, end: str, names: tuple[str, str]) -> Path:
    """The two rows in a format, written by the standard library or by pyarrow."""
    path = folder / f"train{end}"
    rows = [dict(zip(names, row, strict=True)) for row in ROWS]
    if end in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if end == ".tsv" else ",")
            writer.writerows([names, *ROWS])
    elif end == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif end == ".json":
        path.write_text(json.dumps({"version": "1", "data": rows}), encoding="utf-8")
    else:
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize("end", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_pairs(tmp_path: Path, end: str) -> None:
    path = write(tmp_path, end, ("question", "answer"))
    assert texts(path) == ROWS
    assert is_own(path)
    assert texts(tmp_path) == ROWS  # the folder's file of the split
    assert path.name in read(path)[1].where


@pytest.mark.parametrize("names", [n for n in PAIRS if n[1] != "targets"])
def test_columns_are_known_by_their_names(tmp_path: Path, names: tuple[str, str]) -> None:
    path = write(tmp_path, ".jsonl", names)
    said: list[str] = []
    found = list(pairs(read_rows(path), Columns(), True, said.append))
    assert [(pair.source, *pair.targets) for pair in found] == ROWS
    assert len(said) == ("source" not in names)
    if said:
        assert f"the source is {names[0]!r}, the target {names[1]!r}" in said[0]
    assert texts(write(tmp_path, ".csv", (names[0].title(), names[1].title()))) == ROWS


def test_columns_named_by_flags(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv", ("frage", "antwort"))
    with pytest.raises(UserError, match=r"train\.csv, line 2: which of frage, antwort are source"):
        read(path)
    assert [p.source for p in read(path, source="frage", target="antwort")] == [r[0] for r in ROWS]
    with pytest.raises(UserError, match=r"--target_column antwrt: .* did you mean antwort"):
        read(path, source="frage", target="antwrt")
    with pytest.raises(UserError, match="name two"):
        Columns("a", "a")


def jsonl(folder: Path, *rows: Any) -> Path:
    path = folder / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_an_instruction_and_its_input_are_the_source(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add.", "input": "1, 2", "output": "3"},
        {"instruction": "Say hi.", "input": "", "output": "hi"},
    ]
    assert texts(jsonl(tmp_path, *rows)) == [("Add.\n\n1, 2", "3"), ("Say hi.", "hi")]


def test_several_references_or_none(tmp_path: Path) -> None:
    rows = [{"question": "a", "answers": ["b", "c"]}, {"question": "d"}]
    (first, second) = read(jsonl(tmp_path, *rows), training=False)
    assert (first.targets, second.targets) == (("b", "c"), ())
    with pytest.raises(UserError, match=r"line 2: which of question"):
        read(jsonl(tmp_path, *rows))


@pytest.mark.parametrize("name", CHATS)
def test_every_turn_of_the_assistant_is_a_target(tmp_path: Path, name: str) -> None:
    roles = ("from", "value", "human", "gpt")
    if name == "messages":
        roles = ("role", "content", "user", "assistant")
    said = [("system", "Be kind."), (roles[2], "Hi"), (roles[3], "Hello!"), (roles[2], "2 + 2?")]
    turns = [{roles[0]: role, roles[1]: text} for role, text in said]
    full = [*turns, {roles[0]: roles[3], roles[1]: "4"}]
    first, second = read(jsonl(tmp_path, {name: full}))
    assert first.chat == (("system", "Be kind."), ("user", "Hi"))
    assert first.targets == ("Hello!",)
    assert second.chat == (*first.chat, ("assistant", "Hello!"), ("user", "2 + 2?"))
    assert second.targets == ("4",)
    *_, open_ended = read(jsonl(tmp_path, {name: turns}), training=False)
    assert (open_ended.chat, open_ended.targets) == (second.chat, ())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, "a chat is a list of"),
        ({"messages": [{"role": "user"}]}, "a message is not"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no turn of the assistant"),
        ({"source": "a", "taget": "b"}, "the field 'taget' is unknown: is 'target' meant?"),
        ({"prompt": "a", "completon": "b"}, "is 'completion' meant?"),
        ({"source": "a", "target": "b", "targets": ["c"]}, "both 'target' and 'targets'"),
        ({"question": 1, "answer": "b"}, "'question' is missing or empty"),
        ({"question": "a", "answer": None}, "a target is missing or empty"),
        ({"question": "a", "answer": ["b", 3]}, "a target is missing or empty"),
        (["a"], "expected an object"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read(jsonl(tmp_path, row))
    assert message in str(caught.value)
    assert "a.jsonl, line 1: " in str(caught.value)


def test_a_folder_that_the_package_datasets_saved(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": "a", "completion": "b"}]
    both = {
        "train": datasets.Dataset.from_list(rows),
        "validation": datasets.Dataset.from_list(rows * 2),
    }
    datasets.DatasetDict(both).save_to_disk(str(tmp_path / "saved"))
    assert texts(tmp_path / "saved") == [("a", "b")]
    assert len(list(read_rows(tmp_path / "saved", "valid"))) == 2
    with pytest.raises(UserError, match="has no split test: it has train, validation"):
        read_rows(tmp_path / "saved", "test")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "a.csv").write_text("x,x\n1,2\n", encoding="utf-8")
    for name, message in (
        ("a.parquet", "no parquet file"),
        ("a.csv", "'x' comes 2 times"),
        ("gone.csv", "no such file"),
        ("a.xml", "a file ending in one of .csv"),
    ):
        with pytest.raises(UserError, match=message):
            list(read_rows(tmp_path / name))
    with pytest.raises(UserError, match="nor to be had from the hub"):
        read_rows("nobody/has-this")
