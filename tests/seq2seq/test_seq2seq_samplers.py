"""Samplers: an epoch is every example once, in batches of like lengths."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefix_tuning.errors import UserError
from seq2seq.modules import SummarizationModule
from seq2seq.samplers import DistributedSortishSampler, SortishSampler, TokenBatchSampler

LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=300)


def batches_of(order: list[int], batch_size: int) -> list[list[int]]:
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


# SortishSampler.


@given(lengths=LENGTHS, batch_size=st.integers(1, 7), seed=st.integers(0, 3))
def test_sortish_order(lengths: list[int], batch_size: int, seed: int) -> None:
    sampler = SortishSampler(lengths, batch_size, seed=seed)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths))) == list(range(len(sampler)))
    assert list(sampler) == order
    batches = batches_of(order, batch_size)
    for batch in batches:
        by_length = [lengths[i] for i in batch]
        assert by_length == sorted(by_length, reverse=True)
    whole = [batch for batch in batches if len(batch) == batch_size]
    if whole:
        assert lengths[order[0]] == max(lengths[batch[0]] for batch in whole)


def test_sortish_chunks_are_fifty_batches() -> None:
    """Two chunks: were all examples sorted together, every batch would hold neighbours."""
    lengths = list(range(200))
    batches = batches_of(list(SortishSampler(lengths, 2)), 2)
    chunks: Counter[int] = Counter()
    for high, low in batches:
        assert high > low
        chunks[high - low] += 1
    # Hundred of 200 at random, sorted: gaps of 1 to about 8, 2 on average.
    assert 1.5 < sum(gap * n for gap, n in chunks.items()) / 100 < 2.5
    assert max(chunks) > 2
    # 100 examples are one chunk, in which neighbours share a batch.
    assert all(a - b == 1 for a, b in batches_of(list(SortishSampler(lengths[:100], 2)), 2))


def test_sortish_epochs_and_seeds_differ() -> None:
    lengths = list(range(100))
    sampler = SortishSampler(lengths, 4, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(SortishSampler(lengths, 4, seed=2)) == list(sampler)
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(SortishSampler(lengths, 4, seed=9)) != first


@given(lengths=LENGTHS, batch_size=st.integers(1, 7))
def test_without_shuffling_lengths_fall(lengths: list[int], batch_size: int) -> None:
    expected = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    assert list(SortishSampler(lengths, batch_size, shuffle=False)) == expected


# DistributedSortishSampler.


@given(
    lengths=LENGTHS,
    batch_size=st.integers(1, 7),
    num_replicas=st.integers(1, 9),
    shuffle=st.booleans(),
)
def test_ranks_share_the_examples(
    lengths: list[int], batch_size: int, num_replicas: int, shuffle: bool
) -> None:
    orders = []
    for rank in range(num_replicas):
        sampler = DistributedSortishSampler(lengths, batch_size, num_replicas, rank, shuffle)
        orders.append(list(sampler))
        assert len(orders[-1]) == len(sampler)
    total = -(-len(lengths) // num_replicas) * num_replicas
    assert {len(order) for order in orders} == {total // num_replicas}
    for rank, order in enumerate(orders):
        padded = [i % len(lengths) for i in range(total)]
        assert sorted(order) == sorted(padded[rank::num_replicas])
        for batch in batches_of(order, batch_size):
            by_length = [lengths[i] for i in batch]
            assert by_length == sorted(by_length, reverse=True)
    own: list[int] = []
    for rank, order in enumerate(orders):
        trainer = SimpleNamespace(world_size=num_replicas)
        args = SimpleNamespace(sortish_sampler=True)
        module: Any = SimpleNamespace(global_rank=rank, trainer=trainer, args=args)
        ids = torch.tensor(order)
        own += ids[~SummarizationModule._repetitions(module, ids, 0)].tolist()
    assert sorted(own) == list(range(len(lengths)))


def test_one_replica_is_the_plain_sampler() -> None:
    lengths = [i * 7 % 31 for i in range(90)]
    plain, only = SortishSampler(lengths, 4), DistributedSortishSampler(lengths, 4, 1, 0)
    only.set_epoch(3)
    assert list(only) != list(plain)
    plain.set_epoch(3)
    assert list(only) == list(plain)


# TokenBatchSampler.


@given(
    lengths=LENGTHS,
    max_tokens=st.integers(1, 200),
    shuffle=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_no_batch_exceeds_the_limit(
    lengths: list[int], max_tokens: int, shuffle: bool, epoch: int
) -> None:
    sampler = TokenBatchSampler(lengths, max_tokens, shuffle, seed=5)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert batch
        longest = max(lengths[i] for i in batch)
        assert longest * len(batch) <= max_tokens or len(batch) == 1
    assert max(lengths[i] for i in batches[0]) == max(lengths)
    assert list(sampler) == batches


@given(lengths=st.lists(st.integers(1, 60), min_size=2, max_size=60), max_tokens=st.integers(1, 99))
def test_batches_are_full_and_of_like_lengths(lengths: list[int], max_tokens: int) -> None:
    """Falling lengths, and the first of a batch would not fit into the one before it."""
    batches = list(TokenBatchSampler(lengths, max_tokens, shuffle=False))
    flat = [lengths[i] for batch in batches for i in batch]
    assert flat == sorted(lengths, reverse=True)
    for batch in batches[:-1]:
        assert lengths[batch[0]] * (len(batch) + 1) > max_tokens


def test_token_batches_by_hand() -> None:
    lengths = [3, 9, 2, 5, 4]
    assert list(TokenBatchSampler(lengths, 10, shuffle=False)) == [[1], [3, 4], [0, 2]]
    assert list(TokenBatchSampler(lengths, 8, shuffle=False)) == [[1], [3], [4, 0], [2]]


def test_token_batches_of_epochs_differ() -> None:
    sampler = TokenBatchSampler([i % 20 for i in range(200)], 60)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first[1:] != second[1:]
    assert len(first) == len(second)
    # Not only the order of batches: who shares one changes too, among equally long examples.
    assert {frozenset(b) for b in first} != {frozenset(b) for b in second}


def test_a_limit_that_is_none() -> None:
    with pytest.raises(UserError, match="--max_tokens_per_batch 0"):
        TokenBatchSampler([1, 2], 0)
