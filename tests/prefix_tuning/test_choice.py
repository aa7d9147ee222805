"""Choosing a parametrisation by name, and what its options may be."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from low_rank import LowRankPrefix
from transformers import GPT2Config

from prefix_tuning.choice import (
    ChosenPrefix,
    build,
    check_independent,
    own_options,
    parse_options,
)
from prefix_tuning.errors import UserError
from prefix_tuning.names import BUILT_IN
from prefix_tuning.parametrizations import PARAMETRIZATIONS, FlatPrefix, MLPPrefix
from prefix_tuning.prefix import Prefix
from prefix_tuning.shape import PrefixShape

SHAPE = PrefixShape(n_layer=2, n_head=3, head_dim=4, width=12)


@pytest.fixture(autouse=True)
def _low_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARAMETRIZATIONS, "low_rank", LowRankPrefix)


def test_the_names_known_without_torch_are_those_of_the_table() -> None:
    assert {*BUILT_IN} <= {*PARAMETRIZATIONS}
    assert all(cls.__module__.startswith("prefix_tuning") for cls in map(_class, BUILT_IN))


def _class(name: str) -> type[Any]:
    return PARAMETRIZATIONS[name]


def test_options_are_typed_by_the_constructor() -> None:
    assert own_options("low_rank") == {"rank": int, "scale": float, "ones": bool}
    assert own_options("mlp") == {"mid_dim": int, "deep": bool}
    assert own_options("flat") == {}
    found = parse_options("low_rank", "rank=4, scale=0.5,ones=yes")
    assert found == {"rank": 4, "scale": 0.5, "ones": True}
    assert type(parse_options("low_rank", "scale=2")["scale"]) is float
    assert parse_options("low_rank", None) == parse_options("flat", "") == {}


def test_without_annotations_the_defaults_say_the_type(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(Prefix):
        def __init__(self, shape, length, rank=8, kind="a", base: float | None = None):  # type: ignore[no-untyped-def]
            super().__init__(shape, length)

    monkeypatch.setitem(PARAMETRIZATIONS, "bare", Bare)
    assert parse_options("bare", "rank=3,kind=b,base=1") == {"rank": 3, "kind": "b", "base": 1.0}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("low_rank", "rnk=4", "rnk: not of .* low_rank; its options are rank, scale, ones"),
        ("low_rank", "length=4", "length: not of"),
        ("flat", "rank=4", "rank: not of the parametrisation flat; it has no options"),
        ("low_rank", "rank=four", "rank=four: write a whole number"),
        ("low_rank", "rank=4.5", "write a whole number"),
        ("low_rank", "scale=nan", "scale=nan: write a number"),
        ("low_rank", "ones=1", "ones=1: write yes or no"),
        ("low_rank", "rank", "write option=value"),
        ("low_rank", "rank=4,rank=5", "given twice"),
        ("mlp", "mid_dim=0", "mid_dim=0: must be from 1 to 1048576"),
        ("lora", "rank=4", "--parametrization lora: use one of mlp, flat"),
    ],
)
def test_mistakes_are_one_sentence(name: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_options(name, text)


def test_every_parametrisation_takes_the_shared_options_that_it_has() -> None:
    shared = {"length": 3, "dropout": 0.25, "mid_dim": 5, "deep": True, "sites": ("self",)}
    mlp, flat = build("mlp", SHAPE, shared, {}), build("flat", SHAPE, shared, {})
    assert mlp.options() == {**shared, "sites": ["self"]}
    assert flat.options() == {"length": 3, "dropout": 0.25, "sites": ["self"]}
    assert build("mlp", SHAPE, shared, {"mid_dim": 7}).options()["mid_dim"] == 7


def test_what_a_constructor_refuses_names_the_parametrisation() -> None:
    with pytest.raises(UserError, match="low_rank: add --prefix_options rank="):
        build("low_rank", SHAPE, {"length": 3}, {})
    with pytest.raises(UserError, match="--parametrization low_rank: rank 0: must be at least 1"):
        build("low_rank", SHAPE, {"length": 3}, {"rank": 0})
    with pytest.raises(UserError, match="embedding: its constructor takes no sites"):
        build("embedding", SHAPE, {"length": 3, "sites": ("self", "encoder")}, {})
    with pytest.raises(UserError, match=r"infix: the frozen model takes part .* not with BART"):
        check_independent("infix", "BART")


def test_what_a_parametrisation_can_follows_from_its_methods() -> None:
    classes = {name: PARAMETRIZATIONS[name] for name in (*BUILT_IN, "low_rank")}
    assert {name for name, cls in classes.items() if cls.can_start} == {"mlp", "flat"}
    assert {name for name, cls in classes.items() if cls.uses_model} == {"embedding", "infix"}
    assert {name for name, cls in classes.items() if cls.reads_source} == {"infix"}


def test_a_configuration_serves_as_a_shape() -> None:
    config = GPT2Config(n_embd=12, n_layer=2, n_head=3)
    for name in BUILT_IN:
        assert PARAMETRIZATIONS[name](config, length=2).shape == SHAPE
    torch.manual_seed(0)
    one = MLPPrefix(config, length=2, mid_dim=4)
    torch.manual_seed(0)
    other = MLPPrefix(SHAPE, length=2, mid_dim=4)
    assert torch.equal(one.slots(), other.slots())


class Named(ChosenPrefix):
    """A class as the originals have it."""

    def __init__(self, name: str, **options: Any) -> None:
        self.choose(name, SHAPE, {"length": 3}, options)

    def count(self) -> int:
        return sum(p.numel() for p in self.parameters())


def test_one_class_is_a_prefix_of_any_parametrisation() -> None:
    mlp, flat, low = Named("mlp", mid_dim=4), Named("flat"), Named("low_rank", rank=2)
    assert isinstance(mlp, MLPPrefix)
    assert isinstance(flat, FlatPrefix)
    assert [type(p).__qualname__ for p in (mlp, flat, low)] == ["Named"] * 3
    assert flat.count() == 3 * SHAPE.features
    assert low.count() == 2 * (3 + SHAPE.features)
    assert "wte.weight" in mlp.state_dict()  # not inside another module
    again = Named.of(low)
    assert isinstance(again, Named)
    assert not again.training
    assert torch.equal(again.slots(), low.slots())
    assert torch.equal(copy.deepcopy(low).slots(), low.slots())


def test_layers_and_slots_by_hand() -> None:
    slots = torch.arange(5 * SHAPE.features).view(5, -1)
    layers = SHAPE.to_layers(slots)
    assert layers.shape == (2, 2, 3, 5, 4)
    for layer, pair, head, slot in ((0, 0, 0, 0), (0, 1, 2, 3), (1, 0, 1, 4), (1, 1, 2, 2)):
        at = ((layer * 2 + pair) * 3 + head) * 4
        assert torch.equal(layers[layer, pair, head, slot], slots[slot, at : at + 4])
    assert torch.equal(SHAPE.to_slots(layers), slots)
    rows = torch.stack([slots, slots + 1])
    assert torch.equal(SHAPE.to_layers(rows)[:, :, 1], SHAPE.to_layers(slots + 1))


@pytest.mark.parametrize("make", [build, lambda *args: ChosenPrefix.__new__(_Chosen).choose(*args)])
def test_a_prefix_with_nothing_to_train_is_refused(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(FlatPrefix):
        def __init__(self, shape: PrefixShape, length: int, rank: int = 8) -> None:
            super().__init__(shape, length)
            self.left = torch.nn.Parameter(torch.zeros(length, rank))

    monkeypatch.setitem(PARAMETRIZATIONS, "careless", Careless)
    make("careless", SHAPE, {"length": 2}, {"rank": 1})
    message = r"--parametrization careless: left has shape \[2, 0\]: an option is too small"
    with pytest.raises(UserError, match=message):
        make("careless", SHAPE, {"length": 2}, {"rank": 0})


class _Chosen(ChosenPrefix):
    pass
