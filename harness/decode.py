"""Decoding that goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from tqdm import tqdm

from prefix_tuning.files import write_text

Run = Callable[[Sequence[int]], Iterator[tuple[int, str]]]
"""``run(skip)`` yields index and text of everything whose index is not in ``skip``."""


@dataclass(frozen=True)
class Identity:
    """What must be equal for a stopped decode to go on; else it starts again.

    Args:
        folder: holds the weights; their names, sizes and times stand for them.
        prompts: what is decoded, as texts or token ids.
        search: its options, by name.
        precision: of the computation, as "torch.bfloat16".
        further: anything else that decides the texts (JSON values).
    """

    folder: Path
    prompts: Iterable[object]
    search: dict[str, object]
    precision: str
    further: dict[str, object] = field(default_factory=dict)

    def settings(self) -> dict[str, object]:
        """The same as JSON values."""
        return {
            "search": self.search,
            "prompts": hashlib.sha256(repr(list(self.prompts)).encode()).hexdigest(),
            "precision": self.precision,
            "weights": weights_stamp(self.folder),
            **self.further,
        }


def weights_stamp(folder: Path) -> list[list[object]]:
    """Name, size and time of every file of weights in a folder."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]


def batches_by_length(
    lengths: Sequence[int], size: int, skip: Collection[int] = (), one_length: bool = False
) -> Iterator[list[int]]:
    """Indices in batches of about one length, the longest first.

    Args:
        lengths: of everything there is.
        size: indices in a batch.
        skip: indices to leave out.
        one_length: a batch holds exactly one length, so that nothing is padded.
    """
    left = set(range(len(lengths))).difference(skip)
    order = sorted(left, key=lambda i: (-lengths[i], i))
    for _, group in groupby(order, key=lambda i: lengths[i] if one_length else 0):
        indices = list(group)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def decode_by_length(
    lengths: Sequence[int],
    size: int,
    skip: Collection[int],
    decode_batch: Callable[[list[int]], Sequence[str]],
    one_length: bool = False,
) -> Iterator[tuple[int, str]]:
    """Index and text of everything that is not in ``skip``, with a progress bar, not in order.

    Args:
        lengths, size, skip, one_length: of :func:`batches_by_length`.
        decode_batch: gives the texts of some indices.
    """
    done = {"total": len(lengths), "initial": len(skip)}
    with tqdm(**done, desc="decoding", unit="text", disable=None) as bar:
        for batch in batches_by_length(lengths, size, skip, one_length):
            yield from zip(batch, decode_batch(batch), strict=True)
            bar.update(len(batch))


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
