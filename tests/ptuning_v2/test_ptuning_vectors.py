"""The original's logits, losses and gradients, for every family, task and kind of prompt."""

from __future__ import annotations

import pytest
from conftest import case_of, vector_cases, within

from scripts.verify import ptuning_numbers


@pytest.mark.parametrize("name", vector_cases("ptuning_"))
def test_the_originals_numbers(name: str) -> None:
    within(ptuning_numbers.numbers(case_of(f"ptuning_{name}")))
