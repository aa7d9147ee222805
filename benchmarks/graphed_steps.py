"""Eager training steps beside replayed ones: first that they compute the same, then how fast.

Prints a line of JSON. Without a GPU nothing is recorded, and the lines say only that this runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="gpt2-medium", help="model whose steps are timed")
    parser.add_argument(
        "--dtype",
        default="bfloat16",
        choices=["float32", "bfloat16"],
        help="precision of the timed steps",
    )
    parser.add_argument("--batch_size", type=int, default=10, help="rows of a batch")
    parser.add_argument("--batches", type=int, default=8, help="different batches")
    parser.add_argument("--steps", type=int, default=100, help="timed steps of each way")
    return parser


if __name__ == "__main__":
    _parser().parse_args()  # --help ends here, before the imports that take seconds

import torch

from benchmarks.gpt2_training import FEW_SHAPES, make_batches, make_model
from benchmarks.measure import update
from gpt2.train_control import PrefixTuning
from harness.graphs import CudaRecorder, GraphedStep
from prefix_tuning.activation import fuse_activations
from prefix_tuning.attention import enable_prefix


def _setting(shape: str, dtype: str, batch_size: int, n_batch: int) -> tuple[Any, Any, Any]:
    """A prefix, its loss of a batch, and batches of few widths."""
    model = enable_prefix(fuse_activations(make_model(shape, getattr(torch, dtype))))
    torch.manual_seed(0)
    prefix = PrefixTuning(model.config, preseqlen=5, objective_mode=0).to(model.device)
    batches = make_batches([*range(n_batch * batch_size)], batch_size, FEW_SHAPES)
    for batch in batches:
        del batch["attention_mask"]

    def loss(batch: dict[str, Any]) -> Any:
        return prefix(**batch, gpt2_model=model, targets_only=True).loss

    return prefix, loss, batches


def _run(way: str, args: argparse.Namespace, shape: str, dtype: str, steps: int) -> tuple[Any, Any]:
    """Losses of ``steps`` steps and the seconds of each, after every shape has been met."""
    prefix, compute, batches = _setting(shape, dtype, args.batch_size, args.batches)
    parameters = [*prefix.parameters()]
    on_gpu = parameters[0].is_cuda
    optimizer = torch.optim.AdamW(parameters, lr=5e-5, fused=True)
    graphed = GraphedStep(compute, parameters, CudaRecorder() if on_gpu else lambda step: step)
    for batch in batches:  # warm every shape, and change nothing
        graphed(batch) if way == "graphed" else compute(batch).backward()
        optimizer.zero_grad()
    losses, seconds = [], []
    for i in range(steps):
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        batch = batches[i % len(batches)]
        if way == "graphed":
            loss = graphed(batch)
            assert loss is not None, "this shape could not be recorded"
        else:
            loss = compute(batch)
            loss.backward()
        update(optimizer)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        losses.append(loss.detach())
    weights = torch.cat([parameter.detach().flatten() for parameter in parameters])
    return torch.cat([torch.stack(losses), weights]).float().cpu(), sorted(seconds)[steps // 2]


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, and print."""
    args = _parser().parse_args(argv)
    # Tiny and in fp32, where nothing but a wrong recording can make a difference.
    exact = {way: _run(way, args, "tiny", "float32", args.steps)[0] for way in ("eager", "graphed")}
    difference = float((exact["eager"] - exact["graphed"]).abs().max())
    seconds = {w: _run(w, args, args.shape, args.dtype, args.steps)[1] for w in exact}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    found = {
        "device": device,
        "torch": torch.__version__,
        **vars(args),
        "largest_difference_fp32": difference,
        "is_correct": difference <= 1e-6,
        "seconds": seconds,
        "ratio": seconds["eager"] / seconds["graphed"],
    }
    print(json.dumps(found))
    if not found["is_correct"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
