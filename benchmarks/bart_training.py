"""Training prefixes for BART: ours beside the original's way, and beside fine-tuning.

The original's way runs the three MLPs on every row of the batch and gives every row a copy of the
prefix. Same shape (random weights), data, precision and optimiser, in one process in turn. A step
is forward, backward and AdamW, with BART's dropout active. FLOPs are counted for the whole model
on PyTorch's meta device, which needs neither memory nor time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from transformers import BartConfig, BartForConditionalGeneration

from benchmarks.measure import Step, alternate, device, peak_memory
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.prefix import SUFFIXES
from seq2seq.prefixTuning import PrefixTuning

SHAPES = {"bart-large": (12, 16, 1024, 4096), "bart-base": (6, 12, 768, 3072)}
Loss = Callable[[dict[str, Tensor]], Tensor]


class OriginalsWay(PrefixTuning):
    """The MLPs on every row, and keys and values of every row."""

    def slots_of_rows(self, rows: int, site: str) -> Tensor:
        indices = torch.arange(self.length, device=self.wte.weight.device).expand(rows, -1)
        embedding = self.get_submodule("wte" + SUFFIXES[site])
        return self.get_submodule("control_trans" + SUFFIXES[site])(embedding(indices))

    def key_values(self, batch_size: int = 1, site: str = "self") -> tuple[Tensor, ...]:
        shape = self.shape
        table = self.slots_of_rows(batch_size, site)
        table = table.view(batch_size, self.length, -1, shape.n_head, shape.head_dim)
        return table.permute(2, 0, 3, 1, 4).split(2)


def make_model(args: argparse.Namespace, layers: int | None = None, attn: str = "sdpa") -> Any:
    """A BART of the shape with random weights."""
    n_layer, n_head, width, ffn = SHAPES[args.shape]
    n_layer = layers or n_layer
    torch.manual_seed(0)
    config = BartConfig(
        encoder_layers=n_layer,
        decoder_layers=n_layer,
        encoder_attention_heads=n_head,
        decoder_attention_heads=n_head,
        d_model=width,
        encoder_ffn_dim=ffn,
        decoder_ffn_dim=ffn,
        attn_implementation=attn,
    )
    return BartForConditionalGeneration(config).train()


def make_batch(args: argparse.Namespace) -> dict[str, Tensor]:
    """Random tokens: sources of the full length, targets of 60."""
    source = torch.randint(3, 50_000, (args.batch_size, args.source_length))
    target = torch.randint(3, 50_000, (args.batch_size, args.target_length))
    return {"input_ids": source, "decoder_input_ids": target}


def loss_of(output: Any, batch: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of the next tokens, as in training."""
    return cross_entropy(output.logits.flatten(0, 1), batch["decoder_input_ids"].flatten())


def prefix_way(
    args: argparse.Namespace, prefix_class: type[PrefixTuning], model: Any
) -> tuple[Loss, Any]:
    """Loss and what is trained, for a prefix against a frozen model."""
    enable_prefix(model.requires_grad_(False))
    model.train()
    prefix = prefix_class(model.config, model, args.preseqlen, args.mid_dim)

    def loss(batch: dict[str, Tensor]) -> Tensor:
        layers = prefix.all_key_values(batch["input_ids"].shape[0])
        return loss_of(model(**batch, prefix=KeyValues(layers), use_cache=False), batch)

    return loss, prefix


def fine_tuning(model: Any) -> tuple[Loss, Any]:
    """Loss and what is trained, for the whole model."""
    return lambda batch: loss_of(model(**batch, use_cache=False), batch), model


def build(args: argparse.Namespace, way: str, model: Any) -> tuple[Loss, Any]:
    """One of the three ways."""
    if way == "fine-tuning":
        return fine_tuning(model)
    return prefix_way(args, OriginalsWay if way == "the original's way" else PrefixTuning, model)


WAYS = ("fine-tuning", "the original's way", "ours")


def count_flops(args: argparse.Namespace, way: str) -> float:
    """FLOPs (1e12) of forward and backward of the full model."""
    with torch.device("meta"):
        # Of sdpa, the library first asks whether the mask hides anything: meta tensors cannot say.
        loss, _ = build(args, way, make_model(args, attn="eager"))
        with FlopCounterMode(display=False) as counter:
            loss(make_batch(args)).backward()
    return counter.get_total_flops() / 1e12


def make_step(args: argparse.Namespace, way: str) -> Step:
    """One update."""
    loss, trained = build(args, way, make_model(args, args.layers).to(device(), args.dtype))
    trained.to(device())
    optimizer = torch.optim.AdamW(trained.parameters(), lr=5e-5)
    batch = {name: value.to(device()) for name, value in make_batch(args).items()}

    def step(_: int) -> None:
        loss(batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="bart-large", choices=list(SHAPES))
    parser.add_argument("--layers", type=int, help="measure time with so many layers a stack")
    parser.add_argument("--preseqlen", type=int, default=200)
    parser.add_argument("--mid_dim", type=int, default=800)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--source_length", type=int, default=512)
    parser.add_argument("--target_length", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    args = parser.parse_args()
    args.dtype = getattr(torch, args.dtype)

    flops = {way: count_flops(args, way) for way in WAYS}
    steps = {way: make_step(args, way) for way in WAYS}
    seconds = alternate(steps, args.rounds)
    memory = {way: peak_memory(step) for way, step in steps.items()}
    print(
        f"\n{args.shape}, {args.layers or SHAPES[args.shape][0]} layers a stack in time and memory,"
    )
    print(f"P={args.preseqlen}, mid {args.mid_dim}, batch {args.batch_size}, {device()}")
    first = WAYS[0]
    for way in WAYS:
        print(
            f"{way:20} {flops[way]:6.2f} TFLOP a step ({flops[way] / flops[first]:.2f}), "
            f"{seconds[way] / args.rounds:7.2f} s ({seconds[way] / seconds[first]:.2f}), "
            f"{memory[way]:7.0f} MB above the model ({memory[way] / memory[first]:.2f})"
        )


if __name__ == "__main__":
    main()
