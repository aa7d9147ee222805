"""Inputs that stand for a set, and a score by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT

from experiments import inputs
from gpt2.tasks import read_records


def test_inputs_are_spread_over_the_file(tmp_path: Path) -> None:
    source = ROOT / "data/restaurants/src1_valid.txt"
    every, first, picked = inputs.pick_inputs(source, 10, tmp_path)
    assert len(picked) == 10
    assert inputs.evenly_spaced([*range(10)], 3) == [0, 3, 6]
    assert len({record.source for record in picked}) == 10
    assert len(read_records("data2text", first, training=True)) == 10
    n_target = sum(len(record.targets) for record in picked)
    assert len(read_records("data2text", every, training=True)) == n_target
    lines = source.read_text("utf-8").splitlines()
    assert set(every.read_text("utf-8").splitlines()) <= set(lines)


def test_rouge_l_by_hand() -> None:
    """The longest common subsequence of 3 words: F1 of 3/4 and 3/5."""
    score = inputs.rouge_l([["a b x c", "z"]], ["a b c y w"])
    assert score == pytest.approx(2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5))
