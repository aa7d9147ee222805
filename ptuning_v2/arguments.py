"""The flags of ``run.py``, and which combinations mean something."""

from __future__ import annotations

import math
import sys
from argparse import SUPPRESS
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser, PretrainedConfig, TrainingArguments

from prefix_tuning.errors import UserError
from ptuning_v2.tasks.utils import DATASETS, TASKS

RENAMED = {
    "--evaluation_strategy": "--eval_strategy",
    "--no_cuda": "--use_cpu",
    "--warmup_ratio": "--warmup_steps",
    "--per_gpu_train_batch_size": "--per_device_train_batch_size",
    "--per_gpu_eval_batch_size": "--per_device_eval_batch_size",
}
"""Flags that transformers has given other names since the original's scripts were written."""

DEFAULT_LENGTHS = {"glue": 128, "superglue": 128, "qa": 384}


def _flag(default: Any, text: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": text, **more})


def _required(text: str, **more: Any) -> Any:
    return field(metadata={"help": text, **more})


def _unused(default: Any = None) -> Any:
    """A flag of the original that had no effect there either."""
    return _flag(default, SUPPRESS)


@dataclass
class ModelArguments:
    """The encoder, and the prompts in front of it."""

    model_name_or_path: str = _required("hub name or local folder of the encoder")
    use_fast_tokenizer: bool = _unused(True)
    model_revision: str = _flag("main", "version on the hub: a branch, tag or commit")
    cache_dir: str | None = _flag(None, "where downloaded models are kept")
    prefix: bool = _flag(False, "deep prompts: keys and values in every layer (P-tuning v2)")
    prompt: bool = _flag(False, "prompts at the input embeddings only, the shallow baseline")
    pre_seq_len: int = _flag(4, "prompt length")
    prefix_projection: bool = _flag(False, "an MLP over the prefix embeddings")
    prefix_hidden_size: int = _flag(512, "hidden width of that MLP")
    hidden_dropout_prob: float = _flag(
        0.1, "with --prefix, dropout of prefix, head and frozen encoder alike"
    )
    shift_positions: str = _flag(
        "yes",
        "number the tokens from pre_seq_len, as in the original, and not from 0 (yes or no)",
        choices=["yes", "no"],
    )
    freeze_backbone: bool = _flag(False, "without prompts, train the head alone")
    prefix_checkpoint: str | None = _flag(None, "folder of a trained prefix to start from")
    config_name: str | None = _unused()
    tokenizer_name: str | None = _unused()
    use_auth_token: bool = _unused(False)

    @property
    def occupied_positions(self) -> int:
        """Positions of the encoder that the prompts take from the tokens."""
        shifts = self.prompt or (self.prefix and self.shift_positions == "yes")
        return self.pre_seq_len if shifts else 0


@dataclass
class DataTrainingArguments:
    """What is trained on."""

    task_name: str = _required(f"one of {', '.join(TASKS)}", choices=list(TASKS))
    dataset_name: str = _required(f"one of {', '.join(DATASETS)}", choices=list(DATASETS))
    data_dir: str | None = _flag(
        None, "folder of the official files; if not given, the hub, or for ner and srl data/"
    )
    max_seq_length: int | None = _flag(
        None,
        "tokens of a text (128; qa 384); without effect on ner and srl, as in the original: "
        "they use what the encoder has",
    )
    pad_to_max_length: bool = _flag(True, "glue and superglue: pad to that length")
    max_train_samples: int | None = _flag(None, "train on the first rows only")
    max_eval_samples: int | None = _flag(None, "evaluate on the first rows only")
    max_predict_samples: int | None = _flag(None, "predict the first rows only")
    train_size: int | None = _flag(None, "train on this many rows, drawn with --seed")
    predict_split: str | None = _flag(
        None,
        "what --do_predict predicts: test, or validation (the default for qa, whose test sets are "
        "not public)",
        choices=["test", "validation"],
    )
    template_id: int = _flag(0, "wording of wsc and wic: 0, or 1 as in the scripts for BERT")
    overwrite_cache: bool = _unused(False)
    dataset_config_name: str | None = _unused()
    train_file: str | None = _unused()
    validation_file: str | None = _unused()
    test_file: str | None = _unused()


@dataclass
class RunArguments(TrainingArguments):
    """Trainer's flags; ``--save_strategy no`` keeps nothing to resume from."""

    output_dir: str = _required("folder of the run")
    save_strategy: str = _flag("epoch", "when to write a checkpoint to resume from")
    save_total_limit: int | None = _flag(1, "checkpoints kept")
    overwrite_output_dir: bool = _flag(False, "train again where a run already is")
    logging_dir: str | None = _flag(None, "TensorBoard folder; <output_dir>/runs if not given")


@dataclass
class QuestionAnwseringArguments:
    """How answers are picked; the class is spelt as in the original."""

    n_best_size: int = _flag(20, "starts and ends considered of a window, and answers kept")
    max_answer_length: int = _flag(30, "most tokens of an answer")
    version_2_with_negative: bool = _unused(False)
    null_score_diff_threshold: float = _flag(
        0.0, "squad_v2: how much likelier no answer has to be than the best one to be given"
    )


Arguments = tuple[ModelArguments, DataTrainingArguments, RunArguments, QuestionAnwseringArguments]


def get_args(argv: Sequence[str] | None = None) -> Arguments:
    """Parse and check the command line, before anything is loaded.

    Raises:
        UserError: a flag is missing or makes no sense, naming it.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = HfArgumentParser(
        [ModelArguments, DataTrainingArguments, RunArguments, QuestionAnwseringArguments]
    )
    try:
        model, data, run, qa = parser.parse_args_into_dataclasses(args=[*map(_rename, argv)])
    except ValueError as error:  # unknown flags, and combinations that Trainer refuses
        raise UserError(str(error)) from error
    if data.max_seq_length is None:
        data.max_seq_length = DEFAULT_LENGTHS.get(data.task_name)
    if data.predict_split is None:
        data.predict_split = "validation" if data.task_name == "qa" else "test"
    check(model, data, run, qa)
    return model, data, run, qa


def _rename(argument: str) -> str:
    flag, equals, value = argument.partition("=")
    return RENAMED.get(flag, flag) + equals + value


def check(
    model: ModelArguments,
    data: DataTrainingArguments,
    run: RunArguments,
    qa: QuestionAnwseringArguments,
) -> None:
    """Refuse by name what is impossible."""
    _check_data(data)
    _check_model(model, data)
    if not (run.do_train or run.do_eval or run.do_predict):
        raise UserError("nothing to do: give --do_train, --do_eval or --do_predict")
    if not (run.learning_rate > 0 and math.isfinite(run.learning_rate)):
        raise UserError(f"--learning_rate {run.learning_rate}: must be positive")
    epochs = run.num_train_epochs
    if run.do_train and (run.max_steps == 0 or not (epochs > 0 and math.isfinite(epochs))):
        raise UserError("nothing to train: --max_steps and --num_train_epochs must not be 0")
    if not 0 <= run.seed < 2**32:
        raise UserError(f"--seed {run.seed}: must be from 0 to {2**32 - 1}")
    for name in _COUNTS:
        _at_least_one(name, getattr(run, name))
    for name in ("n_best_size", "max_answer_length"):
        _at_least_one(name, getattr(qa, name))


_COUNTS = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
)


def _check_data(data: DataTrainingArguments) -> None:
    names = TASKS[data.task_name]
    if data.dataset_name not in names:
        raise UserError(
            f"--dataset_name {data.dataset_name}: --task_name {data.task_name} has "
            f"{', '.join(names)}"
        )
    if data.data_dir is not None and not Path(data.data_dir).is_dir():
        raise UserError(f"--data_dir {data.data_dir}: there is no such folder")
    if data.template_id not in (0, 1):
        raise UserError(f"--template_id {data.template_id}: use 0 or 1")
    if data.task_name == "qa" and data.predict_split == "test":
        raise UserError("--predict_split test: SQuAD's test sets are not public; use validation")
    for name in ("max_seq_length", "max_train_samples", "max_eval_samples", "max_predict_samples"):
        _at_least_one(name, getattr(data, name))
    _at_least_one("train_size", data.train_size)


def _check_model(model: ModelArguments, data: DataTrainingArguments) -> None:
    if model.prefix and model.prompt:
        raise UserError("--prefix and --prompt: give one of them")
    if model.prompt and data.task_name not in ("glue", "superglue"):
        raise UserError(f"--prompt with --task_name {data.task_name}: only glue and superglue")
    if model.prefix_projection and not model.prefix:
        raise UserError("--prefix_projection is part of --prefix: give both")
    if model.prefix or model.prompt:
        _at_least_one("pre_seq_len", model.pre_seq_len)
        _at_least_one("prefix_hidden_size", model.prefix_hidden_size)
    if not 0 <= model.hidden_dropout_prob < 1:
        raise UserError(f"--hidden_dropout_prob {model.hidden_dropout_prob}: must be in [0, 1)")
    if model.prefix_checkpoint is not None and not Path(model.prefix_checkpoint).is_dir():
        raise UserError(f"--prefix_checkpoint {model.prefix_checkpoint}: there is no such folder")


def _at_least_one(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UserError(f"--{name} {value}: must be at least 1")


def free_positions(config: PretrainedConfig, occupied: int) -> int | None:
    """How many tokens fit beside the prompts; None where positions are relative only.

    Args:
        config: of the encoder.
        occupied: :attr:`ModelArguments.occupied_positions`.
    """
    if not getattr(config, "position_biased_input", True):
        return None
    # RoBERTa's table begins with rows that no token uses, up to the one of padding.
    skipped = config.pad_token_id + 1 if config.model_type in _NUMBERED_AFTER_PADDING else 0
    return config.max_position_embeddings - skipped - occupied


_NUMBERED_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")


def check_length(config: PretrainedConfig, pre_seq_len: int, max_seq_length: int) -> None:
    """Refuse prompts and texts that do not fit the encoder together.

    Args:
        config: of the encoder.
        pre_seq_len: :attr:`ModelArguments.occupied_positions`.
        max_seq_length: tokens of the longest text.

    Raises:
        UserError: naming both flags and how many positions there are.
    """
    free = free_positions(config, pre_seq_len)
    if free is not None and max_seq_length > free:
        raise UserError(
            f"--pre_seq_len {pre_seq_len} and --max_seq_length {max_seq_length} together exceed "
            f"the {free + pre_seq_len} positions of the encoder: shorten one of them"
        )
