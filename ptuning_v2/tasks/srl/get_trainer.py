"""Semantic roles: which model, and which loop."""

from __future__ import annotations

from ptuning_v2.arguments import Arguments, free_positions
from ptuning_v2.tasks.srl.dataset import SRLDataset
from ptuning_v2.tasks.words import best_labels
from ptuning_v2.training.build import build_trainer, labels_of_checkpoint, load_base
from ptuning_v2.training.trainer_exp import ExponentialTrainer


def get_trainer(args: Arguments) -> tuple[ExponentialTrainer, SRLDataset]:
    """The trainer of a run, and its data."""
    config, tokenizer = load_base(args, word_by_word=True)
    max_tokens = free_positions(config, args[0].occupied_positions)
    labels = labels_of_checkpoint(args)
    data = SRLDataset(tokenizer, args[1], args[2], max_tokens, labels)
    more = {
        "compute_metrics": data.compute_metrics,
        "preprocess_logits_for_metrics": best_labels,
    }
    return build_trainer(args, config, data, ExponentialTrainer, **more), data
