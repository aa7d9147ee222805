"""Decoding that goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prefix_tuning.files import write_text

Run = Callable[[Sequence[int]], Iterator[tuple[int, str]]]
"""``run(skip)`` yields index and text of everything whose index is not in ``skip``."""


def decode_resumably(path: Path, settings: dict[str, object], n_text: int, run: Run) -> list[str]:
    """All texts, those already in the file at ``path`` first; it grows with every text.

    Args:
        settings: what must be equal for the texts in the file to be of this decode (JSON values);
            otherwise it starts again.
        n_text: how many there are.
    """
    texts = _read(path, settings)
    if texts:
        print(f"going on after {len(texts)} of {n_text} texts")
    else:
        path.write_text(json.dumps(settings) + "\n", encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:
        for index, text in run(list(texts)):
            file.write(json.dumps([index, text]) + "\n")
            file.flush()
            texts[index] = text
    return [texts[i] for i in range(n_text)]


def _read(path: Path, settings: dict[str, object]) -> dict[int, str]:
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # what was cut off has no line end
    try:
        if not lines or json.loads(lines[0]) != settings:
            return {}
        texts = dict(json.loads(line) for line in lines[1:])
    except ValueError:
        return {}
    write_text(path, "".join(line + "\n" for line in lines))
    return texts
