"""What the runs of one process share: its data and its base models."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Shared:
    """What several runs have in common: each thing is read or loaded once."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` returned when the key was first asked for."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made
