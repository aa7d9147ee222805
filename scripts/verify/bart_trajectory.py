"""The BART trainer beside a plain loop over BART's formulas, with prefixes at its three sites.

The trainer is that of ``seq2seq/finetune.py``. The loop reads and tokenises the same files itself;
of the trainer it takes only which lines are in which batch and the parameters at the start.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, BartForConditionalGeneration

from data.village_news.generate import generate
from experiments.toy_models import tiny_bart, word_tokenizer
from scripts.verify.checks import Difference
from scripts.verify.loop import Trajectory, Weights, by_hand, copied, differences, quiet
from scripts.verify.plain_bart import PlainBart, prefixes
from seq2seq import arguments, modules, run_folder, training
from seq2seq.data import read_split

LENGTH, WIDTH, RATE, SIZE = 4, 24, 1e-3, 8
MOST = {"source": 24, "target": 10}
"""Tokens at which texts are cut."""


def _write(folder: Path) -> None:
    """Village news, and a BART without dropout whose logits have a bias."""
    data = {n: t for n, t in generate(seed=0).items() if n.startswith("who/")}
    for name, text in data.items():
        (folder / Path(name).name).write_text(text, encoding="utf-8")
    tokenizer = word_tokenizer(line for text in data.values() for line in text.splitlines())
    model = tiny_bart(len(tokenizer), layers=2, width=32)
    model.config.dropout = 0.0
    with torch.no_grad():
        model.final_logits_bias.normal_()
        for parameter in model.parameters():
            if parameter.ndim == 2:  # large enough to tell tokens apart
                parameter.normal_(0.0, 0.2)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")


def trained(folder: Path, steps: int) -> Trajectory:
    """A run of the trainer."""
    flags = f"--do_train --data_dir {folder} --model_name_or_path {folder / 'base'}"
    flags += f" --output_dir {folder / 'run'} --preseqlen {LENGTH} --mid_dim {WIDTH}"
    flags += f" --learning_rate {RATE} --max_steps {steps} --train_batch_size {SIZE} --n_val 4"
    flags += " --num_workers 0 --accelerator cpu --logger_name none --seed 5 --eval_beams 1"
    flags += f" --max_source_length {MOST['source']} --max_target_length {MOST['target']}"
    flags += " --eval_min_gen_length 1 --eval_max_gen_length 4"
    args, seen = arguments.parse(flags.split()), Trajectory()
    records = {split: read_split(folder, split, True) for split in ("train", "val")}
    torch.manual_seed(args.seed)
    with quiet():
        module = modules.MODULES[args.task_mode, args.tuning_mode].load(args, records)
        seen.start, step = copied(module.model.state_dict()), module.training_step

        def note(batch: dict[str, Tensor], batch_idx: int) -> Any:
            seen.batches.append(batch["ids"].tolist())
            result = step(batch, batch_idx)
            seen.losses.append(result["mean"].item())
            return result

        module.training_step = note  # type: ignore[method-assign]
        run = run_folder.of(args)
        with run.held():
            training.generic_train(module, args, run=run)
    seen.end = copied(module.model.state_dict())
    return seen


def _own_ids(folder: Path, side: str) -> list[list[int]]:
    """Token ids of every line of the training set, cut as ``<s> ... </s>``."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    lines = (folder / f"train.{side}").read_text(encoding="utf-8").splitlines()
    first, last = tokenizer.bos_token_id, tokenizer.eos_token_id
    bare = tokenizer(lines, add_special_tokens=False).input_ids
    return [[first, *ids[: MOST[side] - 2], last] for ids in bare]


def _padded(rows: list[list[int]], pad: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids in rows])


def compare(steps: int = 100) -> Iterator[Difference]:
    """Losses and weights of the trainer and of the loop."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder)
        found = trained(folder, steps)
        base = BartForConditionalGeneration.from_pretrained(folder / "base")
        sources, targets = (_own_ids(folder, side) for side in ("source", "target"))
    config: Any = base.config
    pad = config.pad_token_id
    heads, layers = config.decoder_attention_heads, config.decoder_layers
    plain = PlainBart(base.state_dict(), heads, pad)

    def loss_of(weights: Weights, step: int, batch: list[int]) -> Tensor:
        """The mean over the tokens of a batch."""
        labels = _padded([targets[i] for i in batch], pad)
        shifted = labels.roll(1, dims=1)
        shifted[:, 0] = config.decoder_start_token_id
        source = _padded([sources[i] for i in batch], pad)
        logits = plain.logits(source, shifted, prefixes(weights, len(batch), layers, heads))
        real = labels != pad
        log_probs = logits.log_softmax(-1).gather(2, labels[..., None])[..., 0]
        return -log_probs[real].mean()

    yield from differences(found, by_hand(found.start, found.batches, loss_of, RATE))
