"""JSON that says what a folder holds, checked once where it is read.

Fields that a class does not know are left alone: they belong to somebody else, or to a newer
version. What a class does know has the type and the size that it says.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from prefix_tuning.errors import UserError
from prefix_tuning.shape import PrefixShape

T = TypeVar("T")
LARGEST = 2**20
"""The largest length, width or count: a number above it is a mistake, and would fill the memory."""


def number(low: float, high: float, default: Any = MISSING) -> Any:
    """A field whose number lies from ``low`` to ``high``."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class BaseModel:
    """What a checkpoint keeps of its base model (:func:`prefix_tuning.fingerprint.describe`)."""

    model_type: str
    shape: PrefixShape
    name_or_path: str | None = None
    dtype: typing.Literal["float32", "float16", "bfloat16", "float64"] = "float32"
    fingerprint: dict[str, list[float]] | None = None


@dataclass(frozen=True)
class Task:
    """What a system notes of its task."""

    task_mode: str | None = None
    separator: str | None = None
    source_prefix: str | None = None
    spaces: str | None = None
    task_name: str | None = None
    dataset_name: str | None = None
    labels: list[str] | None = None
    src_lang: str | None = None
    tgt_lang: str | None = None
    max_source_length: int | None = number(1, LARGEST, None)


@dataclass(frozen=True)
class PrefixMetadata:
    """What a prefix folder says of itself (:func:`prefix_tuning.checkpoint.metadata`)."""

    base_model: BaseModel
    parametrization: str
    options: dict[str, Any] = field(default_factory=dict)
    position_offset: int | None = number(0, LARGEST, None)
    task: Task = field(default_factory=Task)
    head: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TunedManifest:
    """What the folder of a baseline says of itself (``tuned.json``)."""

    tuning_mode: str | None = None
    base_model: BaseModel | None = None
    task: Task = field(default_factory=Task)


@dataclass(frozen=True)
class Slots:
    """How many slots in front of which attentions: all that is read of an export's options."""

    length: int = number(1, LARGEST)
    sites: list[typing.Literal["self", "encoder", "encoder_decoder"]] = field(
        default_factory=lambda: ["self"]
    )


@dataclass(frozen=True)
class Options(Slots):
    """The options that the parametrisations share."""

    mid_dim: int = number(1, LARGEST, 512)
    dropout: float = number(0, math.nextafter(1.0, 0.0), 0.0)
    deep: bool = False
    mlp: bool = True


def from_json(cls: type[T], value: Any, where: str) -> T:
    """An instance of a dataclass from the object of a JSON file.

    Args:
        cls: the dataclass; its fields are of JSON's types, of other dataclasses, or unions.
        where: the file, and what of it, for the message.

    Raises:
        UserError: a field is missing, or has another type or a number out of reach.
    """
    if not isinstance(value, Mapping):
        raise _wrong(where, "an object", value)
    hints, given = typing.get_type_hints(cls), {}
    for each in fields(typing.cast(Any, cls)):
        if each.name in value:
            path = f"{where}: {each.name}"
            given[each.name] = _read(hints[each.name], value[each.name], path, each.metadata)
        elif each.default is MISSING and each.default_factory is MISSING:
            raise UserError(f"{where} lacks {each.name}: copy the folder again")
    return cls(**given)


def slots_of(cls: type[Slots], meta: Mapping[str, Any], where: str) -> Slots:
    """The options in the metadata of a prefix.

    Raises:
        UserError: as :func:`from_json`, or no attention is named.
    """
    options = from_json(cls, meta.get("options", {}), f"{where}: options")
    if not options.sites:
        raise UserError(f"{where}: options: sites is empty: copy the folder again")
    return options


def _read(hint: Any, value: Any, path: str, limits: Mapping[str, float]) -> Any:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in parts:
            return None
        (hint,) = (part for part in parts if part is not types.NoneType)
        return _read(hint, value, path, limits)
    if hint is Any:
        return value
    if origin is typing.Literal:
        if not any(value == part and type(value) is type(part) for part in parts):
            raise _wrong(path, f"one of {', '.join(map(str, parts))}", value)
        return value
    if origin is list:
        if not isinstance(value, list):
            raise _wrong(path, "a list", value)
        return [_read(parts[0], item, path, limits) for item in value]
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(path, "an object", value)
        return {key: _read(parts[1], item, f"{path}.{key}", limits) for key, item in value.items()}
    if hasattr(hint, "__dataclass_fields__"):
        return from_json(hint, value, path)
    return _plain(hint, value, path, limits)


_CALLED = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _plain(hint: type, value: Any, path: str, limits: Mapping[str, float]) -> Any:
    kinds: Any = (int, float) if hint is float else hint
    if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
        raise _wrong(path, _CALLED[hint], value)
    if hint is float and not (isinstance(value, int) or math.isfinite(value)):
        raise _wrong(path, "a finite number", value)
    if limits and not limits["low"] <= value <= limits["high"]:
        raise _wrong(path, f"from {limits['low']} to {limits['high']}", value)
    return value


def _wrong(path: str, expected: str, value: Any) -> UserError:
    shown = repr(value)
    shown = shown if len(shown) < 60 else f"{shown[:57]}..."
    return UserError(f"{path} must be {expected}, not {shown}: copy the folder again")
