"""What the ``get_trainer`` of all families have in common: from flags to base model and trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from harness.models import check_rows, load_tokenizer, token_ids
from prefix_tuning.errors import UserError, lacks_memory
from prefix_tuning.positions import room
from ptuning_v2.arguments import Arguments, DataTrainingArguments, ModelArguments
from ptuning_v2.model import checkpoint
from ptuning_v2.model.utils import TaskType, get_config, get_model, parameter_lines
from ptuning_v2.tasks.base import TaskData
from ptuning_v2.tasks.utils import ADD_PREFIX_SPACE
from ptuning_v2.training.trainer_base import BaseTrainer

AnyTrainer = TypeVar("AnyTrainer", bound=BaseTrainer)


def load_base(
    args: Arguments, word_by_word: bool = False
) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    """The encoder's configuration and tokenizer.

    Args:
        word_by_word: whether texts come as words.

    Raises:
        UserError: they cannot be had, or prompts and texts do not fit the encoder together.
    """
    model_args, data_args, _, _ = args
    config = get_config(model_args)
    if data_args.max_seq_length is not None and not word_by_word:
        check_length(config, model_args.occupied_positions, data_args.max_seq_length)
    options: dict[str, Any] = {"revision": model_args.model_revision}
    if word_by_word and ADD_PREFIX_SPACE.get(config.model_type):
        options["add_prefix_space"] = True
    name = model_args.model_name_or_path
    tokenizer = load_tokenizer(name, model_args.cache_dir, **options)
    check_rows(name, config, token_ids(tokenizer))
    return config, tokenizer


def check_length(config: PretrainedConfig, pre_seq_len: int, max_seq_length: int) -> None:
    """Refuse prompts and texts that do not fit the encoder together.

    Args:
        config: of the encoder.
        pre_seq_len: :attr:`ptuning_v2.arguments.ModelArguments.occupied_positions`.
        max_seq_length: tokens of the longest text.

    Raises:
        UserError: naming both flags and how many positions there are.
    """
    free = room(config, pre_seq_len)
    if free is not None and max_seq_length > free:
        raise UserError(
            f"--pre_seq_len {pre_seq_len} and --max_seq_length {max_seq_length} together exceed "
            f"the {free + pre_seq_len} positions of the encoder: shorten one of them"
        )


def _tell_task(model_args: ModelArguments, data_args: DataTrainingArguments) -> None:
    """Say so where prompts were trained for another data set than theirs now."""
    folder = model_args.prefix_checkpoint
    task = checkpoint.read_metadata(Path(folder)).get("task", {}) if folder else {}
    trained = task.get("dataset_name")
    if trained not in (None, data_args.dataset_name):
        print(f"note: {folder} was trained for {trained}, and is used for {data_args.dataset_name}")


def labels_of_checkpoint(model_args: ModelArguments) -> list[str] | None:
    """The names of the labels that ``--prefix_checkpoint`` was trained with, if it says."""
    folder = model_args.prefix_checkpoint
    meta = checkpoint.read_metadata(Path(folder)) if folder else {}
    return meta.get("task", {}).get("labels")


def build_trainer(
    args: Arguments,
    config: PretrainedConfig,
    data: TaskData,
    make: Callable[..., AnyTrainer],
) -> AnyTrainer:
    """The model for ``data``, in a trainer; says what is trained.

    Args:
        config: of :func:`load_base`.
        make: the class of the trainer, with what the family adds to its arguments.

    Raises:
        UserError: the base model cannot be had, or does not fit prompts or checkpoint.
    """
    model_args, data_args, training_args, _ = args
    config.num_labels = data.num_labels
    if data.label_list:
        config.id2label = dict(enumerate(data.label_list))
        config.label2id = {label: number for number, label in enumerate(data.label_list)}
    print(f"loading {model_args.model_name_or_path} ...", flush=True)
    task_type = TaskType(data.task_type)
    model = get_model(model_args, task_type, config, fix_bert=model_args.freeze_backbone)
    task = {
        "task_name": data_args.task_name,
        "dataset_name": data_args.dataset_name,
        "labels": data.label_list,
    }
    meta = checkpoint.metadata(model, model_args, **task)
    if model_args.prefix_checkpoint:
        _check_labels(model_args, data, training_args.do_train)
        _tell_task(model_args, data_args)
        checkpoint.load(Path(model_args.prefix_checkpoint), model)
    print("\n".join(parameter_lines(model)), flush=True)
    is_qa = task_type is TaskType.QUESTION_ANSWERING
    training_args.label_names = ["start_positions", "end_positions"] if is_qa else ["labels"]
    try:
        return make(
            model=model,
            args=training_args,
            train_dataset=data.train_dataset,
            eval_dataset=data.eval_dataset,
            data_collator=data.data_collator,
            test_key=data.test_key,
            predict_dataset=data.predict_datasets,
            meta=meta,
        )
    except (ValueError, RuntimeError, ImportError) as error:  # such as a logger that is not there
        if lacks_memory(error):
            raise
        raise UserError(f"Trainer refuses these flags: {' '.join(str(error).split())}") from error


def _check_labels(model_args: ModelArguments, data: TaskData, training: bool) -> None:
    """Refuse to read the outputs of a head as other labels than it was trained for."""
    labels = labels_of_checkpoint(model_args)
    if labels and data.label_list and labels != data.label_list and not training:
        raise UserError(
            f"--prefix_checkpoint {model_args.prefix_checkpoint} was trained for the labels "
            f"{', '.join(labels)}, {data.name} has {', '.join(data.label_list)}: add --do_train "
            "to go on from it"
        )
