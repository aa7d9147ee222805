"""Many prefixes for one frozen model: loaded by name, mixed in one batch.

Section 8 of the paper: as a prefix is activations only, a batch may hold the prefixes of many
users. :class:`PrefixBank` keeps the exports of a folder in one table of slots. A prefix of length
``P`` occupies any ``P`` rows of the table, so lengths may differ, nothing fragments, and the keys
and values of a batch are one ``index_select``.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.checkpoint import EXPORT
from prefix_tuning.errors import UserError
from prefix_tuning.names import SITES
from prefix_tuning.saving import load_headless
from prefix_tuning.shape import PrefixShape

_NAME = re.compile(r"[^./\\\0][^/\\\0]*")
_Stamp = tuple[tuple[int, int, int], ...]
"""Inode, size and time of change of each of an export's files."""


class UnknownPrefix(UserError):
    """The folder has no prefix of this name."""


class BrokenPrefix(UserError):
    """The files of this prefix cannot be used: damaged, incomplete or of another base model."""


@dataclass
class _Entry:
    """A prefix in the table."""

    slots: list[int]
    """Which rows of the table are its slots, in order."""
    offset: int
    """Where real tokens are numbered from."""
    stamp: _Stamp
    task: dict[str, Any] = field(default_factory=dict)
    """What its metadata says of the task."""


class PrefixBank:
    """The prefixes of a folder, by name.

    A prefix is an export: ``FOLDER/NAME/prefix.safetensors`` and ``prefix.json``, or the same in
    ``FOLDER/NAME/export``, where a training run leaves them. Nothing is unpickled and nothing
    outside the folder is read. A file that changes is read again when its name is next asked for;
    if it cannot be used, the prefix read before stays, and :attr:`refused` says why.

    Args:
        model: the frozen base model of all of them; goes through ``enable_prefix``.
        folder: where they are.
        memory: bytes for slots, reserved at once. What was used least recently makes room.

    All methods may be called from several threads.
    """

    def __init__(
        self, model: PreTrainedModel, folder: Path | str, memory: int = 256 * 2**20
    ) -> None:
        self.model, self.folder = enable_prefix(model), Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"{folder}: there is no such folder; give the folder of the prefixes")
        self.refused: dict[str, str] = {}
        """Name -> why its files as they are now cannot be used."""
        self.loads = 0
        """How many times a prefix was read from its files."""
        self._shape = PrefixShape.from_config(model.config)
        self._sites = SITES if model.config.is_encoder_decoder else ("self",)
        slot = (len(self._sites), self._shape.features)
        self.capacity = memory // (prod(slot) * model.dtype.itemsize)
        """How many slots there is room for."""
        # Row 0 pads: no prefix owns it, and it stays 0 so that hidden slots are finite.
        self._table = torch.empty(self.capacity + 1, *slot, dtype=model.dtype, device=model.device)
        self._table[0] = 0
        self._free = list(range(self.capacity, 0, -1))
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._refused_at: dict[str, _Stamp] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The names in the folder, sorted; whether their files are sound is not checked."""
        names = (path.name for path in self.folder.iterdir() if path.is_dir())
        return sorted(name for name in names if self._find(name) is not None)

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    @torch.no_grad()
    def key_values(self, names: Sequence[str | None]) -> KeyValues:
        """What stands in front of a batch whose rows have these prefixes (None: none).

        Returns:
            keys and values ``[2, B, H, P, d]`` per layer and site on the model's device and in its
            dtype, ``P`` being the longest length, with padding hidden and one offset a row.

        Raises:
            UnknownPrefix: there is no prefix of this name.
            BrokenPrefix: it cannot be used, and was never read before.
            UserError: there is not enough memory for all of them.
        """
        with self._lock:
            entries = {name: self._current(name, names) for name in names if name is not None}
            nothing = _Entry([], 0, ())
            rows = [nothing if name is None else entries[name] for name in names]
            index = pad_sequence([torch.tensor(r.slots, dtype=torch.int64) for r in rows], True)
            visible = (index > 0).to(self.model.device)  # [B, P]
            flat = self._table.index_select(0, index.view(-1).to(self.model.device))
        slots = flat.view(*index.shape, *flat.shape[1:]).unbind(2)  # one a site: [B, P, 2LHd]
        layers = {
            site: self._shape.to_layers(table).contiguous().unbind(0)
            for site, table in zip(self._sites, slots, strict=True)
        }
        offset = torch.tensor([row.offset for row in rows], device=self.model.device)
        return KeyValues(layers, offset, visible)

    def occupied(self, name: str) -> int:
        """How many positions a prefix takes from prompt and output.

        Raises as :meth:`key_values`.
        """
        with self._lock:
            return self._current(name, [name]).offset

    def task(self, name: str) -> dict[str, Any]:
        """What the prefix says of the task that it was trained for: its separator, for example.

        Raises as :meth:`key_values`.
        """
        with self._lock:
            return self._current(name, [name]).task

    def home(self, name: str) -> Path:
        """The folder of a prefix.

        Raises:
            UnknownPrefix: there is no prefix of this name.
        """
        home = self._find(name)
        if home is None:
            raise UnknownPrefix(f"{self.folder} has no prefix {name!r}")
        return home

    def _find(self, name: str) -> Path | None:
        """The folder of an export, if ``name`` names one inside the bank's folder."""
        if not _NAME.fullmatch(name):
            return None
        inside = self.folder.resolve()
        for home in (self.folder / name, self.folder / name / "export"):
            files = [home / file for file in EXPORT]
            with contextlib.suppress(OSError):  # a name longer than the system's
                if all(f.is_file() and f.resolve().is_relative_to(inside) for f in files):
                    return home
        return None

    def _current(self, name: str, wanted: Collection[str | None]) -> _Entry:
        """The entry of ``name`` as its files are now, making room but not at ``wanted``'s cost."""
        entry, home = self._entries.get(name), self._find(name)
        try:
            stamp = None if home is None else _stamp(home)
        except OSError:  # removed between two looks
            stamp = None
        if home is None or stamp is None:
            if entry is not None:
                self._forget(name)
            raise UnknownPrefix(f"{self.folder} has no prefix {name!r}")
        if entry is None or entry.stamp != stamp:
            entry = self._reload(name, home, stamp, wanted)
        self._entries.move_to_end(name)
        return entry

    def _reload(
        self, name: str, home: Path, stamp: _Stamp, wanted: Collection[str | None]
    ) -> _Entry:
        old = self._entries.get(name)
        if self._refused_at.get(name) != stamp:
            try:
                return self._keep(name, *self._read(home, stamp), wanted)
            except BrokenPrefix as error:
                self.refused[name], self._refused_at[name] = str(error), stamp
        if old is None:
            raise BrokenPrefix(self.refused[name])
        return old

    def _read(self, home: Path, stamp: _Stamp) -> tuple[Tensor, _Entry]:
        """The slots ``[P, sites, 2LHd]`` of an export, and its entry, which has none yet."""
        self.loads += 1
        try:
            prefix, meta = load_headless(home, self.model)
            offset = int(meta.get("position_offset", prefix.length))
        except UserError as error:
            raise BrokenPrefix(str(error)) from error
        except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise BrokenPrefix(f"{home / EXPORT[1]} is damaged ({problem})") from error
        missing = [site for site in self._sites if site not in prefix.sites]
        if missing:
            raise BrokenPrefix(f"{home} has no prefix for the attention {missing[0]}")
        table = torch.stack([prefix.slots(site) for site in self._sites], dim=1)
        if not table.isfinite().all():
            raise BrokenPrefix(f"{home / EXPORT[0]} holds numbers that are not finite")
        return table, _Entry([], offset, stamp, meta.get("task") or {})

    def _keep(
        self, name: str, table: Tensor, entry: _Entry, wanted: Collection[str | None]
    ) -> _Entry:
        """Put slots into the table, in place of what the name had before."""
        needed = len(table) - len(self._free)
        if name in self._entries:
            needed -= len(self._entries[name].slots)
        for other in [other for other in self._entries if other not in wanted]:
            if needed <= 0:
                break
            needed -= len(self._entries[other].slots)
            self._forget(other)
        if needed > 0:
            raise UserError(
                f"the prefixes of this batch need more than the {self.capacity} slots of the bank: "
                "give it more memory"
            )
        if name in self._entries:
            self._forget(name)
        entry.slots = [self._free.pop() for _ in range(len(table))]
        self._table[torch.tensor(entry.slots, device=self._table.device)] = table.to(self._table)
        self._entries[name] = entry
        self.refused.pop(name, None)
        self._refused_at.pop(name, None)
        return entry

    def _forget(self, name: str) -> None:
        self._free.extend(self._entries.pop(name).slots)


def _stamp(home: Path) -> _Stamp:
    states = [(home / file).stat() for file in EXPORT]
    return tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in states)
