"""Training prefixes for BART: ours beside the original's way, and beside fine-tuning.

The original's way runs the three MLPs on every row of the batch, gives every row a copy of the
prefix, and runs the head on padding. Same shape (random weights), data, precision and optimiser, in
one process in turn. A step is forward, backward and AdamW, with BART's dropout active.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.shapes import BART, XSUM_LENGTHS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shape", default="bart-large", choices=list(BART), help="size of the model"
    )
    parser.add_argument("--layers", type=int, help="layers of each stack, if not the shape's")
    parser.add_argument("--preseqlen", type=int, default=200, help="prefix length")
    parser.add_argument("--mid_dim", type=int, default=800, help="width of the prefixes' MLPs")
    parser.add_argument("--batch_size", type=int, default=8, help="rows of a batch")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each way")
    parser.add_argument(
        "--dtype", default="float32", choices=["float32", "bfloat16"], help="precision of the model"
    )
    return parser


if __name__ == "__main__":
    _parser().parse_args()  # --help ends here, before the imports that take seconds

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from transformers import BartConfig, BartForConditionalGeneration

from benchmarks.measure import Step, alternate, device, peak_memory
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.objectives import target_logits
from prefix_tuning.prefix import parameter_name
from seq2seq.prefixTuning import PrefixTuning

Loss = Callable[[dict[str, Tensor]], Tensor]


class OriginalsWay(PrefixTuning):
    """The MLPs on every row, and keys and values of every row."""

    def slots_of_rows(self, rows: int, site: str) -> Tensor:
        device = self.get_parameter("wte.weight").device
        indices = torch.arange(self.length, device=device).expand(rows, -1)
        embedding = self.get_submodule(parameter_name("wte", site))
        return self.get_submodule(parameter_name("control_trans", site))(embedding(indices))

    def key_values(self, batch_size: int = 1, site: str = "self") -> tuple[Tensor, ...]:
        return self.shape.to_layers(self.slots_of_rows(batch_size, site)).unbind(0)


def make_model(args: argparse.Namespace) -> Any:
    """A BART of the shape with random weights."""
    n_layer, n_head, width, ffn = BART[args.shape]
    n_layer = args.layers or n_layer
    torch.manual_seed(0)
    config = BartConfig(
        encoder_layers=n_layer,
        decoder_layers=n_layer,
        encoder_attention_heads=n_head,
        decoder_attention_heads=n_head,
        d_model=width,
        encoder_ffn_dim=ffn,
        decoder_ffn_dim=ffn,
    )
    return BartForConditionalGeneration(config).train()


def make_batches(args: argparse.Namespace) -> list[dict[str, Tensor]]:
    """Random tokens with XSUM's lengths, sources cut at 512 tokens and targets at 60."""
    batches = []
    for start in range(0, len(XSUM_LENGTHS) - args.batch_size + 1, args.batch_size):
        lengths = torch.tensor(XSUM_LENGTHS[start : start + args.batch_size])
        batch = {}
        for name, own in (("", lengths[:, 0]), ("decoder_", lengths[:, 1])):
            width = int(own.max())
            ids = torch.randint(3, 50_000, (args.batch_size, width))
            batch[f"{name}input_ids"] = ids
            batch[f"{name}attention_mask"] = torch.arange(width) < own[:, None]
        batches.append(batch)
    return batches


def all_logits(output: Any, batch: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of the next tokens, the head run on padding too."""
    real = batch["decoder_attention_mask"]
    logits = output.logits.flatten(0, 1)  # [B, T, V] -> [B * T, V]
    losses = cross_entropy(logits, batch["decoder_input_ids"].flatten(), reduction="none")
    return (losses * real.flatten()).sum() / real.sum()


def build(args: argparse.Namespace, way: str, model: Any) -> tuple[Loss, Any]:
    """Loss and what is trained, in one of the three ways."""
    if way == "fine-tuning":
        return lambda batch: all_logits(model(**batch, use_cache=False), batch), model
    enable_prefix(model.requires_grad_(False))
    model.train()
    prefix_class = PrefixTuning if way == "ours" else OriginalsWay
    prefix = prefix_class(model.config, model, args.preseqlen, args.mid_dim)

    def loss(batch: dict[str, Tensor]) -> Tensor:
        key_values = KeyValues(prefix.all_key_values(args.batch_size))
        inputs = {**batch, "use_cache": False}
        if way != "ours":
            return all_logits(model(prefix=key_values, **inputs), batch)
        real = batch["decoder_attention_mask"]
        logits = target_logits(model, key_values, inputs, real)
        return cross_entropy(logits, batch["decoder_input_ids"][real])

    return loss, prefix


WAYS = ("fine-tuning", "the original's way", "ours")


def count_flops(step: Step, i: int) -> float:
    """FLOPs (1e12) of a step."""
    with FlopCounterMode(display=False) as counter:
        step(i)
    return counter.get_total_flops() / 1e12


def make_step(args: argparse.Namespace, way: str) -> Step:
    """One update."""
    loss, trained = build(args, way, make_model(args).to(device(), args.dtype))
    trained.to(device())
    optimizer = torch.optim.AdamW(trained.parameters(), lr=5e-5)
    batches = make_batches(args)

    def step(i: int) -> None:
        loss({k: v.to(device()) for k, v in batches[i % len(batches)].items()}).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Print the ratios."""
    args = _parser().parse_args()
    args.dtype = getattr(torch, args.dtype)

    steps = {way: make_step(args, way) for way in WAYS}
    seconds = alternate(steps, args.rounds)
    flops = {
        way: sum(count_flops(step, i) for i in range(args.rounds)) / args.rounds
        for way, step in steps.items()
    }
    memory = {way: peak_memory(step) for way, step in steps.items()}
    layers = args.layers or BART[args.shape][0]
    print(f"\n{args.shape}, {layers} layers a stack, P={args.preseqlen}, mid {args.mid_dim},")
    print(f"batch {args.batch_size}, {args.dtype}, {device()}")
    first = WAYS[0]
    for way in WAYS:
        print(
            f"{way:20} {flops[way]:6.2f} TFLOP a step ({flops[way] / flops[first]:.2f}), "
            f"{seconds[way] / args.rounds:7.2f} s ({seconds[way] / seconds[first]:.2f}), "
            f"{memory[way]:7.0f} MB above the model ({memory[way] / memory[first]:.2f})"
        )


if __name__ == "__main__":
    main()
