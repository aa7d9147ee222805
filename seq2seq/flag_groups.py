"""The flags of ``finetune.py`` by what they are about, with the original's names and defaults.

None stands for "not given": the default then depends on the checkpoint or on other flags.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.flags import HIDDEN, flag, required, yes_no
from harness.ranges import (
    COUNT,
    COUNT_OR_NONE,
    EXPONENT,
    FRACTION,
    LARGEST_COUNT,
    NOT_NEGATIVE,
    SEED,
    STEPS,
    WIDTH,
    Range,
)
from prefix_tuning.names import SITES
from seq2seq.search import PRESETS

TUNING_MODES = ("prefixtune", "finetune")
VAL_METRICS = {"summarization": ("rouge2", "loss"), "translation": ("bleu", "loss")}
"""Task -> what can choose the best checkpoint; the first does unless another is named."""
SCHEDULES = ("linear", "cosine", "cosine_w_restarts", "polynomial")
RATE = Range(5e-324, 1e30, "must be positive, and at most 1e30")
DECAY = Range(0, 1e6, "must not be negative, and at most 1e6")
"""Products of these are numbers of fp32, in which the optimiser computes."""
EXAMPLES = Range(1, LARGEST_COUNT, "give a number of examples, or -1 for all", also=-1)
PATIENCE = Range(0, LARGEST_COUNT, "give a number of validations, or -1 for never", also=-1)
WORKERS = Range(0, 1024, "must be from 0 to 1024")
EMPTY_SOURCES = ("refuse", "skip")
PREDICT_SPLITS = ("test", "val")


@dataclass(kw_only=True)
class ModelArguments:
    """The base model."""

    model_name_or_path: str | None = flag(
        None, "base model, or fine-tuned model (default: the checkpoint's)"
    )
    prefixModel_name_or_path: str | None = flag(
        None, "trained prefix to decode with, or to start from"
    )
    prefix_bank: str | None = flag(
        None, "folder of prefixes to decode with; records name theirs in a column prefix"
    )
    tokenizer_name: str | None = flag(None, "tokenizer (default: the model's)")
    cache_dir: str | None = flag(None, "where downloaded models are kept")
    tuning_mode: str = flag("prefixtune", f"what to train: {' or '.join(TUNING_MODES)}")
    encoder_layerdrop: float | None = flag(
        None, "probability of skipping an encoder layer (default: the model's)", within=FRACTION
    )
    decoder_layerdrop: float | None = flag(
        None, "probability of skipping a decoder layer (default: the model's)", within=FRACTION
    )
    dropout: float | None = flag(
        None, "dropout of the base model (default: the model's)", within=FRACTION
    )
    attention_dropout: float | None = flag(
        None, "dropout of the base model's attention (default: the model's)", within=FRACTION
    )
    gradient_checkpointing: bool = flag(
        False, "compute activations twice: less memory, a third more time"
    )
    freeze_encoder: bool = flag(False, "fine-tune the decoder only")
    freeze_embeds: bool = flag(False, "fine-tune all but the embeddings")
    config_name: str = flag("", HIDDEN)


@dataclass(kw_only=True)
class PrefixArguments:
    """The prefix."""

    preseqlen: int | None = flag(None, "prefix length (default: 1)", within=WIDTH)
    mid_dim: int | None = flag(
        None, "hidden width of the prefix's MLPs (default: 512)", within=WIDTH
    )
    use_deep: str | None = yes_no(None, "add a hidden layer to the MLPs (default: no)")
    prefix_sites: str | None = flag(
        None, f"attentions that get a prefix (default: {','.join(SITES)})"
    )
    parametrization: str | None = flag(
        None, "kind of prefix: mlp, flat, or one that is registered (default: mlp)"
    )
    prefix_options: str | None = flag(
        None, "options of the parametrisation by name, as rank=4,scale=0.5"
    )
    prefix_dropout: float = flag(0.0, "dropout on the generated keys and values", within=FRACTION)
    use_lowdata_token: str = yes_no("no", "start the prefix from the words of --lowdata_token")
    lowdata_token: str = flag("summarize", "words whose activations the prefix starts from")
    optim_prefix: str = yes_no("yes", "train a prefix (prefixtune trains nothing else)")
    prefix_mode: str = flag("activation", "what a prefix consists of: only activation")
    format_mode: str = flag("cat", "cat, peek or nopeek, all the same for an encoder-decoder")
    use_dropout: str = yes_no("no", "accepted without effect: BART's own dropout is always on")


@dataclass(kw_only=True)
class DataArguments:
    """The data."""

    data_dir: str = required("folder of the splits, file, or data set of the hub")
    dataset_config: str | None = flag(None, "configuration of the hub's data set")
    source_column: str | None = flag(
        None, "column of the sources in CSV, JSONL and on the hub (default: guessed)"
    )
    target_column: str | None = flag(None, "column of the targets (default: guessed)")
    eval_fraction: float | None = flag(
        None,
        "share of the sources of one file to validate on, not to train on (default: 0.1)",
        within=FRACTION,
    )
    empty_sources: str = flag(
        "refuse", "what becomes of records without a source", choices=EMPTY_SOURCES
    )
    source_prefix: str | None = flag(
        None, "text in front of every source, as T5's \"summarize: \" (default: the model's)"
    )
    max_source_length: int | None = flag(
        None, "tokens to cut sources at (default: 512)", within=COUNT
    )
    max_target_length: int = flag(56, "tokens to cut training targets at", within=COUNT)
    val_max_target_length: int = flag(142, "tokens to cut validation targets at", within=COUNT)
    test_max_target_length: int = flag(142, "tokens to cut test targets at", within=COUNT)
    n_train: int = flag(-1, "number of training examples to use (-1: all)", within=EXAMPLES)
    n_val: int = flag(500, "number of validation examples to use (-1: all)", within=EXAMPLES)
    n_test: int = flag(
        -1,
        "number of examples to decode of each split (-1: all)",
        aliases=("--limit",),
        within=EXAMPLES,
    )
    task_mode: str = flag("summarization", f"task: {' or '.join(VAL_METRICS)}")
    src_lang: str = flag("", "language of the sources, for tokenizers that have one")
    tgt_lang: str = flag("", "language of the targets")
    sortish_sampler: bool = flag(False, "batch examples of similar length")
    max_tokens_per_batch: int | None = flag(
        None,
        "fill batches up to this many padded tokens, instead of a number of examples",
        within=COUNT,
    )
    num_workers: int = flag(4, "processes that tokenise", within=WORKERS)


@dataclass(kw_only=True)
class OptimizationArguments:
    """The optimisation."""

    learning_rate: float = flag(5e-5, "peak learning rate", within=RATE)
    lr_scheduler: str = flag("linear", "how the learning rate falls", choices=SCHEDULES)
    weight_decay: float = flag(0.0, "weight decay of AdamW", within=DECAY)
    adam_epsilon: float = flag(1e-8, "epsilon of AdamW", within=DECAY)
    warmup_steps: int = flag(0, "optimiser steps of linear warm-up", within=COUNT_OR_NONE)
    adafactor: bool = flag(False, "optimise with Adafactor instead of AdamW")
    num_train_epochs: int = flag(3, "passes over the training set", within=COUNT)
    max_steps: int = flag(-1, "optimiser steps, instead of epochs (-1: epochs)", within=STEPS)
    train_batch_size: int = flag(10, "examples in a training batch", within=COUNT)
    eval_batch_size: int = flag(10, "examples in a validation batch", within=COUNT)
    gradient_accumulation_steps: int = flag(1, "batches per optimiser step", within=COUNT)
    max_grad_norm: float = flag(
        0.0, "norm to clip gradients at (0, as the original: no clipping)", within=NOT_NEGATIVE
    )
    label_smoothing: float = flag(
        0.0, "smooth the training loss, which becomes a sum over tokens", within=FRACTION
    )
    label_smoothing_mean: str = yes_no("no", "make the smoothed loss a mean over tokens")
    fp16: bool = flag(False, "compute in 16-bit floats (mixed precision, needs a GPU)")
    bf16: bool = flag(False, "compute in bfloat16 (mixed precision)")
    fp16_opt_level: str | None = flag(None, HIDDEN)
    seed: int = flag(42, "random seed", within=SEED)


@dataclass(kw_only=True)
class DecodingArguments:
    """The search."""

    search: str = flag("paper", "preset of the beam search", choices=list(PRESETS))
    eval_beams: int | None = flag(None, "number of beams (default: the preset's)", within=WIDTH)
    length_penalty: float | None = flag(
        None,
        "exponent of the length that scores are divided by (default: the preset's)",
        within=EXPONENT,
    )
    eval_min_gen_length: int | None = flag(
        None, "fewest tokens of an output (default: the preset's)", within=COUNT_OR_NONE
    )
    eval_max_gen_length: int | None = flag(
        None, "most tokens of an output (default: the preset's)", within=COUNT
    )
    no_repeat_ngram_size: int | None = flag(
        None, "forbid repeated n-grams of this size (default: the preset's)", within=COUNT_OR_NONE
    )
    decode_batch_size: int = flag(16, "examples decoded together by --do_predict", within=COUNT)


@dataclass(kw_only=True)
class RunArguments:
    """The run."""

    output_dir: str | None = flag(None, "folder of the run")
    overwrite_output_dir: bool = flag(False, "train again where a run already is")
    do_train: bool = flag(False, "train")
    do_predict: bool = flag(False, "decode and score --predict_splits")
    predict_splits: str = flag(
        "test", f"splits to decode, one or both of {','.join(PREDICT_SPLITS)}"
    )
    overwrite_results: bool = flag(False, "replace texts that other weights, data or search made")
    save_steps: int = flag(1000, "optimiser steps between checkpoints to resume from", within=COUNT)
    save_all_epochs: str = yes_no("no", "keep a checkpointepoch=N.ckpt of every epoch")
    save_top_k: int = flag(1, HIDDEN)
    val_metric: str | None = flag(
        None, "what chooses the best checkpoint: rouge2, bleu or loss (default: the task's score)"
    )
    early_stopping_patience: int = flag(
        -1, "stop after this many validations without improvement (-1: never)", within=PATIENCE
    )
    logging_steps: int = flag(50, "optimiser steps between logged losses", within=COUNT)
    logger_name: str = flag(
        "default",
        "where losses are logged; the first is TensorBoard",
        choices=("default", "wandb", "wandb_shared", "none"),
    )
    devices: int = flag(1, "number of devices to train on", aliases=("--gpus",), within=WIDTH)
    accelerator: str = flag("auto", "kind of device", choices=("auto", "cpu", "gpu"))
    strategy: str = flag("auto", "how several devices share the work", choices=("auto", "ddp"))
    n_tpu_cores: int = flag(0, HIDDEN)
