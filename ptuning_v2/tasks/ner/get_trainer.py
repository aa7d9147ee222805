"""Named entities: which model, and which loop."""

from __future__ import annotations

from functools import partial

from prefix_tuning.positions import room
from ptuning_v2.arguments import Arguments
from ptuning_v2.tasks.ner.dataset import NERDataset
from ptuning_v2.tasks.words import best_labels
from ptuning_v2.training.build import build_trainer, labels_of_checkpoint, load_base
from ptuning_v2.training.trainer_exp import ExponentialTrainer


def get_trainer(args: Arguments) -> tuple[ExponentialTrainer, NERDataset]:
    """The trainer of a run, and its data."""
    model_args, data_args, training_args, _ = args
    config, tokenizer = load_base(args, word_by_word=True)
    max_tokens = room(config, model_args.occupied_positions)
    labels = labels_of_checkpoint(model_args)
    data = NERDataset(tokenizer, data_args, training_args, max_tokens, labels).load()
    make = partial(
        ExponentialTrainer,
        compute_metrics=data.compute_metrics,
        preprocess_logits_for_metrics=best_labels,
    )
    return build_trainer(args, config, data, make), data
