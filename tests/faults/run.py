"""Try malformed files, damaged folders, kills, full disks and two processes for a while.

    python tests/faults/run.py --minutes 30

Prints how many were tried, accepted, refused in one sentence, and failed, by class, and the first
failures of each kind with the seed that makes them again.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib
import io
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (1, 2)]

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

from faults.decodes import DECODES, Decodes
from faults.folders import CLASSES, SYSTEMS, Runs
from faults.readers import READERS, Fault

Attempt = Callable[[random.Random], str]
_NEEDED = ("gpt2.training", "ptuning_v2.training.session", "seq2seq.training")
"""Imported once: runs are forked from this process, which has one thread."""
_SHARES = {"reader": 0.25, "decode": 0.15}
"""Of the time; the rest is that of runs, which take seconds each."""


@contextlib.contextmanager
def _within(seconds: int) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise Fault(f"no end after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Tally:
    """What was tried, by class, and what failed."""

    def __init__(self) -> None:
        self.counts: dict[str, collections.Counter[str]] = {}
        self.kinds: dict[tuple[str, str], str] = {}

    def add(self, name: str, seed: int, attempt: Attempt, seconds: int) -> None:
        counts = self.counts.setdefault(name, collections.Counter())
        counts["tried"] += 1
        try:
            with _within(seconds), contextlib.redirect_stdout(io.StringIO()):
                counts[attempt(random.Random(seed))] += 1
        except Fault as fault:
            counts["failed"] += 1
            kind = (name, str(fault)[:60])
            if kind not in self.kinds:
                self.kinds[kind] = f"{name}, seed {seed}: {fault}"
                print(f"FAILED {self.kinds[kind]}", flush=True)

    def lines(self) -> Iterator[str]:
        for name, counts in sorted(self.counts.items()):
            rest = ", ".join(f"{n} {what}" for what, n in counts.items() if what != "tried")
            yield f"{name:40} {counts['tried']:6} tried: {rest}"
        total = sum(self.counts.values(), collections.Counter[str]())
        yield f"{'all':40} {total['tried']:6} tried: {total['failed']} failed"


def _try_readers(tally: Tally, folder: Path, seeds: Iterator[int], until: float) -> None:
    while time.monotonic() < until:
        for name, reader in READERS.items():
            tally.add(f"reader, {name}", next(seeds), lambda c, r=reader: r.damaged(folder, c), 60)


def _try_runs(tally: Tally, folder: Path, seeds: Iterator[int], until: float) -> None:
    runs = {}
    for name in SYSTEMS:
        try:
            runs[name] = Runs(name, folder / name)
        except Fault as fault:
            print(f"FAILED {name}, undisturbed: {fault}", flush=True)
    while runs and time.monotonic() < until:
        for kind, attempt in CLASSES.items():
            for name, of_system in runs.items():
                if time.monotonic() < until:
                    title = f"{kind}, {name}"
                    tally.add(title, next(seeds), lambda c, a=attempt, r=of_system: a(r, c), 1800)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long to try")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    args = parser.parse_args()
    for name in _NEEDED:
        importlib.import_module(name)
    chance, tally = random.Random(args.seed), Tally()
    seeds = iter(lambda: chance.randrange(2**32), -1)
    began, seconds = time.monotonic(), 60 * args.minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "files").mkdir()
        _try_readers(tally, folder / "files", seeds, began + _SHARES["reader"] * seconds)
        decodes = {name: Decodes(folder / f"decodes-{name}", name) for name in DECODES}
        while time.monotonic() < began + (_SHARES["reader"] + _SHARES["decode"]) * seconds:
            for system, of_system in decodes.items():
                tally.add(f"damaged, decoded, {system}", next(seeds), of_system.attempt, 120)
        _try_runs(tally, folder, seeds, began + seconds)
    print("\n".join(tally.lines()))
    sys.exit(any(counts["failed"] for counts in tally.counts.values()))


if __name__ == "__main__":
    main()
