"""Measuring two ways of doing the same thing side by side in one process."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

Step = Callable[[int], None]


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def alternate(ways: dict[str, Step], rounds: int, warm_up: bool = True) -> dict[str, float]:
    """Seconds spent in each way, run in turn so that a busy machine slows all alike.

    Args:
        ways: each is called with the number of the round.
        warm_up: call each once before counting, and on a GPU, where a shape takes longer when it
            is met first, with every number.
    """
    seconds = dict.fromkeys(ways, 0.0)
    for step in ways.values() if warm_up else ():
        for i in range(rounds if torch.cuda.is_available() else 1):
            step(i)
    for i in tqdm(range(rounds), desc="measuring", unit="round"):
        for name, step in ways.items():
            _wait()
            start = time.perf_counter()
            step(i)
            _wait()
            seconds[name] += time.perf_counter() - start
    return seconds


def peak_memory(step: Step) -> float:
    """The most tensor memory (MB) allocated during a call above what there was before."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(0)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    allocations = [event for event in events if event.get("name") == "[memory]"]
    sizes = [e["args"]["Bytes"] for e in sorted(allocations, key=lambda e: e["ts"])]
    total = peak = 0
    for size in sizes:
        total += size
        peak = max(peak, total)
    return peak / 1e6


def update(optimizer: torch.optim.Optimizer) -> None:
    """Clip, step."""
    trained = [weight for group in optimizer.param_groups for weight in group["params"]]
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
