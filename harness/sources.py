"""Records without a source: refused, or left out and counted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from prefix_tuning.errors import UserError


class HasSource(Protocol):
    """A record of any system."""

    @property
    def source(self) -> str: ...

    @property
    def where(self) -> str:
        """File and line, for messages."""

    @property
    def source_name(self) -> str:
        """What the format calls the source, for messages."""


Record = TypeVar("Record", bound=HasSource)


def with_sources(records: Iterable[Record], skip_empty: bool, path: Path | str) -> list[Record]:
    """The records that have something in their source.

    Args:
        skip_empty: leave the others out, and print how many they are.

    Raises:
        UserError: there are others, and they are not to be left out.
    """
    kept, empty = [], 0
    for record in records:
        if record.source.strip():
            kept.append(record)
        elif skip_empty:
            empty += 1
        else:
            raise UserError(
                f"{record.where}: {record.source_name} is missing or empty; --empty_sources skip "
                "leaves such records out"
            )
    if empty:
        print(f"{path}: left out {empty} of {len(kept) + empty} records, whose source is empty")
    return kept
