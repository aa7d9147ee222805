"""A training run as it is asked for: the flags of a command line, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt2.arguments import (
    TRAINER,
    DataArguments,
    ModelArguments,
    RunFlags,
    check,
    check_evaluation,
    choose,
    mode_classes,
)
from gpt2.tuning import TuningMode
from harness.flags import Parser

if TYPE_CHECKING:
    from gpt2.run_arguments import RunArguments


@dataclass(frozen=True)
class TrainRequest:
    """A training run: everything that its flags say, checked."""

    model: ModelArguments
    tuning: TuningMode
    data: DataArguments
    run: RunArguments

    def settings(self) -> dict[str, Any]:
        """The flags that decide what a run computes, as JSON values."""
        of_run = (
            "per_device_train_batch_size gradient_accumulation_steps learning_rate weight_decay "
            "num_train_epochs max_steps warmup_steps max_grad_norm seed data_seed length_groups "
            "adam_beta1 adam_beta2 adam_epsilon bf16 fp16"
        )
        of_data = "train_data_file task_mode separator source_prefix train_size sample_seed"
        settings = {name: getattr(self.run, name) for name in of_run.split()}
        settings["lr_scheduler_type"] = str(self.run.lr_scheduler_type)
        settings["optim"] = getattr(self.run.optim, "value", self.run.optim)
        settings |= vars(self.model) | vars(self.tuning)
        settings |= {name: getattr(self.data, name) for name in of_data.split()}
        return {k: v for k, v in settings.items() if k not in ("cache_dir", "init_random")}


def parse(argv: Sequence[str] | None, defaults: Mapping[str, Any] | None = None) -> TrainRequest:
    """Parse and check the command line, before anything is loaded.

    Args:
        defaults: values of flags that ``argv`` does not give, instead of their own defaults.

    Raises:
        UserError: a flag is missing or makes no sense, naming it.
    """
    classes = (ModelArguments, DataArguments, RunFlags, *mode_classes())
    parser = Parser(
        *classes, description=f"Train a prefix, or a baseline. {TRAINER}", defaults=defaults
    )
    (model, data, run, *options), rest = parser.read_known(argv)
    check(model, data, run)
    tuning = choose(model.tuning_mode, options)
    from gpt2.run_arguments import complete

    request = TrainRequest(model, tuning, data, complete(run, rest, parser.known(), defaults or {}))
    check_evaluation(request.run, data)
    tuning.check()
    return request
