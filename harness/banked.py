"""Records that name their prefix: many prefixes of one frozen model in one decode.

Section 8 of the prefix-tuning paper: a batch may mix the prefixes of many users. Each record of
one's own data may have a field ``prefix``, the name of an export in a folder; a record without one
is decoded by the model alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prefix_tuning.errors import UserError

if TYPE_CHECKING:
    from prefix_tuning.bank import PrefixBank

FIELD = "prefix"
"""The column of one's own data."""


class Naming(Protocol):
    """A record that may name its prefix."""

    @property
    def prefix(self) -> object:
        """The name; None or empty for none."""

    @property
    def where(self) -> str:
        """File and line, for messages."""


def names_of(records: Sequence[Naming]) -> list[str | None]:
    """The name of each record's prefix.

    Raises:
        UserError: one is not a text, or no record has any.
    """
    names: list[str | None] = []
    for record in records:
        name = record.prefix or None
        if not isinstance(name, str | None):
            raise UserError(f"{record.where}: {FIELD!r} is not a name: {name!r:.60}")
        names.append(name)
    if records and not any(names):
        raise UserError(
            f"{records[0].where}: no record names its prefix; give them a field {FIELD!r}"
        )
    return names


def tasks_of(
    bank: PrefixBank, names: Sequence[str | None], records: Sequence[Naming]
) -> dict[str | None, dict[str, Any]]:
    """What each prefix says of the task it was trained for, by its name.

    Raises:
        UserError: a prefix is not there or cannot be used, naming the first record that wants it.
    """
    tasks: dict[str | None, dict[str, Any]] = {None: {}}
    for name, record in zip(names, records, strict=True):
        if name is not None and name not in tasks:
            try:
                tasks[name] = bank.task(name)
            except UserError as error:
                raise UserError(f"{record.where}: {error}") from error
    return tasks


def homes_of(bank: PrefixBank, names: Sequence[str | None]) -> dict[str, Path]:
    """The folders of prefixes, by name: what :class:`harness.decode.Identity` takes as parts."""
    return {name: bank.home(name) for name in sorted({name for name in names if name})}


def base_of(folder: Path) -> str | None:
    """The base model that a prefix in the folder names, or None where there is no prefix.

    Raises:
        UserError: the prefixes name several.
    """
    from prefix_tuning.checkpoint import EXPORT, read_metadata

    homes = [found.parent for found in sorted(folder.glob(f"*/{EXPORT[0]}"))]
    homes += [found.parent for found in sorted(folder.glob(f"*/export/{EXPORT[0]}"))]
    bases = {str(read_metadata(home)["base_model"]["name_or_path"]) for home in homes}
    if len(bases) > 1:
        raise UserError(
            f"{folder} has prefixes of several models ({', '.join(sorted(bases))}): name one with "
            "--model_name_or_path"
        )
    return next(iter(bases), None)
