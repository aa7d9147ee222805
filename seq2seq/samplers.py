"""Orders of examples in which a batch holds examples of about one length.

An epoch contains every example once. What differs from the original's samplers: orders follow from
a seed and the epoch, and the short batch that remains stays last, as anywhere else it would shift
the borders of the batches behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol

import torch
from torch.utils.data import Sampler

from harness.samplers import LengthGroupedSampler, by_length, grouped, shuffled
from prefix_tuning.errors import UserError


class SortishSampler(LengthGroupedSampler):
    """Random order, sorted by length within chunks of 50 batches, batches shuffled again.

    The batch with the longest example comes first, so that too little memory shows at once.
    Without ``shuffle`` the order is that of falling length.

    Args:
        lengths: of every example, in any unit.
        batch_size: consecutive indices that will form a batch.
        shuffle: whether the order changes with the epoch.
        seed: with the epoch, decides the order.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, shuffle: bool = True, seed: int = 0
    ) -> None:
        super().__init__(lengths, batch_size, seed)
        self.shuffle = shuffle
        self.indices = torch.arange(len(lengths))

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            order = by_length(self.lengths, self.indices, falling=True)
        else:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            order = grouped(
                self.lengths, self.batch_size, generator, longest_first=True, chosen=self.indices
            )
        return iter(order.tolist())


class DistributedSortishSampler(SortishSampler):
    """The same on every ``num_replicas``-th example, for one process of several.

    Examples from the beginning are repeated until all processes have as many.

    Args:
        num_replicas: processes.
        rank: which of them this is.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        num_replicas: int,
        rank: int,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(lengths, batch_size, shuffle, seed)
        num_samples = -(-len(lengths) // num_replicas)
        self.indices = (torch.arange(num_samples) * num_replicas + rank) % len(lengths)


class TokenBatchSampler(Sampler[list[int]]):
    """Batches of like lengths whose padded tokens stay within a limit.

    A batch of B examples, the longest of n tokens, has ``B * n`` padded tokens. The example that
    alone exceeds the limit forms a batch of its own.

    Args:
        lengths: tokens of every example.
        max_tokens: the limit.
        shuffle: whether batches come in random order, the longest example first, and which of
            several examples of one length share a batch is random; else in that of falling length.
        seed: with the epoch, decides the order.

    Raises:
        UserError: the limit is not positive.
    """

    def __init__(
        self, lengths: Sequence[int], max_tokens: int, shuffle: bool = True, seed: int = 0
    ) -> None:
        if max_tokens < 1:
            raise UserError(
                f"--max_tokens_per_batch {max_tokens}: give a positive number of tokens"
            )
        self.lengths = torch.tensor(lengths)
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        falling = sorted(lengths, reverse=True)
        self.sizes: list[int] = []
        start = 0
        while start < len(falling):
            fits = max(1, max_tokens // max(1, falling[start]))
            self.sizes.append(min(fits, len(falling) - start))
            start += self.sizes[-1]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.arange(len(self.lengths))
        if self.shuffle:
            order = order[torch.randperm(len(order), generator=generator)]
        batches = list(by_length(self.lengths, order, falling=True).split(self.sizes))
        if self.shuffle:
            batches = shuffled(batches, self.lengths, generator, longest_first=True)
        return (batch.tolist() for batch in batches)


class Batches(Protocol):
    """Batches of indices of examples, and how many an epoch has."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[int]]: ...


class OfEpochs(Protocol):
    """Whose order changes with the epoch."""

    def set_epoch(self, epoch: int) -> None: ...


class ResumedBatches(Sampler[list[int]]):
    """The batches of another sampler, from the place where an interrupted run goes on.

    Args:
        batches: makes the batches of an epoch; its length is that of a whole epoch.
        sampler: whose ``set_epoch`` decides their order.
        epoch: the epoch to go on with, counted from 0.
        done: how many of its batches were trained on already.
    """

    def __init__(self, batches: Batches, sampler: OfEpochs, epoch: int = 0, done: int = 0) -> None:
        self.batches = batches
        self.inner = sampler
        self.first = (epoch, done)
        self.sampler = self  # Lightning calls set_epoch on a batch sampler's ``sampler``
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.epoch = epoch
        self.inner.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, done = self.first
        return islice(self.batches, done if self.epoch == epoch else 0, None)
