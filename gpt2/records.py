"""What is done with records: inputs grouped by source, some held out, some drawn."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from gpt2.readers import Record
from harness.own_data import held_out
from prefix_tuning.errors import UserError


def one_line(text: str) -> str:
    """``text`` with spaces for line ends, of which sampling draws both kinds."""
    return text.replace("\n", " ").replace("\r", " ")


def group_by_source(records: Iterable[Record], by_prefix: bool = False) -> list[Record]:
    """One record per distinct input, with all its references, in order of first appearance.

    Args:
        by_prefix: whether an input is another one where it names another prefix.
    """
    groups: dict[tuple[str, tuple[str, ...] | None, str], list[Record]] = {}
    for record in records:
        name = repr(record.prefix) if by_prefix else ""
        groups.setdefault((record.source, record.relations, name), []).append(record)
    return [
        replace(same[0], targets=tuple(t for record in same for t in record.targets))
        for same in groups.values()
    ]


def hold_out(
    records: Sequence[Record], fraction: float, seed: int
) -> tuple[list[Record], list[Record]]:
    """The records to train on, and those to evaluate on: a random share of the inputs.

    Every input is on one side with all its references, and there is one at least on either.

    Raises:
        UserError: there is one input alone, or records have more than texts.
    """
    groups = group_by_source(records)
    has_more = any(record.relations is not None for record in groups)
    sources = [] if has_more else [record.source for record in groups]
    chosen = held_out(sources, fraction, seed, records[0].where.split(", ")[0])
    return (
        [record for record in records if record.source not in chosen],
        [record for record in groups if record.source in chosen],
    )


def as_json(record: Record) -> dict[str, Any]:
    """A record as a line of one's own data in JSONL."""
    targets = list(record.targets)
    if not record.chat:
        return {"source": record.source, "targets": targets}
    messages = [{"role": role, "content": text} for role, text in record.chat]
    return {"messages": messages, "targets": targets}


def sample_pairs(records: Sequence[Record], size: str, seed: int) -> list[Record]:
    """A random subset of the (source, reference) pairs, in the order of the file.

    Pairs and not distinct sources are drawn, because a pair is what training calls an example: a
    subset of 100 has 100 of them, as many as the paper's.

    Args:
        size: a number of pairs, ``"100"``, or a share of them, ``"10%"``.
        seed: decides which; the same on every machine.

    Raises:
        UserError: there are fewer.
    """
    pairs = [replace(record, targets=(text,)) for record in records for text in record.targets]
    count = subset_size(size, len(pairs))
    if not 1 <= count <= len(pairs):
        raise UserError(f"--train_size {size}: the file has {len(pairs)} pairs")
    return [pairs[i] for i in sorted(random.Random(seed).sample(range(len(pairs)), count))]


def subset_size(size: str, total: int) -> int:
    """``"100"`` is 100, ``"10%"`` a tenth of ``total``.

    Raises:
        UserError: it is neither.
    """
    number = size.removesuffix("%")
    if not number.isdecimal() or len(number) > 12 or int(number) < 1:
        raise UserError(f"--train_size {size}: expected a number of pairs, or a share such as 10%")
    return round(int(number) * total / 100) if size.endswith("%") else int(number)


def development_size(size: str) -> str:
    """How much of the development file goes with a training subset: 30 % of a number of pairs
    (section 6.3 of the paper), and of a share the same share."""
    return size if size.endswith("%") else str(max(1, round(0.3 * subset_size(size, 0))))
