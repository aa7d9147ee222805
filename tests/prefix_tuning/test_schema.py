"""Metadata of wrong types: one sentence at the door, and nothing is allocated before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model
from hypothesis import given
from hypothesis import strategies as st

from prefix_tuning import checkpoint, schema
from prefix_tuning.attention import enable_prefix
from prefix_tuning.errors import UserError
from prefix_tuning.parametrizations import MLPPrefix

WRONG: list[Any] = [None, 5, -1, 0, 10**12, 0.5, True, "x", "", [], [5], {}, {"a": None}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A checkpoint and an export, and the base model."""
    root = tmp_path_factory.mktemp("prefix")
    model = enable_prefix(tiny_model("gpt2").requires_grad_(False))
    prefix = MLPPrefix(model.config, length=3, mid_dim=4)
    meta = checkpoint.metadata(prefix, model, "base", task={"separator": "=", "labels": None})
    checkpoint.save(root / "checkpoint", prefix, model.config.to_dict(), meta)
    checkpoint.export(root / "export", prefix, meta)
    return root, model


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def with_value(whole: Any, path: tuple[Any, ...], value: Any) -> Any:
    whole = json.loads(json.dumps(whole))
    at = whole
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return whole


@pytest.mark.parametrize("kind", ["checkpoint", "export"])
def test_any_wrong_value_is_accepted_or_one_sentence(
    folders: tuple[Path, Any], kind: str, tmp_path: Path
) -> None:
    root, model = folders
    shutil.copytree(root / kind, tmp_path / "p")
    file = tmp_path / "p" / ("config.json" if kind == "checkpoint" else "prefix.json")
    whole = json.loads(file.read_text(encoding="utf-8"))
    start = (checkpoint.META,) if kind == "checkpoint" else ()
    ours = whole[checkpoint.META] if start else whole
    refusals = []
    for path in [*([start] if start else []), *((*start, *p) for p in places(ours))]:
        for value in WRONG:
            file.write_text(json.dumps(with_value(whole, path, value)), encoding="utf-8")
            try:
                checkpoint.load(tmp_path / "p", model)
            except UserError as error:
                refusals.append(str(error))
    if kind == "export":  # whose slots are read, whatever made them, and no other option
        unknown = {**whole, "parametrization": "x"}
        for options in ({}, {"length": "a"}, {"length": 3, "sites": []}):
            file.write_text(json.dumps({**unknown, "options": options}), encoding="utf-8")
            with pytest.raises(UserError, match="options"):
                checkpoint.load(tmp_path / "p", model)
        own = {"length": 3, "deep": "very", "mid_dim": 0}
        file.write_text(json.dumps({**unknown, "options": own}), encoding="utf-8")
        assert checkpoint.load(tmp_path / "p", model)[0].length == 3
        del whole["options"]
        file.write_text(json.dumps(whole), encoding="utf-8")
        with pytest.raises(UserError, match="options lacks length: copy the folder again"):
            checkpoint.load(tmp_path / "p", model)
    assert len(refusals) > 100
    assert all(str(tmp_path / "p") in refusal for refusal in refusals)


@pytest.mark.parametrize("name", ["length", "mid_dim"])
def test_sizes_that_fit_no_memory_are_refused_before_anything_is_made(
    folders: tuple[Path, Any], name: str, tmp_path: Path
) -> None:
    shutil.copytree(folders[0] / "checkpoint", tmp_path / "p")
    file = tmp_path / "p" / "config.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    for size, says in ((10**12, "from 1 to 1048576"), (2**20, "has shape"), (0, "from 1")):
        changed = with_value(whole, (checkpoint.META, "options", name), size)
        file.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(UserError, match=says):
            checkpoint.load(tmp_path / "p")


NAMES = [field.name for field in schema.fields(schema.Options)]
VALUES = [*WRONG, 3, 0.0, 0.9, 1.0, float("nan"), "self", ["self"], ["other"], False, 10**400]


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES)))
def test_what_is_read_has_the_types_of_its_fields(value: dict[str, Any]) -> None:
    try:
        read = schema.from_json(schema.Options, value, "file.json")
    except UserError:
        return
    assert type(read.length) is int
    assert 1 <= read.length <= schema.LARGEST
    assert 0 <= read.dropout < 1
    assert type(read.deep) is bool
    assert set(read.sites) <= {"self", "encoder", "encoder_decoder"}


@pytest.mark.parametrize(
    ("config", "state"),
    [
        ({"n_layer": "x"}, {}),
        ({"model_type": ["gpt2"]}, {}),
        ({"n_head": 0}, {}),
        ({}, {"wte.weight": torch.tensor(1.0)}),
        ({}, {"control_trans": torch.zeros(1, 2, 3, 4, 5)}),
        ({}, {"wte.weight": 5}),
        ({}, [torch.zeros(2)]),
        ({}, {"wte.weight": torch.zeros(3, 7), "control_trans.0.weight": torch.zeros(2)}),
    ],
)
def test_originals_with_wrong_shapes_are_refused(
    tmp_path: Path, config: dict[str, Any], state: Any
) -> None:
    plain = {"model_type": "gpt2", "preseqlen": 3, "n_layer": 2, "n_head": 2, "n_embd": 4}
    text = json.dumps({**plain, **config})
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=str(tmp_path)):
        checkpoint.load(tmp_path)


class _Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was run",))


def test_a_pickle_is_refused_in_our_words(tmp_path: Path) -> None:
    torch.save({"wte.weight": _Payload()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="never loaded") as error:
        checkpoint.read_tensors(tmp_path / "pytorch_model.bin")
    assert "weights_only" not in str(error.value)
