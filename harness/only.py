"""Flags that are read only beside others, as tables say; elsewhere they are refused.

Only the standard library is imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from prefix_tuning.errors import UserError


@dataclass(frozen=True)
class Only:
    """Where a flag is read.

    Args:
        says: what the message has behind "only": "with --prefix".
        holds: whether it is so, of the values of all flags as attributes.
        idle: values besides the default that ask for nothing.
    """

    says: str
    holds: Callable[[Any], object]
    idle: tuple[object, ...] = ()


class _Together:
    """The attributes of several objects."""

    def __init__(self, parts: Sequence[object]) -> None:
        self._parts = parts

    def __getattr__(self, name: str) -> Any:
        for part in self._parts:
            if hasattr(part, name):
                return getattr(part, name)
        raise AttributeError(name)


def given(part: Any) -> dict[str, Any]:
    """The values of a dataclass that are not its fields' defaults, by name."""
    values = {field.name: (getattr(part, field.name), field) for field in dataclasses.fields(part)}
    return {name: value for name, (value, field) in values.items() if value != field.default}


def check_only(table: Mapping[str, Only], *parts: Any) -> None:
    """Refuse flags that nothing would read.

    Args:
        table: where flags are read, by name; all others are read everywhere.
        parts: dataclasses of the flags.

    Raises:
        UserError: naming the flag, and where it is read.
    """
    values = {name: value for part in parts for name, value in given(part).items()}
    check_given(table, values, _Together(parts))


def check_given(table: Mapping[str, Only], values: Mapping[str, Any], flags: object) -> None:
    """The same of the values that are given, beside those of all ``flags``."""
    for name, only in table.items():
        value = values.get(name)
        if name in values and value not in only.idle and not only.holds(flags):
            shown = "" if value is True else f" {getattr(value, 'value', value)}"
            raise UserError(f"--{name}{shown}: only {only.says}")


def unread(table: Mapping[str, Only], *parts: Any) -> set[str]:
    """The flags that nothing reads beside the others, whatever their values are."""
    flags = _Together(parts)
    return {name for name, only in table.items() if hasattr(flags, name) and not only.holds(flags)}


def next_words(argv: Iterable[str]) -> dict[str, str]:
    """What stands behind each word of a command line, with a space or a sign of equality."""
    words = [part for word in argv for part in word.split("=", 1)]
    return dict(pairwise([*words, ""]))


def without_steps(defaults: Mapping[str, Any], named: Mapping[str, str]) -> dict[str, Any]:
    """Defaults, without numbers of steps that nothing reads beside what the command line names.

    Args:
        named: :func:`next_words` of a command line with ``--save_strategy epoch``, say, beside
            which nothing reads the default of ``save_steps``.
    """

    def is_read(name: str) -> bool:
        if not name.endswith("_steps") or f"--{name}" in named:
            return True
        if name == "warmup_steps":
            return named.get("--lr_scheduler_type") != "constant"
        return named.get(f"--{name.removesuffix('steps')}strategy", "steps") == "steps"

    return {name: value for name, value in defaults.items() if is_read(name)}
