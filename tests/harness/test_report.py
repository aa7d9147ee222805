"""Sizes as data and as lines."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from harness.report import Sizes, peak_memories, peak_memory, sizes
from prefix_tuning.prefix import FlatPrefix
from prefix_tuning.shape import PrefixShape


def test_sizes_of_a_baseline_by_hand(tmp_path: Path) -> None:
    base = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    base[0].requires_grad_(False)
    counted = sizes(base, None)
    assert counted == Sizes(base=16 + 10, trained=10, is_frozen=False)
    assert counted.lines() == [
        "base model                         26 parameters",
        "trained parameters                 10 (38.46% of the base model)",
    ]
    counted.write(tmp_path)
    assert json.loads((tmp_path / "sizes.json").read_text()) == {"base": 26, "trained": 10}
    prefix = FlatPrefix(PrefixShape(n_layer=1, n_head=2, head_dim=3, width=6), 5)
    assert sizes(base, prefix) == Sizes(base=26, trained=10 + 60, is_frozen=False, stored=60)


def test_lines_are_those_that_logs_have_always_had() -> None:
    lines = Sizes(124_439_808, 9_921_536, True, stored=184_320, prompts=7).lines()
    assert lines == [
        "base model                124,439,808 parameters, frozen",
        "trained parameters          9,921,536 (7.97% of the base model)",
        "  of them prompts                   7, the rest is the head",
        "stored parameters             184,320 (0.15% of the base model, 0.74 MB in fp32)",
    ]


def test_memory_is_that_of_this_process() -> None:
    assert 10_000_000 < peak_memories()["process"] < 1e12
    assert peak_memory() in peak_memories().values()
