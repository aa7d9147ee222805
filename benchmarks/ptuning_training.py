"""Training P-tuning v2's deep prompts: ours beside PEFT's PrefixTuning, and beside fine-tuning.

Same encoder shape (random weights), prompts, head, precision and rows, padded to 128 tokens as the
original pads them, in one process in turn. A step is forward, backward and AdamW, in train mode.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.shapes import BERT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shape", default="bert-base", choices=list(BERT), help="size of the encoder"
    )
    parser.add_argument("--pre_seq_len", type=int, default=20, help="prompt length")
    parser.add_argument("--batch_size", type=int, default=16, help="rows of a batch")
    parser.add_argument("--max_seq_length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each way")
    parser.add_argument(
        "--dtype", default="float32", choices=["float32", "bfloat16"], help="precision of the model"
    )
    return parser


if __name__ == "__main__":
    _parser().parse_args()  # --help ends here, before the imports that take seconds

import peft
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.measure import Step, alternate, device, peak_memory, update
from harness.graphs import CudaRecorder, GraphedStep
from prefix_tuning.shape import PrefixShape
from ptuning_v2.model.heads import TaskType
from ptuning_v2.model.prefix_encoder import PrefixEncoder
from ptuning_v2.model.prompted_encoder import PromptedEncoder


def make_model(args: argparse.Namespace) -> Any:
    """A BERT of the shape with random weights and a head of two labels."""
    n_layer, n_head, width = BERT[args.shape]
    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=n_layer,
        num_attention_heads=n_head,
        hidden_size=width,
        intermediate_size=4 * width,
    )
    model: Any = BertForSequenceClassification(config)
    return model.to(device(), args.dtype)


def make_batches(args: argparse.Namespace) -> list[dict[str, Tensor]]:
    """Random tokens, between an eighth of the width and all of it."""
    generator = torch.Generator().manual_seed(0)
    shape, width = (args.batch_size, args.max_seq_length), args.max_seq_length
    batches = []
    for _ in range(args.rounds):
        lengths = torch.randint(width // 8, width + 1, (args.batch_size, 1), generator=generator)
        mask = (torch.arange(width) < lengths).long()
        ids = torch.randint(1000, 30_000, shape, generator=generator) * mask
        labels = torch.randint(2, (args.batch_size,), generator=generator)
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        batches.append({name: tensor.to(device()) for name, tensor in batch.items()})
    return batches


def build(args: argparse.Namespace, way: str) -> nn.Module:
    """What is trained, in one of the ways, within the model that it is trained in."""
    model = make_model(args)
    if way == "fine-tuning":
        return model.train()
    if way == "PEFT":
        config = peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=args.pre_seq_len)
        return peft.get_peft_model(model, config).to(device()).train()
    shape = PrefixShape.from_config(model.config)
    prompts = PrefixEncoder(shape, args.pre_seq_len, 0.0, False, hidden_size=512)
    task = TaskType.SEQUENCE_CLASSIFICATION
    ours = PromptedEncoder(model.bert, task, 2, prompts).to(device())
    ours.classifier.to(args.dtype)
    return ours.train()


def make_step(args: argparse.Namespace, way: str, batches: list[dict[str, Tensor]]) -> Step:
    """One update in one of the ways."""
    model = build(args, way)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    recorded = None
    if way == "ours, recorded":
        recorded = GraphedStep(lambda batch: model(**batch).loss, trained, CudaRecorder())

    def step(i: int) -> None:
        batch = batches[i % len(batches)]
        if recorded is None or recorded(batch) is None:
            model(**batch).loss.backward()
        update(optimizer)

    return step


def main() -> None:
    """Print the ratios."""
    args = _parser().parse_args()
    args.dtype = getattr(torch, args.dtype)
    batches = make_batches(args)
    names = ["PEFT", "ours", "fine-tuning"]
    if torch.cuda.is_available():
        names.insert(2, "ours, recorded")
    steps = {name: make_step(args, name, batches) for name in names}
    seconds = alternate(steps, args.rounds)
    memory = {name: peak_memory(steps[name]) for name in names}
    samples = args.rounds * args.batch_size
    print(f"\n{args.shape}, P={args.pre_seq_len}, {args.dtype}, {device()}")
    for name, spent in seconds.items():
        print(
            f"{name:15} {samples / spent:8.2f} rows/s  {seconds['PEFT'] / spent:5.2f} x PEFT  peak "
            f"{memory[name]:7.0f} MB  {memory[name] / memory['PEFT']:5.2f} x PEFT"
        )


if __name__ == "__main__":
    main()
