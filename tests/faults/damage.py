"""Ways in which a file is not as its format says, drawn by a random generator."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

JUNK: list[Any] = [
    *(None, True, False, 0, -1, 1, 10**12, 10**30, 0.5, float("nan"), float("inf")),
    *("", " ", "a", "\ud83d", "\u2028", "\0", "=cmd", "../x", [], ["a"], {}, {"a": None}, [[]]),
]
_PIECES = [
    *(b"\xff", b"\x00", b"\r", b"\n", b"\n\n", b"\t", b"|", b"||", b"|||", b'"', b",", b"{", b"["),
    *(b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"nan", b"inf", b"-1", b"1e999", b"-DOCSTART-", b"L-PER"),
    *(b"\\ud83d", b" ", b"9" * 5000, b"[" * 5000),
]
Damage = Callable[[bytes, random.Random], bytes]


def _flip(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content) or 1)
    return content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _insert(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content) + 1)
    return content[:at] + chance.choice(_PIECES) + content[at:]


def _remove(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content) + 1)
    return content[:at] + content[at + chance.randrange(1, 12) :]


def _replace(content: bytes, chance: random.Random) -> bytes:
    """Every one of some mark becomes another."""
    old = chance.choice([b"\t", b"||", b" ", b"\n", b'"', b",", b":", b"-", b"0", b"1"])
    return content.replace(old, chance.choice([b"", *_PIECES]))


def _lines(content: bytes, chance: random.Random) -> bytes:
    lines = content.split(b"\n")
    at = chance.randrange(len(lines))
    what = chance.randrange(3)
    lines[at : at + 1] = [[], [lines[at]] * 2, [chance.choice(_PIECES)]][what]
    return b"\n".join(lines)


TEXT: tuple[Damage, ...] = (_flip, _cut, _insert, _remove, _replace, _lines)
"""Of any file."""


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value: the list or object, and the index or name."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    return [place for key, item in items for place in ((value, key), *places(item))]


def json_value(value: Any, chance: random.Random) -> tuple[Any, bool]:
    """A JSON value with something wrong in it.

    Returns:
        the value, and whether as many records as before are in it.
    """
    value = json.loads(json.dumps(value))
    found = places(value)
    holder, key = chance.choice(found)
    what = chance.randrange(4)
    is_leaf = not isinstance(holder[key], list | dict)
    if what == 0 and isinstance(holder, dict):
        del holder[key]
        return value, False
    if what == 1 and isinstance(holder, dict):
        holder[str(key)[:-1] + "_"] = holder.pop(key)  # misspelt
        return value, False
    if what == 2 and isinstance(holder, list):
        holder.append(holder[key])
        return value, False
    holder[key] = chance.choice(JUNK)
    return value, is_leaf


HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda content: content,
    "byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "CRLF": lambda content: content.replace(b"\n", b"\r\n"),
    "CR": lambda content: content.replace(b"\n", b"\r"),
    "no last line end": lambda content: content.removesuffix(b"\n"),
}
"""What changes no record of a file whose lines end in LF."""
