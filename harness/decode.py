"""Decoding that goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape
from itertools import count, groupby
from pathlib import Path
from typing import Any

from harness.manifest import digest
from harness.progress import PATIENCE, Shown
from prefix_tuning.errors import UserError, lacks_memory
from prefix_tuning.files import parse_json, read_json_object, write_json, write_text

Run = Callable[[Sequence[int]], Iterator[tuple[int, str]]]
"""``run(skip)`` yields index and text of everything whose index is not in ``skip``."""


@dataclass(frozen=True)
class Identity:
    """What makes texts: equal for a stopped decode to go on, and for outputs to be replaced.

    Args:
        folder: holds the weights; their names, sizes and times stand for them.
        prompts: what is decoded, as texts or token ids.
        search: its options, by name.
        precision: of the computation, as "torch.bfloat16".
        further: anything else that decides the texts (JSON values).
        references: what the texts are compared with; a stopped decode may go on with others.
        parts: further folders of weights, by name.
    """

    folder: Path
    prompts: Iterable[object]
    search: dict[str, object]
    precision: str
    further: dict[str, object] = field(default_factory=dict)
    references: Iterable[object] = ()
    parts: Mapping[str, Path] = field(default_factory=dict)

    def owner(self) -> dict[str, object]:
        """What made the texts, as JSON values; by content, so that a copy is the same."""
        weights = {path.name: digest(path) for path in weight_files(self.folder)}
        for name, part in self.parts.items():
            weights |= {f"{name}/{path.name}": digest(path) for path in weight_files(part)}
        return {
            "search": self.search,
            "prompts": _digest(self.prompts),
            "references": _digest(self.references),
            "precision": self.precision,
            "weights": weights or str(self.folder),
        }

    def settings(self) -> dict[str, object]:
        """The same as JSON values."""
        return {
            "search": self.search,
            "prompts": _digest(self.prompts),
            "precision": self.precision,
            "weights": weights_stamp(self.folder),
            **{f"weights of {name}": weights_stamp(part) for name, part in self.parts.items()},
            **self.further,
        }


def _digest(values: Iterable[object]) -> str:
    return hashlib.sha256(repr(list(values)).encode()).hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """Every file of weights in a folder."""
    return sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])


def weights_stamp(folder: Path) -> list[list[object]]:
    """Name, size and time of every file of weights in a folder."""
    files = weight_files(folder)
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
    shown: Shown | None = None,
) -> Iterator[tuple[int, str]]:
    """Index and text of everything that is not in ``skip``, not in order; shows how far it is.

    Args:
        lengths, size, skip, one_length: of :func:`batches_by_length`.
        decode_batch: gives the texts of some indices. Where there is not enough memory for them,
            it is asked for fewer at a time from then on.
        shown: of :func:`show_decoding`, if the search tells it of texts before their batch ends.
    """
    shown = shown or show_decoding(len(lengths), len(skip))
    done = len(skip)
    for batch in batches_by_length(lengths, size, skip, one_length):
        while batch:
            part = batch[:size]
            try:
                texts = decode_batch(part)
            except (RuntimeError, MemoryError) as error:
                if len(part) == 1 or not lacks_memory(error):
                    raise
                size = len(part) // 2
                print(f"note: not enough memory for {len(part)} texts at once; now {size}")
                continue
            yield from zip(part, texts, strict=True)
            batch = batch[size:]
            done += len(part)
            shown.at(done)
    shown.close()


def show_decoding(total: int, done: int = 0) -> Shown:
    """What shows how many of ``total`` texts are there; of a single one only if it takes long."""
    return Shown("decoded", total, done, to_stderr=True, patience=PATIENCE if total == 1 else 0.0)


def decode_resumably(path: Path, settings: dict[str, object], n_text: int, run: Run) -> list[str]:
    """All texts, those already in the file at ``path`` first; it grows with every text.

    Args:
        settings: what must be equal for the texts in the file to be of this decode (JSON values);
            otherwise it starts again.
        n_text: how many there are.
    """
    texts = _read(path, settings, n_text)
    if texts:
        print(f"going on after {len(texts)} of {n_text} texts")
    else:
        write_text(path, json.dumps(settings) + "\n")
    with path.open("a", encoding="utf-8") as file:
        for index, text in run(list(texts)):
            file.write(json.dumps([index, text]) + "\n")
            file.flush()
            texts[index] = text
    return [texts[i] for i in range(n_text)]


def _read(path: Path, settings: dict[str, object], n_text: int) -> dict[int, str]:
    """The texts of a decode that was stopped, without the lines that are damaged."""
    if not path.is_file():
        return {}
    lines = path.read_bytes().split(b"\n")[:-1]  # what was cut off has no line end
    if not lines or _parsed(lines[0]) != settings:
        return {}
    rows: list[Any] = [_parsed(line) for line in lines[1:]]
    texts = {row[0]: row[1] for row in rows if _is_text(row, n_text)}
    damaged = sum(not _is_text(row, n_text) for row in rows)
    if damaged:
        print(f"{path}: damaged lines: {damaged}; their texts are decoded again", flush=True)
    kept = [json.dumps(settings), *(json.dumps([i, text]) for i, text in texts.items())]
    write_text(path, "".join(f"{line}\n" for line in kept))
    return texts


def _parsed(line: bytes) -> object:
    try:
        return parse_json(line.decode("utf-8"), "")
    except (UserError, UnicodeDecodeError):
        return None


def _is_text(row: object, n_text: int) -> bool:
    if not isinstance(row, list) or [type(value) for value in row] != [int, str]:
        return False
    return 0 <= row[0] < n_text


def claim(
    stem: Path,
    suffix: str,
    owner: dict[str, object],
    overwrite: bool = False,
    shared: Collection[str] = ("prompts", "references"),
) -> Path:
    """A beginning for the names of the outputs that overwrites nothing of another decode.

    Args:
        stem: the wanted one, ``FOLDER/NAME_SPLIT`` or ``FOLDER/SPLIT``; the file of the texts is
            ``<stem>_<suffix>``.
        owner: :meth:`Identity.owner` of what is going to be decoded.
        overwrite: take it whoever has it.
        shared: what of the owner decides the files that are beside those of all suffixes.

    Returns:
        ``stem``, or else ``NAME-2_SPLIT``, ``SPLIT-2`` and so on.
    """
    name, line, split = stem.name.rpartition("_")
    chosen = stem
    for number in count(2):
        if overwrite or _is_free(chosen, suffix, owner, shared):
            break
        chosen = stem.with_name(f"{name}-{number}_{split}" if line else f"{split}-{number}")
    if chosen != stem:
        print(
            f"{stem}_{suffix} holds texts of other weights, data or search: these go to "
            f"{chosen}_{suffix} (--overwrite_results replaces them)",
            flush=True,
        )
    return chosen


def _is_free(stem: Path, suffix: str, owner: dict[str, object], shared: Collection[str]) -> bool:
    output = stem.with_name(f"{stem.name}_{suffix}")
    if output.is_file() and not owner_of(output).is_file():
        return False  # of an older version, or the user's own
    now = json.loads(json.dumps(owner))
    for path in stem.parent.glob(f".{escape(stem.name)}_*{MADE_BY}"):
        texts = path.with_name(path.name[1:].removesuffix(MADE_BY))
        if not texts.is_file() and not texts.with_name(f"{texts.name}.partial").is_file():
            continue  # they were removed since
        before = read_json_object(path)
        names = now if path == owner_of(output) else shared
        if any(before.get(name) != now.get(name) for name in names):
            return False
    return True


def publish(output: Path, owner: dict[str, object]) -> None:
    """Note whose texts a file is going to hold: before it is written, for a kill in between."""
    write_json(owner_of(output), owner)


MADE_BY = ".made_by.json"


def owner_of(output: Path) -> Path:
    """The file that says what made the texts of ``output``."""
    return output.with_name(f".{output.name}{MADE_BY}")
