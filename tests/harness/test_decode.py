"""Decoding in batches, and going on with it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.decode import (
    Identity,
    batches_by_length,
    claim,
    decode_by_length,
    decode_resumably,
    publish,
)


@given(
    st.lists(st.integers(1, 5), max_size=30),
    st.integers(1, 7),
    st.sets(st.integers(0, 40)),
    st.booleans(),
)
def test_batches_hold_everything_that_is_left(
    lengths: list[int], size: int, skip: set[int], one_length: bool
) -> None:
    batches = list(batches_by_length(lengths, size, skip, one_length))
    decoded = [i for batch in batches for i in batch]
    assert sorted(decoded) == [i for i in range(len(lengths)) if i not in skip]
    falling = [lengths[i] for i in decoded]
    assert falling == sorted(falling, reverse=True)
    for batch in batches:
        assert 1 <= len(batch) <= size
        assert not one_length or len({lengths[i] for i in batch}) == 1


def identity(folder: Path, prompts: Sequence[str] = ("a", "b"), beams: int = 5) -> dict:
    return Identity(folder, prompts, {"num_beams": beams}, "float32", {"length": 9}).settings()


def test_an_identity_sees_weights_prompts_search_and_precision(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"123")
    first = identity(tmp_path)
    assert json.loads(json.dumps(first)) == first == identity(tmp_path)
    assert identity(tmp_path, ("a b",)) != first
    assert identity(tmp_path, beams=4) != first
    assert Identity(tmp_path, ("a", "b"), {"num_beams": 5}, "float16").settings() != first
    made_by = owner(tmp_path)
    for changes in ({"precision": "float16"}, {"references": ["r"]}, {"parts": {"p": tmp_path}}):
        given: dict[str, Any] = {"precision": "float32", **changes}
        assert Identity(tmp_path, ("a",), {"num_beams": 5}, **given).owner() != made_by, changes
    os.utime(weights, ns=(1, 1))
    assert identity(tmp_path) != first


def test_a_stopped_decode_goes_on(tmp_path: Path) -> None:
    texts, asked = ["one", "two\u2028", "three", "four"], []

    def run(stop: int | None, skip: Sequence[int]) -> Iterator[tuple[int, str]]:
        def decode(indices: list[int]) -> list[str]:
            if len(asked) == stop:
                raise KeyboardInterrupt
            asked.append(indices)
            return [texts[i] for i in indices]

        return decode_by_length([3, 9, 5, 4], 1, skip, decode)

    path, settings = tmp_path / "x.partial", {"search": [1, 2]}
    with pytest.raises(KeyboardInterrupt):
        decode_resumably(path, settings, 4, lambda skip: run(2, skip))
    with path.open("a", encoding="utf-8") as file:
        file.write('[0, "cut o')
    assert decode_resumably(path, settings, 4, lambda skip: run(None, skip)) == texts
    assert asked == [[1], [2], [3], [0]]
    assert decode_resumably(path, settings, 4, lambda skip: run(None, skip)) == texts
    assert len(asked) == 4
    decode_resumably(path, {"search": [1, 3]}, 4, lambda skip: run(None, skip))
    assert len(asked) == 8


def test_every_text_is_on_the_disk_before_the_next_is_asked_for(tmp_path: Path) -> None:
    """A kill loses the text that is being made, and no other; half a line is cut off first."""
    path, settings = tmp_path / "x.partial", {"search": 1}
    path.write_text('{"search": 1}\n[2, "two"]\n[0, "cut o', encoding="utf-8")

    def run(skip: Sequence[int]) -> Iterator[tuple[int, str]]:
        found = {2: "two"}
        assert list(skip) == [2]
        for index, text in ((1, "a\u2028\ud83d"), (3, "\r\n"), (0, "")):
            head, *lines = path.read_bytes().decode().split("\n")[:-1]
            assert path.read_bytes().endswith(b"\n")
            assert json.loads(head) == settings
            assert dict(json.loads(line) for line in lines) == found
            found[index] = text
            yield index, text

    assert decode_resumably(path, settings, 4, run) == ["", "a\u2028\ud83d", "two", "\r\n"]


@pytest.mark.parametrize("damage", ["[0, \n", "[]\n", '{"search": 2}\n'])
def test_texts_that_cannot_be_trusted_are_made_again(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.partial"
    path.write_text(damage + '[0, "old"]\n', encoding="utf-8")
    assert decode_resumably(path, {"search": 1}, 1, lambda skip: iter([(0, "new")])) == ["new"]


def test_damaged_lines_of_a_stopped_decode_are_decoded_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, asked = tmp_path / "x.partial", []
    bad = [b"5", b"[0, 5]", b'["0", "a"]', b'[9, "beyond"]', b'[1, "\xff"]', b"[[[", b'[true, "a"]']
    path.write_bytes(b"\n".join([b'{"a": 1}', b'[2, "two"]', *bad, b""]))

    def run(skip: Sequence[int]) -> Iterator[tuple[int, str]]:
        asked.extend(skip)
        return iter([(0, "zero"), (1, "one")])

    assert decode_resumably(path, {"a": 1}, 3, run) == ["zero", "one", "two"]
    assert asked == [2]
    assert "damaged lines: 7" in capsys.readouterr().out
    for first in (b"\xff\xfe", b"[", b"", b"5"):
        path.write_bytes(first + b'\n[2, "two"]\n')
        asked.clear()
        whole = decode_resumably(path, {"a": 1}, 2, run)
        assert (whole, asked) == (["zero", "one"], [])


def owner(folder: Path, prompts: Sequence[str] = ("a",), beams: int = 5) -> dict[str, object]:
    return Identity(folder, prompts, {"num_beams": beams}, "float32").owner()


def test_outputs_belong_to_what_made_them(tmp_path: Path) -> None:
    for name, content in (("one", b"1"), ("copy", b"1"), ("two", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "prefix.safetensors").write_bytes(content)
    stem = tmp_path / "export_test"

    def decode(made_by: dict[str, object], suffix: str = "beam", overwrite: bool = False) -> str:
        chosen = claim(stem, suffix, made_by, overwrite)
        output = chosen.with_name(f"{chosen.name}_{suffix}")
        publish(output, made_by)
        output.write_text("texts", encoding="utf-8")
        return output.name

    assert decode(owner(tmp_path / "one")) == "export_test_beam"
    assert decode(owner(tmp_path / "copy")) == "export_test_beam"
    assert decode(owner(tmp_path / "two")) == "export-2_test_beam"
    assert decode(owner(tmp_path / "two")) == "export-2_test_beam"
    assert decode(owner(tmp_path / "one", ("b",))) == "export-3_test_beam"
    assert decode(owner(tmp_path / "one", beams=1), "greedy") == "export_test_greedy"
    # Its references would replace those of the texts of beam search.
    assert decode(owner(tmp_path / "one", ("c",), 1), "greedy") == "export-4_test_greedy"
    assert decode(owner(tmp_path / "two"), overwrite=True) == "export_test_beam"
    (tmp_path / "export-5_test_beam").write_text("of an older version", encoding="utf-8")
    assert decode(owner(tmp_path / "one", ("d",))) == "export-6_test_beam"
    stem = tmp_path / "my run [1]_test"  # no pattern
    assert decode(owner(tmp_path / "one")) == "my run [1]_test_beam"
    assert decode(owner(tmp_path / "two")) == "my run [1]-2_test_beam"


@pytest.mark.parametrize("n_text", [1, 3])
def test_a_batch_has_as_many_texts_as_indices(n_text: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        [*decode_by_length([4, 4], 2, [], lambda batch: ["x"] * n_text)]


def test_what_the_memory_does_not_hold_is_decoded_in_parts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[int] = []

    def decode(batch: list[int]) -> list[str]:
        asked.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [str(i) for i in batch]

    found = dict(decode_by_length([1] * 17, 8, [2], decode))
    assert found == {i: str(i) for i in range(17) if i != 2}
    assert asked == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert "not enough memory for 8 texts at once; now 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("size", "error"),
    [(1, torch.OutOfMemoryError("CUDA out of memory")), (2, RuntimeError("shapes differ"))],
)
def test_one_text_that_does_not_fit_and_other_errors_are_raised(
    size: int, error: RuntimeError
) -> None:
    def decode(batch: list[int]) -> list[str]:
        raise error

    with pytest.raises(type(error), match=str(error)):
        [*decode_by_length([1, 1], size, [], decode)]
