"""Random parts of a data set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefix_tuning.errors import UserError
from scripts.sampling import random_subset, sample_low_data
from seq2seq.files import Record


def records(count: int, name: str = "r") -> list[Record]:
    return [Record(f"{name} {i}", f"target {i}", "") for i in range(count)]


def test_low_data_draws_equal_numpys_seeded_ones() -> None:
    train, val = records(300), records(90, "v")
    few, few_val = sample_low_data(train, val, 50, seed=101)
    np.random.seed(101)
    assert few == [train[i] for i in np.random.choice(300, 50, replace=False)]
    assert few_val == [val[i] for i in np.random.choice(90, 15, replace=False)]
    assert sample_low_data(train, val, 50, seed=22)[0] != few


@pytest.mark.parametrize("size", [0, 3, 301, 300])
def test_impossible_samples(size: int) -> None:
    with pytest.raises(UserError, match="choose another --size"):
        sample_low_data(records(300), records(89), size, seed=0)


@pytest.mark.parametrize(
    ("count", "seed", "message"),
    [(0, 0, "--max_test 0"), (-1, 0, "--max_test -1"), (1, -1, "--seed -1"), (1, 2**32, "--seed")],
)
def test_impossible_draws(count: int, seed: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        random_subset(records(5), count, seed)
    if seed:
        with pytest.raises(UserError, match=message):
            sample_low_data(records(50), records(50), 4, seed)


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_random_subset(total: int, count: int, seed: int) -> None:
    whole = records(total)
    some = random_subset(whole, count, seed)
    assert len(some) == min(count, total)
    assert some == [record for record in whole if record in some]
