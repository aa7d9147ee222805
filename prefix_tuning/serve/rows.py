"""Keys and values of rows that run together but began at different times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from prefix_tuning.key_values import Attended, Attention, Front, KeyValues
from prefix_tuning.positions import room
from prefix_tuning.shape import PrefixShape

_COLUMNS = 64
"""The store grows by multiples of this many columns."""


class Rows(Front):
    """A padded store of keys and values, one row a text.

    Every row begins at column 0: the slots of its prefix, its prompt, its output, without gaps. A
    token in column ``c`` sees the columns ``0..c`` of its row, so what stands behind (padding of a
    batch of prompts, a row that left) is never seen and is overwritten when the row gets there.

    Args:
        model: a decoder after ``enable_prefix``.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(0)
        shape = PrefixShape.from_config(model.config)
        self.model = model
        self._limit = room(model.config)
        empty = (shape.n_layer, 2, 0, shape.n_head, 0, shape.head_dim)
        self._store = torch.empty(empty, dtype=model.dtype, device=model.device)
        """``[L, 2, R, H, N, d]`` for at least as many rows and columns as are in use."""
        self._lengths: list[int] = []
        """Columns in use of each row."""
        self._shifts: list[int] = []
        """What is added to a token's column to get its position."""

    def __len__(self) -> int:
        return len(self._lengths)

    def join(self, prefix: KeyValues) -> None:
        """Append a row that holds a prefix of one row and no token yet."""
        layers = torch.stack(prefix.sites["self"])[:, :, 0]  # [L, 2, H, P, d]
        row, length = len(self), layers.shape[3]
        self._reserve(row + 1, length)
        self._store[:, :, row, :, :length] = layers
        self._lengths.append(length)
        self._shifts.append(int(prefix.offset) - length)

    def select(self, order: Sequence[int]) -> None:
        """Let row ``i`` be what row ``order[i]`` was, for rows that leave and beams that fork."""
        moved = [i for i, source in enumerate(order) if source != i]
        self._lengths = [self._lengths[i] for i in order]
        self._shifts = [self._shifts[i] for i in order]
        if moved:
            n_column = max(self._lengths)
            self._reserve(len(order), n_column)
            device = self._store.device
            source = torch.tensor([order[i] for i in moved], device=device)
            target = torch.tensor(moved, device=device)
            # [L, 2, len(moved), H, n_column, d]
            self._store[:, :, target, :, :n_column] = self._store[:, :, source, :, :n_column]

    def clear(self) -> None:
        """Let all rows leave."""
        self._lengths, self._shifts = [], []

    @torch.no_grad()
    def read(self, first: int, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Append tokens to the rows from ``first`` on, as many rows as ``tokens`` has.

        Returns:
            the logits behind the last token of each, ``[len(tokens), V]``.
        """
        rows, counts = slice(first, first + len(tokens)), [len(row) for row in tokens]
        device = self._store.device
        ids = pad_sequence([torch.tensor([*row]) for row in tokens], True).to(device)
        start = torch.tensor(self._lengths[rows], device=device)[:, None]
        shift = torch.tensor(self._shifts[rows], device=device)[:, None]
        columns = start + torch.arange(ids.shape[1], device=device)  # [B, T]
        self._reserve(len(self), max(self._lengths[rows]) + ids.shape[1])
        n_column = max(n + count for n, count in zip(self._lengths[rows], counts, strict=True))
        self._rows, self._at = torch.arange(rows.start, rows.stop, device=device)[:, None], columns
        self._first, self._last = rows.start, rows.stop
        visible = torch.arange(n_column, device=device) <= columns[:, :, None]  # [B, T, n_column]
        self._visible = visible[:, None]  # [B, 1, T, n_column]
        positions = columns + shift
        if self._limit is not None:  # those of padding may lie behind the table
            positions = positions.clamp(max=self._limit - 1)
        kept = sorted({count - 1 for count in counts})
        output = self.model(
            input_ids=ids,
            position_ids=positions,
            prefix=self,
            use_cache=False,
            logits_to_keep=torch.tensor(kept, device=device),
        )
        for i, count in enumerate(counts, start=first):
            self._lengths[i] += count
        picked = [kept.index(count - 1) for count in counts]
        return output.logits[torch.arange(len(counts)), picked]

    def compute(self, attention: Attention) -> Attended:
        """Store ``key`` and ``value [B, H, T, d]``, and attend to all of the rows' columns."""
        layer, mask = self._store[attention.layer], attention.mask  # [2, R, H, N, d]
        for part, new in zip(layer, (attention.key, attention.value), strict=True):
            part[self._rows, :, self._at] = new.transpose(1, 2)  # [B, T, H, d]
        visible = self._visible
        key, value = layer[:, self._first : self._last, :, : visible.shape[3]]
        if mask is not None and mask.is_floating_point():  # what the backend adds to the scores
            lowest = torch.finfo(mask.dtype).min
            visible = torch.where(visible, 0.0, lowest).to(mask.dtype)
        return replace(attention, key=key, value=value, mask=visible).run()

    def _reserve(self, n_row: int, n_column: int) -> None:
        rows, columns = self._store.shape[2], self._store.shape[4]
        if n_row <= rows and n_column <= columns:
            return
        if n_row > rows:
            n_row = max(n_row, 2 * rows)
        if n_column > columns:
            n_column = -(-n_column // _COLUMNS) * _COLUMNS
        n_row, n_column = max(n_row, rows), max(n_column, columns)
        n_layer, two, _, n_head, _, head_dim = self._store.shape
        grown = self._store.new_zeros(n_layer, two, n_row, n_head, n_column, head_dim)
        grown[:, :, :rows, :, :columns] = self._store
        self._store = grown
