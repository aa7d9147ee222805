"""Training a prefix: ours beside PEFT's PrefixTuning.

Same model shape (random weights), prefix, MLP, precision and examples, in one process in turn.
PEFT gets random batches with an attention mask, as its examples do. Ours is measured on the same
batches, and with length groups, as the quick start trains; on a GPU also as a run trains there,
with widths rounded up and every step a CUDA graph.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.shapes import E2E_LENGTHS, GPT2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="gpt2", choices=list(GPT2), help="size of the model")
    parser.add_argument("--preseqlen", type=int, default=10, help="prefix length")
    parser.add_argument("--batch_size", type=int, default=10, help="rows of a batch")
    parser.add_argument("--rounds", type=int, default=30, help="steps of each way; 30 are an epoch")
    parser.add_argument(
        "--dtype", default="float32", choices=["float32", "bfloat16"], help="precision of the model"
    )
    return parser


if __name__ == "__main__":
    _parser().parse_args()  # --help ends here, before the imports that take seconds

import peft
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.measure import Step, alternate, device, peak_memory, update
from gpt2.data import EXACT, Rounding, collate, with_targets
from gpt2.train_control import PrefixTuning
from harness.graphs import CudaRecorder, GraphedStep
from harness.samplers import LengthGroupedSampler
from prefix_tuning.activation import fuse_activations
from prefix_tuning.attention import enable_prefix

PAD = 50256
FEW_SHAPES = Rounding(16, 1000, targets=64)
"""The rounding of a run on a GPU."""


def make_model(shape: str, dtype: torch.dtype) -> GPT2LMHeadModel:
    """A GPT-2 of the shape with random weights, frozen."""
    n_layer, n_head, n_embd = GPT2[shape]
    torch.manual_seed(0)
    model: Any = GPT2LMHeadModel(GPT2Config(n_layer=n_layer, n_head=n_head, n_embd=n_embd))
    return model.to(device(), dtype).eval().requires_grad_(False)


def make_batches(
    order: list[int], batch_size: int, rounding: Rounding = EXACT
) -> list[dict[str, torch.Tensor]]:
    """Batches of random tokens with E2E's lengths, in the given order of examples."""
    generator = torch.Generator().manual_seed(0)
    examples = []
    for prompt, target in E2E_LENGTHS:
        ids = torch.randint(0, 50_000, (prompt + target,), generator=generator).tolist()
        examples.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    batches = []
    for start in range(0, len(order) - batch_size + 1, batch_size):
        chosen = [examples[i] for i in order[start : start + batch_size]]
        batch = with_targets(partial(collate, pad_id=PAD), rounding)(chosen)
        lengths = torch.tensor([len(example["input_ids"]) for example in chosen])
        batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]) * 1
        batches.append({name: value.to(device()) for name, value in batch.items()})
    return batches


def our_step(
    args: argparse.Namespace,
    batches: list[dict[str, torch.Tensor]],
    model: Any = None,
    recorded: bool = False,
) -> Step:
    """One update of our prefix, eager or as a CUDA graph."""
    model = enable_prefix(fuse_activations(model or make_model(args.shape, args.dtype)))
    prefix = PrefixTuning(model.config, preseqlen=args.preseqlen, objective_mode=0).to(device())
    optimizer = torch.optim.AdamW(prefix.parameters(), lr=5e-5, fused=True)

    def compute(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return prefix(**batch, gpt2_model=model, targets_only=True).loss

    graphed = GraphedStep(compute, [*prefix.parameters()], CudaRecorder()) if recorded else None

    def step(i: int) -> None:
        batch = {k: v for k, v in batches[i % len(batches)].items() if k != "attention_mask"}
        if graphed is None:
            compute(batch).backward()
        elif graphed(batch) is None:
            raise SystemExit("error: a step could not be recorded; the line above says why")
        update(optimizer)

    return step


def floor_step(
    args: argparse.Namespace, batches: list[dict[str, torch.Tensor]], model: Any = None
) -> Step:
    """What any prefix costs: the frozen model on the same tokens, forward and back to its input."""
    model = fuse_activations(model or make_model(args.shape, args.dtype))

    def step(i: int) -> None:
        batch = batches[i % len(batches)]
        words = model.get_input_embeddings()(batch["input_ids"]).requires_grad_()
        hidden = model.base_model(inputs_embeds=words, use_cache=False).last_hidden_state
        at = batch["targets"]
        hidden = hidden.flatten(0, 1).index_select(0, at)  # [B, T, D] -> [N, D]
        logits = model.lm_head(hidden).float()
        targets = batch["input_ids"].flatten().roll(-1).index_select(0, at)
        torch.nn.functional.cross_entropy(logits, targets).backward()

    return step


def peft_model(args: argparse.Namespace, **options: Any) -> Any:
    """The model with a prefix of PEFT's."""
    n_layer, n_head, n_embd = GPT2[args.shape]
    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=args.preseqlen,
        num_layers=n_layer,
        num_attention_heads=n_head,
        token_dim=n_embd,
        **options,
    )
    return peft.get_peft_model(make_model(args.shape, args.dtype), config).to(device())


def peft_step(args: argparse.Namespace, batches: list[dict[str, torch.Tensor]]) -> Step:
    """One update of PEFT's."""
    model = peft_model(args, prefix_projection=True, encoder_hidden_size=512)
    encoder = model.prompt_encoder["default"].float()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=5e-5, fused=True)

    def step(i: int) -> None:
        batch = {k: v for k, v in batches[i % len(batches)].items() if k != "targets"}
        model(**batch).loss.backward()
        update(optimizer)

    return step


def peak_of_second(step: Step) -> float:
    """Peak memory of a step after the one that makes the optimiser's state."""
    step(0)
    return peak_memory(step)


def main() -> None:
    """Print the ratios."""
    args = _parser().parse_args()
    args.dtype = getattr(torch, args.dtype)

    shuffled = torch.randperm(len(E2E_LENGTHS), generator=torch.Generator().manual_seed(0)).tolist()
    random_batches = make_batches(shuffled, args.batch_size)
    lengths = [prompt + target for prompt, target in E2E_LENGTHS]
    grouped = make_batches([*LengthGroupedSampler(lengths, args.batch_size, 0)], args.batch_size)
    ways = {
        "PEFT": peft_step(args, random_batches),
        "ours, same batches": our_step(args, random_batches),
        "ours, length groups": our_step(args, grouped),
        "frozen model alone": floor_step(args, random_batches),
    }
    if device().type == "cuda":
        few = make_batches(shuffled, args.batch_size, FEW_SHAPES)
        ways["ours, recorded"] = our_step(args, few, recorded=True)
    seconds = alternate(ways, args.rounds)
    widest = max(random_batches, key=lambda batch: batch["input_ids"].shape[1])
    memory = {
        "PEFT": peak_of_second(peft_step(args, [widest])),
        "ours, same batches": peak_of_second(our_step(args, [widest])),
    }
    samples = args.rounds * args.batch_size
    print(f"\n{args.shape}, P={args.preseqlen}, batch {args.batch_size}, {args.dtype}, {device()}")
    for name, spent in seconds.items():
        line = f"{name:20} {samples / spent:8.2f} samples/s  {seconds['PEFT'] / spent:5.2f} x PEFT"
        if name in memory:
            line += f"  peak {memory[name]:7.0f} MB  {memory[name] / memory['PEFT']:5.2f} x PEFT"
        print(line)
    share = seconds["frozen model alone"] / seconds["ours, same batches"]
    print(f"the frozen model alone takes {share:.2f} of our step on the same batches")


if __name__ == "__main__":
    main()
