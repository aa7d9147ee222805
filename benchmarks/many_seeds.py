"""Several runs in one batch: a step of stacked runs beside the single steps of each.

Each row of a batch carries its run's prefix, losses are summed, and each run has its optimiser.
Texts are padded to the widest run, prefixes to the longest. Losses are compared before anything is
measured.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.shapes import E2E_LENGTHS, GPT2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="gpt2", choices=list(GPT2), help="size of the model")
    parser.add_argument(
        "--preseqlen", type=int, nargs="+", default=[5, 5, 5], help="prefix length of each run"
    )
    parser.add_argument("--batch_size", type=int, default=10, help="rows of each run's batch")
    parser.add_argument("--rounds", type=int, default=4, help="steps of each way")
    return parser


if __name__ == "__main__":
    _parser().parse_args()  # --help ends here, before the imports that take seconds

import torch
from torch import Tensor
from torch.nn.functional import pad

from benchmarks.gpt2_training import PAD, make_batches, make_model
from benchmarks.measure import alternate, device, update
from gpt2.train_control import PrefixTuning
from prefix_tuning.activation import fuse_activations
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.objectives import IGNORE, target_nll


class Run:
    """A prefix, its optimiser and its batches in an order of its own."""

    def __init__(self, model: Any, seed: int, length: int, batch_size: int) -> None:
        torch.manual_seed(seed)
        self.prefix = PrefixTuning(model.config, preseqlen=length).to(device())
        self.optimizer = torch.optim.AdamW(self.prefix.parameters(), lr=5e-5)
        order = torch.randperm(len(E2E_LENGTHS), generator=torch.Generator().manual_seed(seed))
        self.batches = make_batches(order.tolist(), batch_size)

    def batch(self, i: int) -> dict[str, Tensor]:
        """The batch of a step."""
        kept = self.batches[i % len(self.batches)]
        return {name: kept[name] for name in ("input_ids", "labels", "targets")}


def single_losses(model: Any, runs: list[Run], i: int) -> list[Tensor]:
    """The loss of each run, computed for itself and brought back to its prefix."""
    losses = []
    for run in runs:
        loss = run.prefix(**run.batch(i), gpt2_model=model, targets_only=True).loss.mean()
        loss.backward()
        losses.append(loss.detach())
    return losses


def stacked_losses(model: Any, runs: list[Run], i: int) -> list[Tensor]:
    """The same from one forward and one backward pass of all rows."""
    batches = [run.batch(i) for run in runs]
    width = max(batch["input_ids"].shape[1] for batch in batches)

    def stack(name: str, filler: int) -> Tensor:
        rows = [pad(b[name], (0, width - b[name].shape[1]), value=filler) for b in batches]
        return torch.cat(rows)  # [runs * B, T]

    lengths, sizes = [run.prefix.length for run in runs], [len(b["labels"]) for b in batches]
    longest = max(lengths)
    prompts = [run.prefix.prompt(model).sites["self"] for run in runs]
    layers = []
    for pairs in zip(*prompts, strict=True):  # of a layer: [2, 1, H, P, d] of each run
        rows = [  # [2, 1, H, P, d] -> [2, B, H, longest, d]
            pad(pair, (0, 0, 0, longest - pair.shape[3])).expand(-1, size, -1, -1, -1)
            for pair, size in zip(pairs, sizes, strict=True)
        ]
        layers.append(torch.cat(rows, dim=1))  # [2, runs * B, H, P, d]
    offset = torch.tensor(lengths, device=device()).repeat_interleave(
        torch.tensor(sizes, device=device())
    )
    visible = torch.arange(longest, device=device()) < offset[:, None]
    front = KeyValues(layers, offset, None if len(set(lengths)) == 1 else visible)
    nll = target_nll(model, front, stack("input_ids", PAD), stack("labels", IGNORE))
    losses = [part.sum(dim=1).mean() for part in nll.split(sizes)]
    torch.stack(losses).sum().backward()
    return [loss.detach() for loss in losses]


def main() -> None:
    """Print the ratio."""
    args = _parser().parse_args()
    model = enable_prefix(fuse_activations(make_model(args.shape, torch.float32)))
    runs = [Run(model, i, length, args.batch_size) for i, length in enumerate(args.preseqlen)]
    losses = [way(model, runs, 0) for way in (single_losses, stacked_losses)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=0)
    for run in runs:
        run.optimizer.zero_grad()

    def step(way: Any, i: int) -> None:
        way(model, runs, i)
        for run in runs:
            update(run.optimizer)

    ways = {
        "single": lambda i: step(single_losses, i),
        "stacked": lambda i: step(stacked_losses, i),
    }
    seconds = alternate(ways, args.rounds)
    print(f"stacked beside single steps: {seconds['stacked'] / seconds['single']:.2f} of the time")


if __name__ == "__main__":
    main()
