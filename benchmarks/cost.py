"""What a training step costs, by prefix length, batch and text length: a table and a figure.

GPT-2's shape with random weights; one of the three is varied, the others stay. All settings are
measured in turn, in one process, beside the frozen model alone on the same tokens, which is the
least that any prefix costs.
"""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.shapes import GPT2

VARIED = {
    "preseqlen": (1, 10, 50, 100, 200, 400),
    "batch_size": (1, 4, 10, 32),
    "tokens": (16, 64, 128, 256),
}
"""What is varied, and its values; the others have those of :data:`USUAL`."""
USUAL = {"preseqlen": 10, "batch_size": 10, "tokens": 64}
LABELS = {
    "preseqlen": "prefix length P",
    "batch_size": "rows of a batch",
    "tokens": "tokens of a row",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="gpt2", choices=list(GPT2), help="size of the model")
    parser.add_argument("--rounds", type=int, default=2, help="steps of each setting")
    parser.add_argument("--figure", type=Path, help="file of the figure, .svg or .png")
    parser.add_argument(
        "--dtype", default="float32", choices=["float32", "bfloat16"], help="precision of the model"
    )
    return parser


if __name__ == "__main__":
    _parser().parse_args()  # --help ends here, before the imports that take seconds

import torch

from benchmarks.gpt2_training import floor_step, make_model, our_step
from benchmarks.measure import alternate, device
from prefix_tuning.objectives import target_positions


def settings() -> list[dict[str, int]]:
    """Every setting once."""
    found = [{**USUAL, name: value} for name, values in VARIED.items() for value in values]
    return [setting for i, setting in enumerate(found) if setting not in found[:i]]


def make_batch(batch_size: int, tokens: int) -> dict[str, torch.Tensor]:
    """Random tokens, the second half of each row with a loss."""
    ids = torch.randint(0, 50_000, (batch_size, tokens), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, : tokens // 2] = -100
    batch = {"input_ids": ids, "labels": labels, "targets": target_positions(labels)}
    return {name: tensor.to(device()) for name, tensor in batch.items()}


def measure(args: Namespace) -> dict[tuple[int, ...], tuple[float, float]]:
    """Setting -> seconds of our step, and of the frozen model alone."""
    ours, frozen = (make_model(args.shape, args.dtype) for _ in range(2))
    ways, keys = {}, []
    for setting in settings():
        key = tuple(setting.values())
        batches = [make_batch(setting["batch_size"], setting["tokens"])]
        given = Namespace(shape=args.shape, dtype=args.dtype, preseqlen=setting["preseqlen"])
        ways[f"ours {key}"] = our_step(given, batches, ours)
        ways[f"frozen {key}"] = floor_step(given, batches, frozen)
        keys.append(key)
    seconds = alternate(ways, args.rounds)
    return {
        key: (seconds[f"ours {key}"] / args.rounds, seconds[f"frozen {key}"] / args.rounds)
        for key in keys
    }


def draw(found: dict[tuple[int, ...], tuple[float, float]], title: str, target: Path) -> None:
    """A frame for each of what is varied."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, frames = pyplot.subplots(1, len(VARIED), figsize=(11, 3.2), layout="constrained")
    for frame, (name, values) in zip(frames, VARIED.items(), strict=True):
        rows = [found[tuple({**USUAL, name: value}.values())] for value in values]
        for column, label in enumerate(("with the prefix", "frozen model alone")):
            frame.plot(values, [row[column] for row in rows], marker="o", label=label)
        frame.set_xlabel(LABELS[name])
        frame.set_ylim(bottom=0)
    frames[0].set_ylabel("seconds a step")
    frames[0].legend()
    figure.suptitle(title, fontsize="medium")
    figure.savefig(target)


def main() -> None:
    """Print the table, and draw the figure."""
    args: Any = _parser().parse_args()
    name, args.dtype = args.dtype, getattr(torch, args.dtype)
    found = measure(args)
    print(f"\n{args.shape}, {name}, {device()}, {torch.get_num_threads()} threads")
    print("  ".join([*LABELS.values(), "seconds", "of them the frozen model alone"]))
    for key, (ours, frozen) in found.items():
        cells = [
            f"{value:>{len(label)}}" for value, label in zip(key, LABELS.values(), strict=True)
        ]
        print("  ".join([*cells, f"{ours:7.3f}", f"{frozen / ours:.2f}"]))
    if args.figure:
        draw(found, f"A training step, {args.shape}, {name}, {device()}", args.figure)


if __name__ == "__main__":
    main()
