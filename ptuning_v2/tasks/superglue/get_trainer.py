"""SuperGLUE: which model, and which loop."""

from __future__ import annotations

from functools import partial

from ptuning_v2.arguments import Arguments
from ptuning_v2.tasks.superglue.dataset import SuperGlueDataset
from ptuning_v2.training.build import build_trainer, load_base
from ptuning_v2.training.trainer_base import BaseTrainer


def get_trainer(args: Arguments) -> tuple[BaseTrainer, SuperGlueDataset]:
    """The trainer of a run, and its data."""
    _, data_args, training_args, _ = args
    config, tokenizer = load_base(args)
    data = SuperGlueDataset(tokenizer, data_args, training_args).load()
    make = partial(BaseTrainer, compute_metrics=data.compute_metrics)
    return build_trainer(args, config, data, make), data
