"""The flags of training, and which combinations mean something; no torch until they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from gpt2.records import subset_size
from gpt2.tasks import TASKS
from gpt2.tuning import TUNING, TuningMode
from harness.flags import exclude, flag, yes_no
from harness.only import Only, check_only, given
from harness.own_data import Columns
from harness.ranges import COUNT, FRACTION, SEED
from prefix_tuning.errors import UserError

if TYPE_CHECKING:
    from transformers import TrainingArguments

DTYPES = ("float32", "bfloat16", "float16", "auto")
ACTIVATIONS = ("fused", "stock")
EMPTY_SOURCES = ("refuse", "skip")
TRAINER = (
    "Flags of transformers.TrainingArguments are taken as well, or refused with the reason; shown "
    "here are the flags of this project and those with another default."
)


@dataclass(frozen=True)
class ModelArguments:
    """The base model, and what of it is trained."""

    model_name_or_path: str = flag("gpt2-medium", "hub name, local folder or GGUF file")
    tokenizer_name: str | None = flag(None, "tokenizer, if not the model's")
    cache_dir: str | None = flag(None, "folder for downloaded models")
    dtype: str = flag(
        "float32",
        "precision of the frozen model; auto: bfloat16 where GPU or processor multiplies it",
        choices=DTYPES,
    )
    activation: str = flag(
        "fused", "GPT-2's GELU as one kernel, or as transformers writes it", choices=ACTIVATIONS
    )
    tuning_mode: str = flag("finetune", f"what is trained: {', '.join(TUNING)}")
    pad_row: str = flag(
        "auto",
        "train with the original's [PAD] row in the softmax: yes, no, or auto (GPT-2 only)",
        choices=("yes", "no", "auto"),
    )


@dataclass(frozen=True)
class DataArguments:
    """What is trained on, and what is decoded afterwards."""

    train_data_file: str | None = flag(None, "training file")
    eval_data_file: str | None = flag(None, "file of the evaluation loss; decoded afterwards")
    test_data_file: str | None = flag(None, "file decoded after training")
    eval_fraction: float | None = flag(
        None,
        "share of the training data that is held out instead of an evaluation file",
        within=FRACTION,
    )
    source_column: str | None = flag(None, "own data: column of the input, if it is not clear")
    target_column: str | None = flag(None, "own data: column of the output, if it is not clear")
    task_mode: str = flag("data2text", f"task: {', '.join(TASKS)}")
    separator: str | None = flag(None, "text between source and target, if not the model's own")
    spaces: str = yes_no("yes", "put the task's spaces around source and target")
    train_size: str | None = flag(None, "train on a random subset: 100 pairs, or 10%%")
    sample_seed: int = flag(0, "seed that draws the subset", within=SEED)
    source_prefix: str | None = flag(None, "a word to put in front of every source")
    empty_sources: str = flag(
        "refuse", "what becomes of inputs without a source", choices=EMPTY_SOURCES
    )
    generate: str = yes_no("yes", "decode the evaluation and test files after training")
    score: str = yes_no("yes", "score the decoded texts")
    results_dir: str = flag(".", "where the folders of decoded texts are made")
    line_by_line: bool = flag(False, "accepted: examples are always lines")
    model_type: str = flag("gpt2", "accepted: the type is read from the model")

    @property
    def columns(self) -> Columns:
        """Those that the flags name."""
        return Columns(self.source_column, self.target_column)


@dataclass
class RunFlags:
    """The run, as transformers' Trainer takes it."""

    output_dir: str | None = flag(None, "folder of the run")
    save_strategy: str = flag("steps", "when to write a checkpoint to resume from")
    save_steps: float = flag(1000, "steps between checkpoints")
    save_total_limit: int | None = flag(1, "number of checkpoints to keep")
    logging_steps: float = flag(500, "steps between logged losses")
    report_to: str | None = flag("tensorboard", "tensorboard, wandb, none, ...")
    logging_dir: str | None = flag(None, "TensorBoard folder; <output_dir>/runs if not given")
    evaluate_during_training: bool = flag(False, "evaluate every --eval_steps steps")
    overwrite_output_dir: bool = flag(False, "train again where a run already is")
    length_groups: str = yes_no("no", "make batches of examples of about one length")
    pad_multiple: int | None = flag(
        None,
        "pad batches to a multiple of tokens (default: 16 on a GPU, which likes few shapes; 1)",
        within=COUNT,
    )
    cuda_graphs: str = flag(
        "no", "auto: record a step of each width on a GPU and replay it", choices=("auto", "no")
    )
    shard_model: str = yes_no("no", "give each process a part of the frozen model (FSDP)")
    evaluate_train_set: str = yes_no("no", "also report the loss on the whole training set")
    label_smoothing: float = flag(
        0.0,
        "share of the training loss that is spread over the vocabulary; none when evaluating",
        within=FRACTION,
    )


def mode_classes() -> list[type[TuningMode]]:
    """The classes of all tuning modes, each of which has flags of its own."""
    return list(TUNING.values())


IN_EVERY_MODE = {
    *("optim_prefix", "preseqlen", "prefix_mode", "format_mode", "mid_dim", "prefix_dropout"),
    *("use_dropout", "init_random", "objective_mode"),
}
"""Flags of a prefix that the original's command lines have with any tuning mode."""


def choose(
    name: str, options: Sequence[TuningMode], defaults: Mapping[str, object] | None = None
) -> TuningMode:
    """The chosen tuning mode, after checking that no flag is given that only others read.

    Args:
        options: one of each of :func:`mode_classes`.
        defaults: of a command whose defaults are not those of the fields.

    Raises:
        UserError: there is no mode ``name``, or it would not read a flag.
    """
    if name not in TUNING:
        raise UserError(f"--tuning_mode {name}: only {', '.join(TUNING)} so far")
    chosen = next(mode for mode in options if type(mode) is TUNING[name])
    read = {field.name for field in fields(chosen)} | IN_EVERY_MODE
    for mode in options:
        for flag_name, value in given(mode).items():
            if flag_name not in read and value != (defaults or {}).get(flag_name):
                modes = " or ".join(m.name for m in options if hasattr(m, flag_name))
                raise UserError(
                    f"--{flag_name} {value}: only with {modes}, not with --tuning_mode {name}"
                )
    return chosen


ONLY = {
    "sample_seed": Only(
        "with --train_size or --eval_fraction", lambda data: data.train_size or data.eval_fraction
    )
}
"""Flags of the data that are read only beside others."""


def check(model: ModelArguments, data: DataArguments, run: RunFlags) -> None:
    """Refuse by name what is impossible or not implemented."""
    if data.task_mode not in TASKS:
        raise UserError(f"--task_mode {data.task_mode}: only {', '.join(TASKS)} so far")
    if data.train_data_file is None:
        raise UserError("--train_data_file is missing: name the file to train on")
    if run.output_dir is None:
        raise UserError("--output_dir is missing: name the folder of the run")
    check_only(ONLY, data)
    exclude(eval_data_file=data.eval_data_file, eval_fraction=data.eval_fraction)
    if run.evaluate_during_training and not (data.eval_data_file or data.eval_fraction):
        raise UserError("--evaluate_during_training needs --eval_data_file")
    if data.train_size is not None:
        subset_size(data.train_size, 100)


def check_evaluation(run: TrainingArguments, data: DataArguments) -> None:
    """Refuse an evaluation of nothing."""
    when = getattr(run.eval_strategy, "value", run.eval_strategy)
    if when != "no" and not (data.eval_data_file or data.eval_fraction):
        raise UserError(f"--eval_strategy {when}: needs --eval_data_file")
