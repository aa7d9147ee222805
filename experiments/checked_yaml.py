"""YAML files that are checked strictly: one sentence says file, row, field and what is wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from prefix_tuning.errors import UserError
from prefix_tuning.files import first_twice

LIMIT = 100_000
"""The most values of a file, those counted again that an alias repeats."""


def load(path: Path) -> Any:
    """The content of a file, or a :class:`UserError` that says why it cannot be read."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > LIMIT:
            raise UserError(f"{path}: aliases (*name) repeat too much: write the values out")
        return loader.construct_document(node)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; experiments/README.md lists them") from error
    except RecursionError as error:
        raise UserError(f"{path} nests too deeply, or an alias holds itself") from error
    except (yaml.YAMLError, ValueError) as error:  # a date that there is not, a number too long
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not YAML: {reason}") from error


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below a node as Python would have them, an alias counting as what it stands for."""
    if id(node) not in known:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            twice = first_twice(str(key.value) for key, _ in node.value)
            if twice is not None:
                raise yaml.MarkedYAMLError(
                    problem=f"{twice!r} comes twice: keep one", problem_mark=node.start_mark
                )
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


class Checker:
    """Takes fields out of a mapping, with errors that say where it stands.

    Args:
        where: file and row, for messages.
        data: what YAML holds there.
        fields: those that there may be.

    Raises:
        UserError: it is no mapping, or has another field.
    """

    def __init__(self, where: str, data: Any, fields: Sequence[str]) -> None:
        self.where = where
        if not isinstance(data, dict):
            raise UserError(f"{where}: expected fields with values, found {shown(data)}")
        self.data = data
        for name in data:
            if name not in fields:
                raise UserError(
                    f"{where}: there is no field {name!r}; there are {', '.join(fields)}"
                )

    def take(self, name: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        """The value of a field; without ``default`` it has to be there."""
        if name not in self.data:
            if default is ...:
                raise UserError(f"{self.where}: the field {name} is missing")
            return default
        value = self.data[name]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(k.__name__ for k in kinds)
            raise UserError(f"{self.where}, field {name}: expected {names}, found {shown(value)}")
        return value

    def one_of(self, name: str, choices: Sequence[str]) -> str:
        """A text that has to be there and to be one of ``choices``."""
        value = self.take(name, str)
        if value not in choices:
            raise UserError(
                f"{self.where}, field {name}: {value!r} is none of {', '.join(choices)}"
            )
        return value

    def many(self, name: str, kind: type) -> tuple[Any, ...] | None:
        """A list that is not empty and has no value twice; None if it is not there."""
        values = self.take(name, list, None)
        if values is None:
            return None
        if not values or not all(type(v) is kind for v in values) or len({*values}) < len(values):
            raise UserError(
                f"{self.where}, field {name}: expected different values of {kind.__name__}, found "
                f"{shown(values)}"
            )
        return tuple(values)


def check_flags(where: str, value: dict[Any, Any], switches: bool) -> dict[str, Any]:
    """Flags as the launcher takes them: YAML reads 5e-5 as text, and yes as a truth value."""
    for name, flag in value.items():
        if not isinstance(name, str):
            raise UserError(f"{where}, flag {shown(name)}: the name of a flag is a text")
        if not isinstance(flag, str | int | float):
            raise UserError(f"{where}, flag {name}: expected one value, found {shown(flag)}")
        if isinstance(flag, bool) and not switches:
            raise UserError(f"{where}, flag {name}: write yes and no in quotes")
        if isinstance(flag, str) and re.fullmatch(r"[\d.]+e[+-]?\d+", flag):
            raise UserError(f"{where}, flag {name}: write {flag} as 5.0e-5, else YAML takes a text")
    return value
