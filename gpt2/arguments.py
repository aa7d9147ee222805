"""The flags of ``run_language_modeling.py``, and which combinations mean something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import HfArgumentParser, TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from gpt2 import prefix_flags
from gpt2.adapters import DESIGNS
from gpt2.baselines import PREPARE, TOP_LAYERS, WITH_PREFIX, check_peft
from gpt2.distillation import MATCHING_OBJECTIVES, POSITIONS
from gpt2.records import subset_size
from gpt2.tasks import TASKS
from harness.models import DTYPES
from prefix_tuning.errors import UserError
from prefix_tuning.objectives import OBJECTIVE_MODES
from prefix_tuning.parametrizations import PARAMETRIZATIONS

TUNING_MODES = tuple(PREPARE)


def _flag(default: Any, text: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": text, **more})


def _yes_no(default: str, text: str) -> Any:
    return _flag(default, f"{text} (yes or no)", choices=["yes", "no"])


@dataclass
class ModelArguments:
    """The frozen model and the prefix in front of it."""

    model_name_or_path: str = _flag("gpt2-medium", "hub name, local folder or GGUF file")
    tokenizer_name: str | None = _flag(None, "tokenizer, if not the model's")
    cache_dir: str | None = _flag(None, "where downloaded models are kept")
    dtype: str = _flag("float32", "precision of the frozen model", choices=list(DTYPES))
    tuning_mode: str = _flag("finetune", f"one of {', '.join(TUNING_MODES)}")
    optim_prefix: str = _yes_no("no", "optimise a prefix; yes for prefixtune")
    preseqlen: int = _flag(0, "prefix length; 0 with --init text: as many slots as tokens")
    mid_dim: int = _flag(512, "hidden width of the prefix's MLP")
    prefix_dropout: float = _flag(0.0, "dropout on the generated keys and values")
    prefix_mode: str = _flag("activation", "activation, or embedding: vectors instead of words")
    parametrize_emb: str = _flag("MLP", "vectors of --prefix_mode embedding: MLP or Emb (none)")
    format_mode: str = _flag("cat", "cat or peek (they train the same), or infix")
    deep: str = _yes_no("no", "one more hidden layer in the prefix's MLP")
    init_shallow: str = _yes_no("no", "keys and values as the parameters themselves, no MLP")
    init_shallow_word: str = _flag("no", "words it starts from, whose number replaces preseqlen")
    parametrization: str | None = _flag(
        None, f"the variant by name, instead of the flags above: {', '.join(PARAMETRIZATIONS)}"
    )
    init: str | None = _flag(None, f"what the prefix starts from: {', '.join(prefix_flags.INITS)}")
    init_text: str | None = _flag(None, "the text of --init text: a word, an instruction, ...")
    init_file: str | None = _flag(None, "a file with the text of --init text")
    init_random: str = _yes_no("no", "without effect, as in the original")
    use_dropout: str = _yes_no("no", "dropout of the frozen model while training")
    objective_mode: int = _flag(2, "how a prefix's token losses are added up, 0 to 4")
    top_layers: int = _flag(2, f"finetune-top: the original's code, one of {[*TOP_LAYERS]}")
    train_top: int | None = _flag(None, "finetune-top: so many top blocks, instead of a code")
    train_embs: str = _yes_no("no", "finetune-top with --train_top: train word embeddings too")
    adapter_design: int = _flag(2, "adaptertune: 1 behind a block, 2 behind attention and MLP")
    adapter_bottleneck: int = _flag(100, "adaptertune: width of the bottleneck")
    lora_r: int = _flag(4, "lora: rank of the updates")
    lora_alpha: int = _flag(32, "lora: the updates are scaled by alpha / r")
    distill: str = _yes_no("no", "prefixtune: learn from a teacher, not from the texts")
    finetuned_model_path: str | None = _flag(None, "the teacher, a run of finetune")
    matching_objective: str = _flag("kl", f"one of {', '.join(MATCHING_OBJECTIVES)}")
    distill_positions: str = _flag("target", "target, or all as the original", choices=POSITIONS)
    teacher_dropout: float | None = _flag(None, "finetune: residual dropout, for a teacher")
    pad_row: str = _flag(
        "auto",
        "a [PAD] row in the training softmax as the original has it: yes, no, or auto (GPT-2 only)",
        choices=["yes", "no", "auto"],
    )


@dataclass
class DataArguments:
    """What is trained on, and what is decoded afterwards."""

    train_data_file: str | None = _flag(None, "training file")
    eval_data_file: str | None = _flag(None, "file of the evaluation loss; decoded afterwards")
    test_data_file: str | None = _flag(None, "file decoded after training")
    task_mode: str = _flag("data2text", f"one of {', '.join(TASKS)}")
    separator: str | None = _flag(None, "text between source and target, if not the model's own")
    train_size: str | None = _flag(None, "train on a random subset: 100 pairs, or 10%%")
    sample_seed: int = _flag(0, "decides which subset")
    source_prefix: str | None = _flag(None, "a word in front of every source")
    generate: str = _yes_no("yes", "decode the evaluation and test files after training")
    score: str = _yes_no("yes", "score the decoded texts")
    results_dir: str = _flag(".", "where the folders of decoded texts are made")
    line_by_line: bool = _flag(False, "accepted: examples are always lines")
    model_type: str = _flag("gpt2", "accepted: the type is read from the model")


@dataclass
class RunArguments(TrainingArguments):
    """Trainer's flags, with the original's names and defaults where they differ."""

    save_strategy: str = _flag("steps", "when to write a checkpoint to resume from")
    save_steps: float = _flag(1000, "steps between checkpoints")
    save_total_limit: int | None = _flag(1, "checkpoints kept")
    logging_steps: float = _flag(500, "steps between logged losses")
    report_to: str | None = _flag("tensorboard", "tensorboard, wandb, none, ...")
    logging_dir: str | None = _flag(None, "TensorBoard folder; <output_dir>/runs if not given")
    evaluate_during_training: bool = _flag(False, "evaluate every --eval_steps steps")
    overwrite_output_dir: bool = _flag(False, "train again where a run already is")
    length_groups: str = _yes_no("no", "batches of examples of about one length")
    evaluate_train_set: str = _yes_no("no", "also report the loss on the whole training set")


Arguments = tuple[ModelArguments, DataArguments, RunArguments]


def parse(argv: Sequence[str] | None) -> Arguments:
    """Parse and check the command line, before anything is loaded.

    Raises:
        UserError: a flag is missing or makes no sense, naming it.
    """
    parser = HfArgumentParser([ModelArguments, DataArguments, RunArguments])
    try:
        model, data, run = parser.parse_args_into_dataclasses(args=list(argv) if argv else argv)
    except ValueError as error:  # unknown flags, and combinations that Trainer refuses
        raise UserError(" ".join(str(error).split())) from error
    check(model, data, run)
    return model, data, run


def check(model: ModelArguments, data: DataArguments, run: RunArguments) -> None:
    """Refuse by name what is impossible or not implemented."""
    if data.task_mode not in TASKS:
        raise UserError(f"--task_mode {data.task_mode}: only {', '.join(TASKS)} so far")
    if model.tuning_mode not in TUNING_MODES:
        raise UserError(f"--tuning_mode {model.tuning_mode}: only {', '.join(TUNING_MODES)} so far")
    if model.objective_mode not in OBJECTIVE_MODES:
        raise UserError(f"--objective_mode {model.objective_mode}: use 0, 1, 2, 3 or 4")
    if data.train_data_file is None:
        raise UserError("--train_data_file is missing: name the file to train on")
    if run.output_dir is None:
        raise UserError("--output_dir is missing: name the folder of the run")
    if run.evaluate_during_training and data.eval_data_file is None:
        raise UserError("--evaluate_during_training needs --eval_data_file")
    _check_run(run)
    if data.train_size is not None:
        subset_size(data.train_size, 100)
    if model.tuning_mode in WITH_PREFIX:
        prefix_flags.check(model)
    _check_baseline(model)
    _check_distillation(model)


def _check_run(run: RunArguments) -> None:
    if not run.learning_rate > 0:  # nor nan
        raise UserError(f"--learning_rate {run.learning_rate}: must be positive")
    if run.max_steps == 0 or run.num_train_epochs <= 0:
        raise UserError("nothing to train: --max_steps and --num_train_epochs must not be 0")
    counts = "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps"
    for name in counts.split():
        if getattr(run, name) < 1:
            raise UserError(f"--{name} {getattr(run, name)}: must be at least 1")
    if run.eval_steps is not None and run.eval_steps <= 0:
        raise UserError(f"--eval_steps {run.eval_steps}: must be positive")
    if not 0 <= run.seed < 2**32:
        raise UserError(f"--seed {run.seed}: must be from 0 to 2**32 - 1")
    installed = get_available_reporting_integrations()
    for name in run.report_to:
        if name not in installed:
            raise UserError(
                f"--report_to {name}: its package is not installed, or there is none of that name; "
                f"use none or {', '.join(installed)}"
            )


def _check_baseline(model: ModelArguments) -> None:
    if model.top_layers not in TOP_LAYERS:
        codes = ", ".join(map(str, TOP_LAYERS))
        raise UserError(f"--top_layers {model.top_layers}: the codes are {codes}; use --train_top")
    if model.train_top is not None and model.tuning_mode != "finetune-top":
        raise UserError(f"--train_top {model.train_top}: only with --tuning_mode finetune-top")
    if model.train_top is not None and model.train_top < 0:
        raise UserError(f"--train_top {model.train_top}: must not be negative")
    if model.train_embs == "yes" and model.train_top is None:
        raise UserError("--train_embs yes: only with --train_top")
    if model.adapter_design not in DESIGNS:
        raise UserError(f"--adapter_design {model.adapter_design}: use 1 or 2")
    for name in ("adapter_bottleneck", "lora_r", "lora_alpha"):
        if getattr(model, name) < 1:
            raise UserError(f"--{name} {getattr(model, name)}: must be at least 1")
    if model.teacher_dropout is not None:
        if "finetune" not in model.tuning_mode:
            raise UserError(
                "--teacher_dropout (--use_custom_teacher_dropout yes): a teacher is trained with "
                "--tuning_mode finetune"
            )
        if not 0 <= model.teacher_dropout < 1:
            raise UserError(f"--teacher_dropout {model.teacher_dropout}: must be in [0, 1)")
    if model.tuning_mode == "lora":
        check_peft()


def _check_distillation(model: ModelArguments) -> None:
    objective = model.matching_objective
    if objective == "last_layer":
        raise UserError(
            "--matching_objective last_layer: the teacher's hidden states belong to other weights "
            "than the prefix's model has, and the original fails on it too; use kl or logits"
        )
    if objective not in MATCHING_OBJECTIVES:
        raise UserError(f"--matching_objective {objective}: use kl or logits")
    if model.distill == "no":
        if model.finetuned_model_path is not None:
            raise UserError("--finetuned_model_path: only with --distill yes")
        return
    if model.tuning_mode != "prefixtune":
        raise UserError(f"--distill yes: only with prefixtune, not {model.tuning_mode}")
    if model.finetuned_model_path is None:
        raise UserError("--distill yes needs the teacher: add --finetuned_model_path")
    if prefix_flags.reads_source(model):
        raise UserError("--distill yes: an infix sees no source where the teacher sees it; use cat")
