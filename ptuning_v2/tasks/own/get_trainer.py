"""One's own files: which model, and which loop."""

from __future__ import annotations

from functools import partial

from prefix_tuning.positions import room
from ptuning_v2.arguments import Arguments
from ptuning_v2.tasks.own.dataset import OwnTags, OwnTexts
from ptuning_v2.tasks.words import best_labels
from ptuning_v2.training.build import build_trainer, labels_of_checkpoint, load_base
from ptuning_v2.training.trainer_base import BaseTrainer


def classification(args: Arguments) -> tuple[BaseTrainer, OwnTexts]:
    """The trainer of a run that classifies texts, and its data."""
    model_args, data_args, training_args, _ = args
    config, tokenizer = load_base(args)
    labels = labels_of_checkpoint(model_args)
    data = OwnTexts(tokenizer, data_args, training_args, labels).load()
    make = partial(BaseTrainer, compute_metrics=data.compute_metrics)
    return build_trainer(args, config, data, make), data


def tagging(args: Arguments) -> tuple[BaseTrainer, OwnTags]:
    """The trainer of a run that tags words, and its data."""
    model_args, data_args, training_args, _ = args
    config, tokenizer = load_base(args, word_by_word=True)
    max_tokens = room(config, model_args.occupied_positions)
    labels = labels_of_checkpoint(model_args)
    data = OwnTags(tokenizer, data_args, training_args, max_tokens, labels).load()
    make = partial(
        BaseTrainer,
        compute_metrics=data.compute_metrics,
        preprocess_logits_for_metrics=best_labels,
    )
    return build_trainer(args, config, data, make), data
