"""Which of transformers' TrainingArguments the runs take, and within which numbers.

Every field of the installed version stands in one of two tables: those that work here, and those
that would do nothing, or something else than they say; these are refused, with the reason. A field
of a newer version that stands in neither is refused too, and a test names it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from harness.only import Only
from harness.ranges import (
    COUNT,
    COUNT_OR_NONE,
    EPOCHS,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    STEPS,
    Range,
    check_all,
)
from prefix_tuning.errors import UserError

RANGES: dict[str, Range] = {
    **dict.fromkeys(
        (
            *("per_device_train_batch_size", "per_device_eval_batch_size", "save_total_limit"),
            *("gradient_accumulation_steps", "eval_accumulation_steps", "torch_empty_cache_steps"),
            *("ddp_bucket_cap_mb", "ddp_timeout", "dataloader_prefetch_factor"),
        ),
        COUNT,
    ),
    "max_steps": STEPS,
    "num_train_epochs": EPOCHS,
    "dataloader_num_workers": Range(0, 1024, "must be from 0 to 1024"),
    **dict.fromkeys(("learning_rate", "save_steps", "logging_steps", "eval_steps"), POSITIVE),
    **dict.fromkeys(("weight_decay", "adam_epsilon", "max_grad_norm", "eval_delay"), NOT_NEGATIVE),
    "warmup_steps": COUNT_OR_NONE,
    **dict.fromkeys(("adam_beta1", "adam_beta2"), FRACTION),
    "label_smoothing_factor": SHARE,
    **dict.fromkeys(("seed", "data_seed"), SEED),
}
"""The numbers that a field takes."""

TAKEN = {
    *RANGES,
    *("output_dir", "do_train", "do_eval", "resume_from_checkpoint", "local_rank", "use_cpu"),
    *("lr_scheduler_type", "lr_scheduler_kwargs", "optim", "optim_args"),
    *("bf16", "fp16", "bf16_full_eval", "fp16_full_eval", "tf32"),
    *("gradient_checkpointing", "activation_checkpointing"),
    *("logging_strategy", "logging_first_step", "logging_nan_inf_filter", "log_level"),
    *("log_level_replica", "log_on_each_node", "disable_tqdm", "report_to", "run_name", "project"),
    *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
    *("include_num_input_tokens_seen", "eval_strategy", "save_strategy", "full_determinism"),
    *("dataloader_drop_last", "dataloader_pin_memory", "dataloader_persistent_workers"),
    *("train_sampling_strategy", "ddp_find_unused_parameters", "ddp_broadcast_buffers"),
    *("ddp_static_graph", "ddp_backend"),
}
"""The fields that do what they say."""

_BEST = "leave it out, the best evaluation is kept anyway"
_HUB = "nothing is uploaded while training; upload the run's export afterwards"
_SHARDED = "it would shard what is trained; GPT-2's --shard_model yes shards the frozen model"
_METRICS = "the metrics are those of the task"
_ORDER = "the order and content of the batches would change with it"
_COMPILED = "the prefix enters the attentions while they run, which this does not see"

REFUSED: dict[str, str] = {
    "load_best_model_at_end": _BEST,
    "metric_for_best_model": _BEST,
    "greater_is_better": _BEST,
    **dict.fromkeys(
        (
            *("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy"),
            *("hub_always_push", "hub_revision"),
        ),
        _HUB,
    ),
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed", "parallelism_config"), _SHARDED),
    "accelerator_config": _ORDER,
    "ignore_data_skip": "a run that goes on would see other data",
    "save_only_model": "a checkpoint without its optimiser cannot be gone on from",
    "restore_callback_states_from_checkpoint": "the callbacks here keep no state",
    "enable_jit_checkpoint": "a run goes on from its last checkpoint; lower --save_steps",
    "save_on_each_node": "one process writes the run's folder",
    "auto_find_batch_size": "the batch size decides what is trained; give it",
    "neftune_noise_alpha": "the noise would not reach the embeddings of a frozen model",
    "optim_target_modules": "only the prefix, or what the tuning mode says, is trained",
    "average_tokens_across_devices": "a loss here is a mean over the examples of each process",
    **dict.fromkeys(
        ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"),
        "checkpointing without re-entry is what works here",
    ),
    **dict.fromkeys(
        (
            *("torch_compile", "torch_compile_backend", "torch_compile_mode"),
            *("use_liger_kernel", "liger_kernel_config"),
        ),
        _COMPILED,
    ),
    "use_cache": "training keeps no cache of keys and values",
    "prediction_loss_only": "leave it out, each system takes what it needs of an evaluation",
    "eval_on_start": "an evaluation before the first step is not tracked",
    "eval_do_concat_batches": _METRICS,
    "eval_use_gather_object": _METRICS,
    "include_for_metrics": _METRICS,
    "batch_eval_metrics": _METRICS,
    "label_names": "the labels are those of the task",
    "remove_unused_columns": "batches hold what the model takes, and nothing else",
    "length_column_name": "lengths are counted here",
    "group_by_length": "use --length_groups yes (GPT-2)",
    "dataloader_in_order": _ORDER,
    "dataloader_multiprocessing_context": "loaders are forked, as the platform does by default",
    "debug": "debugging hooks are not for runs",
    "skip_memory_metrics": "time and memory are recorded anyway, in the run's results",
    "do_predict": "decoding and prediction have flags of their own",
}
"""The fields that are refused, and why."""


def _by_steps(what: str) -> Only:
    return Only(f"with --{what} steps", lambda args: getattr(args, what) == "steps")


_ADAM = Only(
    "with an --optim that has it, as adamw_torch",
    lambda args: any(kind in args.optim for kind in ("adam", "lion")),
)
_TRACKIO = Only("with --report_to trackio", lambda args: "trackio" in args.report_to)

ONLY: dict[str, Only] = {
    "eval_steps": _by_steps("eval_strategy"),
    "save_steps": _by_steps("save_strategy"),
    "logging_steps": _by_steps("logging_strategy"),
    "eval_delay": Only("with --eval_strategy", lambda args: args.eval_strategy != "no"),
    "save_total_limit": Only(
        "with --save_strategy", lambda args: args.save_strategy != "no", idle=(None,)
    ),
    "warmup_steps": Only(
        "with an --lr_scheduler_type that warms up, as constant_with_warmup",
        lambda args: args.lr_scheduler_type != "constant",
        idle=(0,),
    ),
    "lr_scheduler_kwargs": Only(
        "with an --lr_scheduler_type that has options, as cosine_with_min_lr",
        lambda args: args.lr_scheduler_type not in ("constant", "constant_with_warmup"),
    ),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon"), _ADAM),
    "dataloader_persistent_workers": Only(
        "with --dataloader_num_workers", lambda args: args.dataloader_num_workers
    ),
    "project": _TRACKIO,
    **dict.fromkeys(
        [f"trackio_{part}_id" for part in ("space", "bucket", "static_space")], _TRACKIO
    ),
    "run_name": Only(
        "with a --report_to that names runs, as wandb",
        lambda args: set(args.report_to) - {"none", "tensorboard"},
    ),
}
"""The fields that are read only beside others."""


def check_taken(given: Mapping[str, Any], cls: type, refused: Mapping[str, str]) -> None:
    """Refuse fields of TrainingArguments that do not do here what they say.

    Args:
        given: values of fields by name; one that equals the field's default passes.
        cls: TrainingArguments.
        refused: fields, and why.

    Raises:
        UserError: naming the flag and the reason.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    for name, value in given.items():
        if name not in defaults or value == defaults[name]:
            continue
        if name in refused:
            _refuse(name, value, refused[name])
        if name not in TAKEN | REFUSED.keys():
            _refuse(name, value, "this flag of a newer transformers is not known to work here")


def _refuse(name: str, value: Any, why: str) -> None:
    shown = "" if value is True else f" {getattr(value, 'value', value)}"
    raise UserError(f"--{name}{shown}: {why}")


def unknown(names: Iterable[str]) -> list[str]:
    """The fields that stand in neither table."""
    return sorted(set(names) - TAKEN - REFUSED.keys())


def check_values(values: Mapping[str, Any]) -> None:
    """Hold fields to their ranges, and choices to what works here.

    Raises:
        UserError: naming the flag.
    """
    check_all(RANGES, values)
    if values.get("save_strategy") == "best":
        raise UserError("--save_strategy best: checkpoints are to go on from; use steps or epoch")
    schedule = values.get("lr_scheduler_type")
    if schedule in ("reduce_lr_on_plateau", "greedy"):
        raise UserError(
            f"--lr_scheduler_type {schedule}: the rate cannot follow the evaluations "
            "here; use linear, cosine, ..."
        )
