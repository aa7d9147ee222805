"""The families of tasks: which data, which model, and which loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from prefix_tuning.positions import room
from ptuning_v2.arguments import Arguments
from ptuning_v2.tasks.base import Outputs, TaskData
from ptuning_v2.tasks.glue.dataset import GlueDataset
from ptuning_v2.tasks.ner.dataset import NERDataset
from ptuning_v2.tasks.own.dataset import OwnTags, OwnTexts
from ptuning_v2.tasks.qa.dataset import SQuAD, Windows
from ptuning_v2.tasks.srl.dataset import SRLDataset
from ptuning_v2.tasks.superglue.dataset import SuperGlueDataset
from ptuning_v2.tasks.text import TextData
from ptuning_v2.tasks.words import WordData, best_labels
from ptuning_v2.training.build import build_trainer, labels_of_checkpoint, load_base
from ptuning_v2.training.trainer_base import BaseTrainer
from ptuning_v2.training.trainer_exp import ExponentialTrainer
from ptuning_v2.training.trainer_qa import QuestionAnsweringTrainer

Made = tuple[BaseTrainer, TaskData[Any, Any]]


def _texts(data_class: type[TextData], args: Arguments) -> Made:
    """Texts, or pairs of texts, with a class each."""
    config, tokenizer = load_base(args)
    given: dict[str, Any] = {}
    if data_class is OwnTexts:
        given["label_list"] = labels_of_checkpoint(args.model_args)
    data = data_class(tokenizer, args.data_args, args.training_args, **given).load()
    make = partial(BaseTrainer, compute_metrics=data.compute_metrics)
    return build_trainer(args, config, data, make), data


def _words(data_class: type[WordData], trainer: type[BaseTrainer], args: Arguments) -> Made:
    """Sentences with a tag for each word."""
    model_args, data_args, training_args, _ = args
    config, tokenizer = load_base(args, word_by_word=True)
    max_tokens = room(config, model_args.occupied_positions)
    labels = labels_of_checkpoint(model_args)
    data = data_class(tokenizer, data_args, training_args, max_tokens, labels).load()
    make = partial(
        trainer, compute_metrics=data.compute_metrics, preprocess_logits_for_metrics=best_labels
    )
    return build_trainer(args, config, data, make), data


def _questions(args: Arguments) -> Made:
    """Questions; every evaluation writes its answers."""
    _, data_args, training_args, qa_args = args
    config, tokenizer = load_base(args)
    data = SQuAD(tokenizer, data_args, training_args, qa_args).load()

    def answer(examples: Windows, logits: Outputs, folder: Path) -> dict[str, float]:
        answers = data.predict(examples, logits)
        answers.write(folder)
        return data.score(examples, answers)

    make = partial(QuestionAnsweringTrainer, post_process_function=answer)
    return build_trainer(args, config, data, make), data


FAMILIES: dict[str, Callable[[Arguments], Made]] = {
    "glue": partial(_texts, GlueDataset),
    "superglue": partial(_texts, SuperGlueDataset),
    "ner": partial(_words, NERDataset, ExponentialTrainer),
    "srl": partial(_words, SRLDataset, ExponentialTrainer),
    "qa": _questions,
    "classification": partial(_texts, OwnTexts),
    "tagging": partial(_words, OwnTags, BaseTrainer),
}
"""By ``--task_name``: from the flags of a run to its trainer and its data, loaded."""
