"""Every reader accepts a file with the right count, or refuses it in one sentence with its place.

``tests/faults/run.py`` tries the same for as long as one likes.
"""

from __future__ import annotations

import random

import pytest
from faults.damage import HARMLESS
from faults.readers import READERS
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("name", READERS)
def test_what_changes_no_record(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    reader = READERS[name]
    for what, change in HARMLESS.items():
        found = reader.attempt(tmp_path_factory.mktemp("files"), change(reader.raw))
        assert found == reader.count, what


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_damaged_files(name: str, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    READERS[name].damaged(tmp_path_factory.mktemp("files"), random.Random(seed))
