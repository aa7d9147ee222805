"""Decoding with 5 beams: ours beside PEFT with batched ``generate``, and beside the original's way.

The original decodes one prompt at a time and expands it to the beams before it is read; here that
is ``generate`` with a batch of 1, which does the same. All decode the same prompts (E2E's lengths,
random tokens, random weights) with the same prefix for the same number of new tokens, in one
process in turn.
"""

from __future__ import annotations

import argparse
import sys
from itertools import cycle, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.shapes import E2E_LENGTHS, GPT2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="gpt2", choices=list(GPT2), help="size of the model")
    parser.add_argument("--preseqlen", type=int, default=10, help="prefix length")
    parser.add_argument("--batch_size", type=int, default=32, help="prompts decoded together")
    parser.add_argument("--prompts", type=int, default=32, help="prompts of a pass")
    parser.add_argument(
        "--new_tokens", type=int, default=28, help="tokens of a text; 28: E2E's average target"
    )
    parser.add_argument(
        "--ours_alone", action="store_true", help="time our way alone, for many prompts on a GPU"
    )
    parser.add_argument("--rounds", type=int, default=1, help="passes of each way over the prompts")
    parser.add_argument(
        "--dtype", default="float32", choices=["float32", "bfloat16"], help="precision of the model"
    )
    return parser


if __name__ == "__main__":
    _parser().parse_args()  # --help ends here, before the imports that take seconds

import torch

from benchmarks.gpt2_training import PAD, make_model, peft_model
from benchmarks.measure import Step, alternate, device, peak_memory
from prefix_tuning.activation import fuse_activations
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.beam_search import beam_search
from prefix_tuning.parametrizations import MLPPrefix
from prefix_tuning.shape import PrefixShape

NEVER = 50255
"""An end token that is not generated, so that all ways do the same number of steps."""


def make_prompts(count: int, batch_size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Left-padded batches of prompts, sorted by length as decoding sorts them."""
    generator = torch.Generator().manual_seed(0)
    lengths = sorted((prompt for prompt, _ in islice(cycle(E2E_LENGTHS), count)), reverse=True)
    batches = []
    for start in range(0, count, batch_size):
        chosen = lengths[start : start + batch_size]
        width = max(chosen)
        ids = torch.randint(0, 50_000, (len(chosen), width), generator=generator)
        mask = (torch.arange(width) >= width - torch.tensor(chosen)[:, None]).long()
        batches.append((ids.masked_fill(mask == 0, PAD).to(device()), mask.to(device())))
    return batches


def our_step(args: argparse.Namespace, batch_size: int) -> Step:
    """Decode all prompts with our beam search."""
    model = enable_prefix(fuse_activations(make_model(args.shape, args.dtype)))  # as a run does
    torch.manual_seed(1)
    prefix = MLPPrefix(PrefixShape.from_config(model.config), args.preseqlen)
    key_values = KeyValues(pair.detach() for pair in prefix.key_values())

    def step(_: int) -> None:
        for ids, mask in make_prompts(args.prompts, batch_size):
            beam_search(
                model,
                key_values,
                ids,
                mask,
                eos_token_id=NEVER,
                num_beams=5,
                max_new_tokens=args.new_tokens,
                min_length=1000,
            )

    return step


def peft_step(args: argparse.Namespace, batch_size: int) -> Step:
    """Decode all prompts with PEFT and the library's generate."""
    model = peft_model(args).eval()

    def step(_: int) -> None:
        for ids, mask in make_prompts(args.prompts, batch_size):
            model.generate(
                input_ids=ids,
                attention_mask=mask,
                num_beams=5,
                do_sample=False,
                max_new_tokens=args.new_tokens,
                min_new_tokens=args.new_tokens,
                pad_token_id=PAD,
            )

    return step


def main() -> None:
    """Print the ratios."""
    args = _parser().parse_args()
    args.dtype = getattr(torch, args.dtype)

    ways = {"ours": our_step(args, args.batch_size)}
    if not args.ours_alone:
        ways = {
            "one prompt at a time": peft_step(args, 1),
            "PEFT, generate": peft_step(args, args.batch_size),
            "ours, batch 1": our_step(args, 1),
            **ways,
        }
    seconds = alternate(ways, args.rounds, warm_up=False)
    memory = {name: peak_memory(ways[name]) for name in ("PEFT, generate", "ours") if name in ways}
    n_text = args.prompts * args.rounds
    print(
        f"\n{args.shape}, P={args.preseqlen}, 5 beams, {args.new_tokens} new tokens, "
        f"batch {args.batch_size}, {args.dtype}, {device()}"
    )
    for name, spent in seconds.items():
        line = f"{name:20} {n_text / spent:7.2f} texts/s  {seconds['ours'] / spent:5.2f} x ours"
        if name in memory:
            line += f"  peak {memory[name]:6.0f} MB"
        print(line)
    if args.ours_alone:
        return
    print(f"ours / the original's way: {seconds['one prompt at a time'] / seconds['ours']:.2f}")
    print(f"ours / PEFT with generate: {seconds['PEFT, generate'] / seconds['ours']:.2f}")


if __name__ == "__main__":
    main()
