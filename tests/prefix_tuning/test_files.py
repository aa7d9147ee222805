"""Files: read the same way by everybody, written whole or not at all."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from prefix_tuning import files
from prefix_tuning.errors import UserError


def save(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_mark_and_line_ends_are_not_part_of_a_text(tmp_path: Path) -> None:
    path = save(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\xe2\x80\xa8still two\n\nthree")
    assert [*files.numbered_lines(path)] == [
        ("one", f"{path}, line 1"),
        ("two\u2028still two", f"{path}, line 2"),
        ("", f"{path}, line 3"),
        ("three", f"{path}, line 4"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200_000, "nests too deeply"),
        ("9" * 5000, "too many digits"),
        ('{"a": ', "line 1: not JSON"),
    ],
)
def test_json_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        files.read_json(save(tmp_path / "a.json", text))
    with pytest.raises(UserError, match=message):
        [*files.read_json_lines(save(tmp_path / "a.jsonl", text + "\n"))]


def test_half_an_emoji_is_replaced_and_a_whole_one_kept(tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", '{"a": ["\\ud83d", "\\ud83d\\ude00", "plain"]}')
    assert files.read_json(path) == {"a": ["\ufffd", "\U0001f600", "plain"]}
    files.read_json(path)["a"][0].encode()


def test_long_cells_leave_no_setting_behind(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = save(tmp_path / "a.csv", "source,target\na," + "x" * 200_000 + "\n")
    rows = [row for row, _ in files.read_csv(path)]
    assert (len(rows), len(rows[1][1]), csv.field_size_limit()) == (2, 200_000, before)


def test_a_row_is_named_by_the_line_where_it_begins(tmp_path: Path) -> None:
    path = save(tmp_path / "a.csv", 'a,b\n"x\ny",1\nz,2,3\n')
    with pytest.raises(UserError, match="line 4: 3 columns, the header has 2"):
        [*files.read_csv(path)]


def test_a_file_is_replaced_whole_or_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "\ud83d")
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize("text", ["a\rb c\r", "a\rb c", "\ufeffa\rb c\r"])
def test_lone_carriage_returns_end_the_lines_of_a_file_without_others(
    tmp_path: Path, text: str
) -> None:
    lines = [*files.numbered_lines(save(tmp_path / "a.txt", text))]
    assert lines == [("a", f"{tmp_path}/a.txt, line 1"), ("b c", f"{tmp_path}/a.txt, line 2")]


def test_a_carriage_return_within_a_line_stays(tmp_path: Path) -> None:
    path = save(tmp_path / "a.txt", "a\rb\nc\r\n")
    assert [line for line, _ in files.numbered_lines(path)] == ["a\rb", "c"]


def test_a_name_that_comes_twice_can_be_seen() -> None:
    names: list[str] = []

    def keep(pairs: files.Pairs) -> None:
        names.extend(name for name, _ in pairs)

    files.parse_json('{"a": 1, "a": 2}', "here", keep)
    assert names == ["a", "a"]
