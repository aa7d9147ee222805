"""The service under load on loopback, and under faults.

The same requests (mixed lengths, searches, streams) are answered 32 at a time over many prefixes,
32 at a time with one prefix, and one by one. None may be lost, and each must equal its answer one
by one. Then clients vanish, prefixes are replaced and damaged while they are served, bodies are
malformed or too long, the queue overflows, and SIGTERM comes in the middle.

Random weights, bytes as tokens. Client and server share the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.shapes import SERVED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="small", choices=list(SERVED), help="size of the model")
    parser.add_argument("--requests", type=int, default=1000, help="requests of each load")
    parser.add_argument("--prefixes", type=int, default=20, help="number of prefixes")
    parser.add_argument("--at_a_time", type=int, default=32, help="requests together")
    parser.add_argument("--blocks", type=int, default=5, help="turns that the loads take")
    parser.add_argument("--fault_requests", type=int, default=200, help="0 skips the faults")
    return parser


if __name__ == "__main__":
    _parser().parse_args()  # --help ends here, before the imports that take seconds

from benchmarks.serving_faults import faults
from benchmarks.serving_load import (
    Load,
    make_load,
    make_model,
    run_load,
    serving,
    write_prefix,
)


def measure(folder: Path, args: argparse.Namespace) -> None:
    """The three loads side by side; raises AssertionError if a request is lost or mixed."""
    model = make_model(folder / "model", args.shape)
    names = [f"p{i}" for i in range(args.prefixes)]
    for i, name in enumerate(names):
        write_prefix(folder / "prefixes", model, name, i)
    bodies = make_load(args.requests, names)
    one = [{**body, "model": names[0]} for body in bodies]
    mixed, same, solo = Load(), Load(), Load()
    with serving(folder / "model", folder / "prefixes") as (_, url):
        run_load(url, make_load(args.at_a_time, names, 1), args.at_a_time)  # warm up
        size = -(-args.requests // args.blocks)
        for start in range(0, args.requests, size):  # in turn: a busy machine slows all alike
            block = slice(start, start + size)
            mixed += run_load(url, bodies[block], args.at_a_time)
            same += run_load(url, one[block], args.at_a_time)
            solo += run_load(url, bodies[block], 1)
    print(f"{args.prefixes} prefixes, {args.at_a_time} at a time  {mixed}")
    print(f"one prefix, {args.at_a_time} at a time   {same}")
    print(f"{args.prefixes} prefixes, one by one     {solo}", flush=True)
    answers = mixed.answers + same.answers + solo.answers
    lost = sum(not isinstance(answer, tuple) for answer in answers)
    other = sum(a != b for a, b in zip(mixed.answers, solo.answers, strict=True))
    print(f"lost {lost}, other than alone {other}, different texts {len({*mixed.answers})}")
    assert lost == 0
    assert other == 0
    beside_one, beside_solo = same.seconds / mixed.seconds, solo.seconds / mixed.seconds
    print(f"throughput beside one prefix {beside_one:.2f}, beside one by one {beside_solo:.2f}")


def main(argv: Sequence[str] | None = None) -> None:
    """Print throughput, latencies and what the faults came to."""
    args = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder) / "load", args)
        if args.fault_requests:
            seen = faults(Path(folder) / "faults", args.shape, args.fault_requests, args.at_a_time)
            for what, count in sorted(seen.items()):
                print(f"{count:5} {what}")


if __name__ == "__main__":
    main()
