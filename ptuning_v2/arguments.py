"""The flags of ``run.py``, and which combinations mean something."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import flags
from harness.flags import HIDDEN, flag, required
from harness.only import check_only, next_words, without_steps
from harness.ranges import COUNT, FINITE, FRACTION, WIDTH
from prefix_tuning.errors import UserError
from ptuning_v2.only import ONLY
from ptuning_v2.own_data import OwnData
from ptuning_v2.tasks.utils import DATASETS, OWN, TASKS

if TYPE_CHECKING:
    from ptuning_v2.training.arguments import RunArguments

DEFAULT_LENGTHS = {"glue": 128, "superglue": 128, "classification": 128, "qa": 384}

DESCRIPTION = """\
Train prompts, a head, or a whole encoder for a task of language understanding; evaluate it; write
predictions.

    python ptuning_v2/run.py --model_name_or_path bert-base-uncased --task_name classification \\
        --train_file reviews.csv --output_dir run

Every flag of transformers.TrainingArguments is taken too, or refused with the reason."""


def _unused(default: Any = None) -> Any:
    """A flag of the original that had no effect there either."""
    return flag(default, HIDDEN)


@dataclass
class ModelArguments:
    """The encoder, and the prompts in front of it."""

    model_name_or_path: str = required("hub name or local folder of the encoder")
    use_fast_tokenizer: bool = _unused(True)
    model_revision: str = flag("main", "version on the hub: a branch, tag or commit")
    cache_dir: str | None = flag(None, "where downloaded models are stored")
    prefix: bool = flag(False, "train keys and values in every layer (P-tuning v2)")
    prompt: bool = flag(False, "train vectors at the input alone, the shallow baseline")
    pre_seq_len: int = flag(4, "number of prompt vectors of a layer", within=WIDTH)
    prefix_projection: bool = flag(False, "compute the keys and values by an MLP")
    prefix_hidden_size: int = flag(512, "hidden width of that MLP", within=WIDTH)
    parametrization: str = flag(
        "ptuning_v2",
        "how keys and values are computed: ptuning_v2, mlp, flat, or one that is registered",
    )
    prefix_options: str | None = flag(
        None, "options of that parametrisation by name, as rank=4,scale=0.5"
    )
    hidden_dropout_prob: float = flag(
        0.1,
        "with --prefix, dropout of the prefix, the head and the frozen encoder",
        within=FRACTION,
    )
    shift_positions: str = flags.yes_no(
        "yes", "number the tokens from pre_seq_len, as the original does; no: from 0"
    )
    convolve_padding: str = flags.yes_no(
        "no", "let the convolution of DeBERTa-v2 read padding, as the original does"
    )
    freeze_backbone: bool = flag(False, "without prompts, train the head alone")
    prefix_checkpoint: str | None = flag(None, "folder of a trained prefix to start from")
    config_name: str | None = _unused()
    tokenizer_name: str | None = _unused()
    use_auth_token: bool = _unused(False)

    @property
    def occupied_positions(self) -> int:
        """Positions of the encoder that the prompts take from the tokens."""
        shifts = self.prompt or (self.prefix and self.shift_positions == "yes")
        return self.pre_seq_len if shifts else 0


@dataclass
class DataTrainingArguments(OwnData):
    """The data."""

    task_name: str = required(
        "family of tasks; classification and tagging are for one's own files",
        choices=[*TASKS, *OWN],
    )
    dataset_name: str = flag("", "data set of that family", choices=list(DATASETS))
    data_dir: str | None = flag(
        None, "folder of the official files (default: the hub; for ner and srl data/)"
    )
    max_seq_length: int | None = flag(
        None,
        "tokens that a text is cut to (default: 128; qa 384); ner and srl cut to what the encoder "
        "has room for, as the original does",
        within=COUNT,
    )
    pad_to_max_length: bool = flag(True, "glue and superglue: pad every text to that length")
    max_train_samples: int | None = flag(
        None, "number of first rows to train on (default: all)", within=COUNT
    )
    max_eval_samples: int | None = flag(
        None, "number of first rows to evaluate on (default: all)", within=COUNT
    )
    max_predict_samples: int | None = flag(
        None, "number of first rows to predict (default: all)", within=COUNT
    )
    train_size: int | None = flag(
        None, "number of rows to train on, drawn by --seed (default: all)", within=COUNT
    )
    predict_split: str | None = flag(
        None,
        "set that --do_predict predicts (default: test; qa validation, as its test sets are not "
        "public)",
        choices=["test", "validation"],
    )
    template_id: int = flag(0, "wording of wsc and wic: 0, or 1 as in the scripts for BERT")
    overwrite_cache: bool = _unused(False)
    dataset_config_name: str | None = _unused()

    @property
    def is_own(self) -> bool:
        """Whether the data is one's own."""
        return self.task_name in OWN or bool(self.files)


@dataclass
class RunFlags:
    """The run and its training."""

    output_dir: str = required("folder of the run")
    overwrite_output_dir: bool = flag(False, "train again where a run already is")
    resume_from_checkpoint: str | None = flag(
        None, "checkpoint to go on from (default: the newest of an interrupted run)"
    )
    do_train: bool = flag(False, "train")
    do_eval: bool = flag(False, "evaluate on the development set")
    do_predict: bool = flag(False, "write predictions in the format of the benchmark")
    learning_rate: float = flag(5e-5, "learning rate at the start")
    num_train_epochs: float = flag(3.0, "passes over the training set")
    max_steps: int = flag(-1, "number of updates, instead of epochs (-1: as the epochs say)")
    per_device_train_batch_size: int = flag(
        8, "rows of a training batch", aliases=("--per_gpu_train_batch_size",)
    )
    per_device_eval_batch_size: int = flag(
        8, "rows of an evaluation batch", aliases=("--per_gpu_eval_batch_size",)
    )
    gradient_accumulation_steps: int = flag(1, "batches that make one update")
    warmup_steps: float = flag(0, "updates, or below 1 their share, in which the rate rises")
    weight_decay: float = flag(0.0, "decay of the trained weights")
    max_grad_norm: float = flag(1.0, "norm to which gradients are clipped")
    seed: int = flag(42, "seed of initial values, order and dropout")
    eval_strategy: str = flag(
        "no", "when to evaluate: no, epoch or steps", aliases=("--evaluation_strategy",)
    )
    save_strategy: str = flag("epoch", "when to write a checkpoint to resume from; no: never")
    save_total_limit: int | None = flag(1, "number of checkpoints that stay")
    logging_dir: str | None = flag(None, "TensorBoard folder (default: <output_dir>/runs)")
    cuda_graphs: str = flag(
        "no", "auto: record a step of each width on a GPU and replay it", choices=("auto", "no")
    )
    use_cpu: bool = flag(False, "compute on the CPU even if there is a GPU", aliases=("--no_cuda",))


@dataclass
class QuestionAnwseringArguments:
    """How answers are picked."""  # The name is spelt as in the original.

    n_best_size: int = flag(
        20, "starts and ends considered of a window, and answers stored", within=COUNT
    )
    max_answer_length: int = flag(30, "most tokens of an answer", within=COUNT)
    version_2_with_negative: bool = _unused(False)
    null_score_diff_threshold: float = flag(
        0.0,
        "squad_v2: margin by which no answer must beat the best answer to be given",
        within=FINITE,
    )


class Arguments(NamedTuple):
    """What ``run.py`` is asked for, checked."""

    model_args: ModelArguments
    data_args: DataTrainingArguments
    training_args: RunArguments
    qa_args: QuestionAnwseringArguments

    def of_trained(self, folder: Path) -> Arguments:
        """The same evaluation and predictions of weights that are trained already."""
        training_args = copy.copy(self.training_args)
        training_args.do_train = False
        model_args = replace(self.model_args, prefix_checkpoint=str(folder))
        return self._replace(model_args=model_args, training_args=training_args)


def get_args(
    argv: Sequence[str] | None = None, given: Mapping[str, object] | None = None
) -> Arguments:
    """Parse and check the command line, before anything is loaded.

    Args:
        given: values of flags that ``argv`` may replace, by name.

    Raises:
        UserError: a flag is missing or makes no sense, naming it.
    """
    classes = (ModelArguments, DataTrainingArguments, RunFlags, QuestionAnwseringArguments)
    # None: it is not said whether a prefix is wanted.
    unsaid = {"prefix": None}
    parser = flags.Parser(*classes, description=DESCRIPTION, defaults=unsaid, given=given)
    (model_args, data_args, _, _), _ = parser.read_known(argv)
    if data_args.is_own:
        _check_own(data_args)
        others = model_args.prompt or model_args.freeze_backbone
        goes_on = model_args.prefix_checkpoint is not None
        own = data_args.defaults(data_args.task_name, goes_on, model_args.prefix, others)
        words = sys.argv[1:] if argv is None else argv
        words = [*flags.command(given or {}), *words]
        given = {**without_steps(own, next_words(words)), **(given or {})}
    parser = flags.Parser(*classes, description=DESCRIPTION, given=given)
    (model_args, data_args, run_flags, qa_args), rest = parser.read_known(argv)
    check(model_args, data_args, run_flags, qa_args)
    given_data = data_args
    data_args = replace(
        data_args,
        max_seq_length=data_args.max_seq_length or DEFAULT_LENGTHS.get(data_args.task_name),
        predict_split=data_args.predict_split
        or ("validation" if data_args.task_name == "qa" and not data_args.test_file else "test"),
        dataset_name=data_args.dataset_name or data_args.task_name,
    )
    from ptuning_v2.training.arguments import training_arguments

    check_only(ONLY, model_args, given_data, run_flags, qa_args)
    training_args = training_arguments(run_flags, rest, parser.known(), data_args.task_name)
    return Arguments(model_args, data_args, training_args, qa_args)


def check(
    model_args: ModelArguments,
    data_args: DataTrainingArguments,
    run_flags: RunFlags,
    qa_args: QuestionAnwseringArguments,
) -> None:
    """Refuse by name what is impossible."""
    _check_data(data_args)
    data_args.check_columns(data_args.task_name)
    _check_model(model_args, data_args)
    if data_args.is_own:
        _check_files(data_args, run_flags)
    if not (run_flags.do_train or run_flags.do_eval or run_flags.do_predict):
        raise UserError("nothing to do: give --do_train, --do_eval or --do_predict")


def _check_own(data_args: DataTrainingArguments) -> None:
    data_args.check(data_args.task_name)
    if data_args.data_dir is not None:
        raise UserError(
            f"--data_dir {data_args.data_dir}: name one's own data with --train_file, "
            "--validation_file and --test_file"
        )
    if data_args.task_name in OWN and data_args.dataset_name:
        raise UserError(
            f"--dataset_name {data_args.dataset_name}: {data_args.task_name} is for one's own files"
        )


def _check_files(data_args: DataTrainingArguments, run_flags: RunFlags) -> None:
    predicts = run_flags.do_predict and data_args.predict_split is None
    missing = data_args.missing(run_flags.do_train, run_flags.do_eval, predicts)
    if missing:
        raise UserError(f"--task_name {data_args.task_name}: name the data with {missing}")


def _check_data(data_args: DataTrainingArguments) -> None:
    if data_args.task_name in OWN:
        return
    names = TASKS[data_args.task_name]
    if data_args.dataset_name not in names:
        raise UserError(
            f"--dataset_name {data_args.dataset_name}: --task_name {data_args.task_name} has "
            f"{', '.join(names)}"
        )
    if data_args.data_dir is not None and not Path(data_args.data_dir).is_dir():
        raise UserError(f"--data_dir {data_args.data_dir}: there is no such folder")
    if data_args.template_id not in (0, 1):
        raise UserError(f"--template_id {data_args.template_id}: use 0 or 1")
    is_public = data_args.task_name == "qa" and not data_args.test_file
    if is_public and data_args.predict_split == "test":
        raise UserError("--predict_split test: SQuAD's test sets are not public; use validation")


def _check_model(model_args: ModelArguments, data_args: DataTrainingArguments) -> None:
    if model_args.prefix and model_args.prompt:
        raise UserError("--prefix and --prompt: give one of them")
    texts = ("glue", "superglue", "classification")
    if model_args.prompt and data_args.task_name not in texts:
        raise UserError(f"--prompt with --task_name {data_args.task_name}: only {', '.join(texts)}")
    if model_args.prefix_projection and not model_args.prefix:
        raise UserError("--prefix_projection is part of --prefix: give both")
    if model_args.prefix_checkpoint is not None and not Path(model_args.prefix_checkpoint).is_dir():
        raise UserError(
            f"--prefix_checkpoint {model_args.prefix_checkpoint}: there is no such folder"
        )
