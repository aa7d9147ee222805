"""Orders of examples in which a batch holds examples of about one length.

An epoch contains every example once. An order follows from a seed and the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

BATCHES_PER_GROUP = 50


class LengthGroupedSampler(Sampler[int]):
    """A random order in which every batch holds examples of about one length.

    Args:
        lengths: of every example, in any unit.
        batch_size: consecutive indices that will form a batch.
        seed: with the epoch, decides the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        yield from grouped(self.lengths, self.batch_size, generator).tolist()


def grouped(
    lengths: Tensor,
    batch_size: int,
    generator: torch.Generator,
    longest_first: bool = False,
    chosen: Tensor | None = None,
) -> Tensor:
    """Shuffle, sort by length within groups of 50 batches, and shuffle the batches again.

    Args:
        lengths: int64 ``[N]``, of every example.
        longest_first: sort by falling length, and begin with the batch of the longest example.
        chosen: int64 ``[n]``, the indices to put in order; all ``N`` when not given.

    Returns:
        these indices in their order.
    """
    chosen = torch.arange(len(lengths)) if chosen is None else chosen
    order = chosen[torch.randperm(len(chosen), generator=generator)]
    groups = order.split(batch_size * BATCHES_PER_GROUP)
    order = torch.cat([by_length(lengths, group, falling=longest_first) for group in groups])
    batches = list(order.split(batch_size))
    # A short batch stays last: anywhere else it would shift the borders of those behind it.
    last = batches.pop() if len(batches[-1]) < batch_size else order[:0]
    return torch.cat([*shuffled(batches, lengths, generator, longest_first), last])


def by_length(lengths: Tensor, indices: Tensor, falling: bool) -> Tensor:
    """Indices in the order of their lengths; among equal ones, as they stand."""
    return indices[lengths[indices].argsort(descending=falling, stable=True)]


def shuffled(
    batches: Sequence[Tensor], lengths: Tensor, generator: torch.Generator, longest_first: bool
) -> list[Tensor]:
    """Batches of indices in random order.

    Args:
        longest_first: begin with the one of the longest example, which stands first in its batch.
    """
    order = torch.randperm(len(batches), generator=generator).tolist()
    if longest_first and batches:
        longest = int(torch.stack([lengths[batch[0]] for batch in batches]).argmax())
        order = [longest, *(i for i in order if i != longest)]
    return [batches[i] for i in order]
