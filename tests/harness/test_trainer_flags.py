"""Flags of transformers' Trainer: taken within their range, or refused by name; none in silence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn
from transformers import TrainingArguments

from gpt2.train_request import parse
from harness import trainer_flags
from harness.identity import settings_of
from harness.loop import SafeTrainer
from harness.trainer import check_batches
from harness.trainer_flags import RANGES, REFUSED, TAKEN
from prefix_tuning.errors import UserError
from ptuning_v2.arguments import get_args

FIELDS = {field.name: field for field in dataclasses.fields(TrainingArguments)}
NO_FLAG = {"parallelism_config", "liger_kernel_config"}
"""Fields whose values no command line can give."""
GPT2 = "--train_data_file t --eval_data_file v --output_dir o --tuning_mode finetune".split()
PTUNING = (
    "--model_name_or_path m --task_name {} --dataset_name {} --output_dir o --do_train --do_eval"
)


def gpt2(*more: str) -> Any:
    return parse([*GPT2, "--use_cpu", "--report_to", "none", *more]).run


def ptuning(*more: str, task: str = "glue", name: str = "rte") -> Any:
    plain = [*PTUNING.format(task, name).split(), "--use_cpu", "--report_to", "none"]
    return get_args([*plain, *more]).training_args


SYSTEMS = pytest.mark.parametrize("system", [gpt2, ptuning])


def test_every_field_of_the_installed_trainer_is_decided() -> None:
    assert trainer_flags.unknown(FIELDS) == []
    assert not TAKEN & REFUSED.keys()
    new = dataclasses.make_dataclass("New", [("new_one", int, 2)])
    with pytest.raises(UserError, match=r"--new_one 3: .* newer transformers"):
        trainer_flags.check_taken({"new_one": 3}, new, {})


def other_value(field: dataclasses.Field[Any]) -> str:
    """A value, as a command line gives it, that is not the field's default."""
    special = {
        "hub_strategy": "end",
        "debug": "underflow_overflow",
        "dataloader_multiprocessing_context": "spawn",
    }
    if field.name in special:
        return special[field.name]
    if isinstance(field.default, bool) or "bool" in str(field.type):
        return str(not field.default)
    if "dict" in str(field.type):
        return '{"a": 1}'
    return "7"


@SYSTEMS
@pytest.mark.parametrize("name", sorted(REFUSED.keys() & FIELDS.keys() - NO_FLAG))
def test_what_would_do_nothing_is_refused_by_name(system: Callable[..., Any], name: str) -> None:
    if name == "do_predict" and system is ptuning:  # a flag of its own there
        return
    with pytest.raises(UserError) as error:
        system(f"--{name}", other_value(FIELDS[name]))
    assert str(error.value).startswith(f"--{name}")


@SYSTEMS
@pytest.mark.parametrize("name", sorted(RANGES.keys() & FIELDS.keys()))
def test_numbers_are_held_to_their_ranges(system: Callable[..., Any], name: str) -> None:
    kind = float if "float" in str(FIELDS[name].type) else int
    wrong = ["nan", "inf", "-inf", "-3.5"] if kind is float else ["-3", str(10**30)]
    for value in wrong:
        with pytest.raises(UserError) as error:
            system(f"--{name}={value}")
        assert str(error.value).startswith(f"--{name} ")


@SYSTEMS
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--save_strategy best", "--save_strategy best"),
        ("--optim adamw_bnb_8bit", "--optim"),
        ("--optim_args x", "--optim"),
        ("--optim_args momentum=0.9", "has none of these"),
        ("--lr_scheduler_type warmup_stable_decay", "--lr_scheduler_type"),
        ("--lr_scheduler_type reduce_lr_on_plateau", "--lr_scheduler_type"),
        ("--lr_scheduler_kwargs x", "--lr_scheduler_kwargs x: give a JSON object"),
        ('--lr_scheduler_kwargs {"zz":1}', "--lr_scheduler_type or their options"),
        ("--lr_scheduler_kwargs [1]", "--lr_scheduler_kwargs"),
        ("--dataloader_persistent_workers", "--dataloader_num_workers"),
        ("--warmup_ratio 1.5", "--warmup_ratio 1.5: must be from 0 to 1"),
        ("--warmup_ratio nan", "--warmup_ratio nan"),
        ("--warmup_steps 3 --warmup_ratio 0.1", "--warmup_steps and --warmup_ratio"),
        ("--report_to zz", "--report_to zz"),
        ("--save_steps 0", "--save_steps 0"),
    ],
)
def test_choices_that_fail_later_are_refused_now(
    system: Callable[..., Any], flags: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        system(*flags.split())


@SYSTEMS
def test_a_ratio_is_a_share_of_all_steps(system: Callable[..., Any]) -> None:
    """``--warmup_ratio 1.0`` is every step, ``--warmup_steps 2`` is two."""
    for flags, steps in (
        ("--warmup_ratio 1.0", 300),
        ("--warmup_ratio 0.1", 30),
        ("--warmup_ratio 0", 0),
        ("--warmup_steps 2", 2),
        ("--warmup_steps 1", 1),
        ("--warmup_steps 0.5", 150),
    ):
        assert system(*flags.split()).get_warmup_steps(300) == steps


@SYSTEMS
def test_defaults_may_be_written_out(system: Callable[..., Any]) -> None:
    system("--load_best_model_at_end", "false", "--label_smoothing_factor", "0")


def test_one_system_refuses_what_another_takes() -> None:
    assert ptuning("--label_smoothing_factor", "0.1").label_smoothing_factor == 0.1
    with pytest.raises(UserError, match=r"--label_smoothing_factor 0\.1: the losses"):
        gpt2("--label_smoothing_factor", "0.1")
    for flag in ("--label_smoothing_factor=0.1", "--warmup_steps=3", "--lr_scheduler_type=cosine"):
        with pytest.raises(UserError, match=flag.split("=")[0]):
            ptuning(flag, task="qa", name="squad")
    with pytest.raises(UserError, match=r"--warmup_ratio 0\.5"):
        ptuning("--warmup_ratio", "0.5", task="ner", name="conll2003")
    assert ptuning("--label_smoothing_factor=0.1", task="ner", name="conll2003")
    with pytest.raises(UserError, match="--eval_strategy epoch: needs --eval_data_file"):
        parse([*GPT2[:2], *GPT2[4:], "--eval_strategy", "epoch", "--use_cpu"])


def test_short_batches_are_dropped_of_training_only() -> None:
    args = gpt2("--dataloader_drop_last", "true", "--per_device_train_batch_size", "4")
    args.per_device_eval_batch_size = 4
    trainer = SafeTrainer(nn.Linear(1, 1), args, train_dataset=[{}] * 10, eval_dataset=[{}] * 10)
    assert len(trainer.get_train_dataloader()) == 2
    assert len(trainer.get_eval_dataloader()) == 3
    assert len(trainer.get_test_dataloader([{}] * 5)) == 2
    check_batches(args, 4)
    with pytest.raises(UserError, match=r"--dataloader_drop_last: 3 training rows fill no batch"):
        check_batches(args, 3)


@SYSTEMS
def test_every_flag_that_works_belongs_to_a_run_but_those_that_change_no_number(
    system: Callable[..., Any],
) -> None:
    assert (TAKEN & FIELDS.keys()) - settings_of(system()).keys() <= {
        *("output_dir", "resume_from_checkpoint", "use_cpu", "local_rank", "do_train", "do_eval"),
        *("save_steps", "save_strategy", "save_total_limit"),
        *("per_device_eval_batch_size", "eval_accumulation_steps", "torch_empty_cache_steps"),
        *("report_to", "run_name", "project", "disable_tqdm", "include_num_input_tokens_seen"),
        *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        *(f"log{end}" for end in ("_level", "_level_replica", "_on_each_node", "ging_strategy")),
        *(f"logging_{end}" for end in ("steps", "first_step", "nan_inf_filter")),
        *(f"dataloader_{end}" for end in ("num_workers", "persistent_workers", "pin_memory")),
        "dataloader_prefetch_factor",
        *(f"ddp_{end}" for end in ("backend", "broadcast_buffers", "bucket_cap_mb", "timeout")),
        *(f"ddp_{end}" for end in ("find_unused_parameters", "static_graph")),
        *("eval_steps", "eval_delay"),  # not read where nothing is evaluated
    }
