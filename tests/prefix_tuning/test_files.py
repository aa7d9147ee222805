"""Files: read the same way by everybody, written whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import stat
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from prefix_tuning import files
from prefix_tuning.errors import UserError
from prefix_tuning.files import let_read, replacing


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
    path = save(tmp_path / "a.json", '{"\\ud83d": 1}')
    assert files.read_json(path) == {"\ufffd": 1}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_that_is_not_utf8_is_named_with_its_line(tmp_path: Path, end: str) -> None:
    path = save(tmp_path / "a.txt", f"one{end}two{end}t".encode() + b"\xff" + end.encode())
    with pytest.raises(UserError, match=r"a.txt, line 3: not UTF-8 text \(byte 0xff\)"):
        files.read_text(path)


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


@given(st.lists(st.text(max_size=3), min_size=1), st.integers(0, 2))
def test_no_name_of_an_object_or_a_table_comes_twice(names: list[str], depth: int) -> None:
    """Of two values of one name a reader would keep one and say nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        pairs = ", ".join(f"{json.dumps(name)}: {i}" for i, name in enumerate(names))
        save(path, '{"in": [' * depth + "{" + pairs + "}" + "]}" * depth)
        with path.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([names, names])
        for read in (
            lambda: files.read_json(path),
            lambda: [*files.read_csv(path.with_suffix(".csv"))],
        ):
            if len({*names}) == len(names):
                read()
            else:
                with pytest.raises(UserError, match="comes"):
                    read()


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a name without content would stand for what was complete before."""
    path, done = tmp_path / "a.txt", []
    files.write_text(path, "old\n")
    synced, replaced = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        found = os.readlink(f"/proc/self/fd/{descriptor}")
        done.append(("sync", Path(found).read_text(), path.read_text()))
        synced(descriptor)

    def replace(source: Path, target: Path) -> None:
        assert Path(source).parent == Path(target).parent, "a rename within one file system"
        done.append(("replace", Path(source).read_text(), path.read_text()))
        replaced(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    files.write_text(path, "new\n")
    assert done[:2] == [("sync", "new\n", "old\n"), ("replace", "new\n", "old\n")]
    assert path.read_text() == "new\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_reader_takes_every_line_end_and_a_byte_order_mark(
    tmp_path: Path, end: str, mark: str
) -> None:
    path = tmp_path / "a"

    def text(*rows: str) -> Path:
        return save(path, mark + end.join(rows) + end)

    assert [line for line, _ in files.numbered_lines(text("é", "", "b\u2028c\x0b"))] == [
        *("é", "", "b\u2028c\x0b")
    ]
    assert files.read_json(text("{", '"a": 1', "}")) == {"a": 1}
    assert [value for value, _ in files.read_json_lines(text("1", "", "[2]"))] == [1, [2]]
    assert [row for row, _ in files.read_csv(text("a,b", '"x ""y""",2'))] == [
        ["a", "b"],
        ['x "y"', "2"],
    ]


def test_a_line_end_within_a_cell_stays_as_it_is(tmp_path: Path) -> None:
    path = save(tmp_path / "a.csv", 'a,b\r\n"x\ry\r\nz\n",1\r\n')
    assert [row for row, _ in files.read_csv(path)][1] == ["x\ry\r\nz\n", "1"]


def test_what_is_written_has_one_kind_of_line_end(tmp_path: Path) -> None:
    for lines in (["old"], ["é", "b\u2028c"]):
        path = files.write_lines(tmp_path / "very" / "deep" / "a.txt", lines)
    assert path.read_bytes() == "é\nb\u2028c\n".encode()


def test_what_a_library_keeps_private_has_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with replacing(tmp_path / "a.safetensors") as temporary:
            save_file({"a": torch.zeros(1)}, temporary)
        save_file({"a": torch.zeros(1)}, tmp_path / "b.safetensors")
        let_read(tmp_path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o644}


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old", encoding="utf-8")

    def refused() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        refused()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert path.read_text(encoding="utf-8") == "old"
