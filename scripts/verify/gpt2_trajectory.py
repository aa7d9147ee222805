"""The GPT-2 trainer beside a plain loop, which puts the prefix into GPT-2 as ``past_key_values``.

The trainer is that of ``gpt2/run_language_modeling.py``, with its reader, tokens, batches, [PAD]
row, precision and schedule. The loop reads the same file itself; of the trainer it takes only which
lines are in which batch, the parameters at the start, and that dropout is seeded at every step.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout
from transformers import AutoTokenizer, DynamicCache, GPT2LMHeadModel, TrainerCallback

from experiments.toy_models import tiny_gpt2
from gpt2 import train_request, training
from gpt2.tuning.base import Built, Setting
from scripts.verify.checks import Difference
from scripts.verify.loop import Trajectory, Weights, by_hand, copied, differences, quiet

DATA = Path(__file__).resolve().parents[2] / "data" / "restaurants" / "src1_train.txt"
END = "<|endoftext|>"
LINES = 400
"""Of the file, which tokenising the rest would not say more about."""
LENGTH, WIDTH, DROPOUT, RATE, SEED = 5, 32, 0.1, 1e-3, 7


class _Watch(TrainerCallback):
    """Notes what the trainer does, and seeds its dropout."""

    def __init__(self, built: Built, seen: Trajectory) -> None:
        self.trainer, self.seen = built.trainer, seen
        seen.start = copied(built.trainer.prefix.state_dict())  # type: ignore[attr-defined]
        collate = built.trainer.data_collator

        def note(examples: Any) -> Any:
            seen.batches.append([tuple(example["input_ids"]) for example in examples])
            return collate(examples)

        built.trainer.data_collator = note
        built.trainer.add_callback(self)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        torch.manual_seed(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.losses.append(float(self.trainer.last_loss))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        prefix = self.trainer.prefix  # type: ignore[attr-defined]
        self.seen.end = copied(prefix.state_dict())


def _watched(tuning: Any, seen: Trajectory) -> Any:
    """The same tuning mode, whose trainer is watched."""

    class Watched(type(tuning)):  # type: ignore[misc]
        def build(self, setting: Setting) -> Built:
            built = super().build(setting)
            _Watch(built, seen)
            return built

    fields = dataclasses.fields(tuning)
    return Watched(**{field.name: getattr(tuning, field.name) for field in fields})


def trained(base: Path, data: Path, folder: Path, steps: int) -> Trajectory:
    """A run of the trainer in ``folder``."""
    flags = f"--model_name_or_path {base} --train_data_file {data} --output_dir {folder}"
    flags += f" --tuning_mode prefixtune --optim_prefix yes --preseqlen {LENGTH} --mid_dim {WIDTH}"
    flags += f" --prefix_dropout {DROPOUT} --learning_rate {RATE} --max_steps {steps} --use_cpu"
    flags += f" --objective_mode 1 --per_device_train_batch_size 8 --seed {SEED}"
    flags += f" --report_to none --save_steps {2 * steps}"
    request, seen = train_request.parse(flags.split()), Trajectory()
    with quiet():
        training.train(dataclasses.replace(request, tuning=_watched(request.tuning, seen)))
    seen.batches = seen.batches[:steps]  # one more may have been read ahead
    return seen


def _own_lines(base: Path, data: Path) -> dict[tuple[int, ...], int]:
    """Token ids of every example of the file -> how many of them are its source."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    pairs = [line.split("||") for line in data.read_text(encoding="utf-8").splitlines()]
    prompts = tokenizer([f" {source} {END}" for source, _ in pairs]).input_ids
    wholes = tokenizer([f" {source} {END} {target} {END}" for source, target in pairs]).input_ids
    return {tuple(ids): len(prompt) for ids, prompt in zip(wholes, prompts, strict=True)}


def _own_model(base: Path) -> GPT2LMHeadModel:
    """GPT-2 with one more row, that of [PAD]: N(0, 0.02)."""
    model = GPT2LMHeadModel.from_pretrained(base).eval()
    words = model.transformer.wte.weight.detach()
    row = 0.02 * torch.randn(words.shape[1], generator=torch.Generator().manual_seed(SEED))
    model.resize_token_embeddings(len(words) + 1, mean_resizing=False)
    with torch.no_grad():
        model.transformer.wte.weight[-1] = row
    return model.requires_grad_(False)


def past_of(weights: Weights, n_row: int, n_layer: int, n_head: int, rate: float) -> DynamicCache:
    """The prefix as the original computes it: embedding, linear, tanh, linear, dropout."""
    first, second = ("control_trans.0", "control_trans.2")
    hidden = torch.tanh(
        weights["wte.weight"] @ weights[f"{first}.weight"].T + weights[f"{first}.bias"]
    )
    flat = hidden @ weights[f"{second}.weight"].T + weights[f"{second}.bias"]  # [P, 2 * L * D]
    pairs = flat.expand(n_row, -1, -1).unflatten(-1, (2 * n_layer, n_head, -1))  # [B, P, 2L, H, d]
    pairs = dropout(pairs, rate).permute(2, 0, 3, 1, 4)  # [B, P, 2L, H, d] -> [2L, B, H, P, d]
    return DynamicCache([(pairs[2 * i], pairs[2 * i + 1]) for i in range(n_layer)])


def _loss(model: GPT2LMHeadModel, past: DynamicCache, rows: Any, pad: int) -> Tensor:
    """The summed losses of the targets of each text, averaged over the texts (mode 1)."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids, _ in rows])
    log_probs = model(ids, past_key_values=past).logits.log_softmax(-1)
    total = log_probs.new_zeros(())
    for row, (tokens, n_source) in enumerate(rows):
        predicted = log_probs[row, n_source - 1 : len(tokens) - 1]  # [n_target, V]
        total = total - predicted.gather(1, ids[row, n_source : len(tokens), None]).sum()
    return total / len(rows)


def compare(steps: int = 300) -> Iterator[Difference]:
    """Losses and weights of the trainer and of the loop."""
    with tempfile.TemporaryDirectory() as folder:
        base, data = Path(folder) / "base", Path(folder) / "train.txt"
        tiny_gpt2(base)
        every = DATA.read_text(encoding="utf-8").splitlines(keepends=True)
        data.write_text("".join(every[:LINES]), encoding="utf-8")
        found = trained(base, data, Path(folder) / "run", steps)
        lines, model = _own_lines(base, data), _own_model(base)
    strange = [ids for batch in found.batches for ids in batch if ids not in lines]
    yield Difference("examples that the file does not have", len(strange), 0)
    if strange:
        return
    n_layer, n_head, pad = model.config.n_layer, model.config.n_head, model.config.vocab_size - 1

    def loss_of(weights: Weights, step: int, batch: Any) -> Tensor:
        torch.manual_seed(step)
        past = past_of(weights, len(batch), n_layer, n_head, DROPOUT)
        return _loss(model, past, [(ids, lines[ids]) for ids in batch], pad)

    yield from differences(found, by_hand(found.start, found.batches, loss_of, RATE))
