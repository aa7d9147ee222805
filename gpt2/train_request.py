"""A training run as it is asked for: the flags of a command line, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.arguments import (
    ONLY,
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
from harness.identity import settings_of
from harness.only import Only, unread
from harness.own_files import is_hub_name
from harness.trainer_flags import ONLY as TRAINER_ONLY
from prefix_tuning.errors import UserError

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
        from gpt2.run_arguments import ONLY as RUN_ONLY  # transformers: not for --help

        settings: dict[str, Any] = {}
        parts: tuple[tuple[Any, Mapping[str, Only]], ...] = (
            (self.model, {}),
            (self.tuning, self.tuning.only),
            (self.data, ONLY),
        )
        for part, only in parts:
            free = FREE | unread(only, part)
            settings |= {name: value for name, value in vars(part).items() if name not in free}
        settings |= settings_of(self.run, FREE, {**TRAINER_ONLY, **RUN_ONLY})
        return {
            **settings,
            "optim": getattr(self.run.optim, "value", self.run.optim),
            "world_size": self.run.world_size,
        }

    def data_files(self) -> dict[str, Path | None]:
        """The files that decide what a run computes, by flag."""
        found = {**vars(self.data), **vars(self.tuning)}
        names = ("train_data_file", "eval_data_file", "init_file")
        given = {name: found[name] for name in names if found.get(name)}
        # Of a folder or a data set of the hub the name decides, which is a setting.
        return {
            name: None if Path(text).is_dir() or is_hub_name(text) else Path(text)
            for name, text in given.items()
        }


FREE = {
    *("cache_dir", "init_random", "line_by_line", "model_type"),
    *("test_data_file", "generate", "score", "results_dir", "evaluate_train_set"),
    *("cuda_graphs", "shard_model"),
}
"""Flags of ours that may change when a run goes on."""


HELP = f"""\
Train a prefix, or a baseline.

    python gpt2/run_language_modeling.py --train_data_file pairs.csv --output_dir run --preseqlen 10

{TRAINER}"""


def parse(argv: Sequence[str] | None, defaults: Mapping[str, Any] | None = None) -> TrainRequest:
    """Parse and check the command line, before anything is loaded.

    Args:
        defaults: values of flags that ``argv`` does not give, instead of their own defaults.

    Raises:
        UserError: a flag is missing or makes no sense, naming it.
    """
    classes = (ModelArguments, DataArguments, RunFlags, *mode_classes())
    parser = Parser(*classes, description=HELP, defaults=defaults)
    (model, data, run, *options), rest = parser.read_known(argv)
    check(model, data, run)
    tuning = choose(model.tuning_mode, options)
    from gpt2.run_arguments import complete
    from harness.precision import resolve

    model = replace(model, dtype=resolve(model.dtype))
    request = TrainRequest(model, tuning, data, complete(run, rest, parser.known(), defaults or {}))
    check_evaluation(request.run, data)
    mixed = {"bfloat16": request.run.bf16, "float16": request.run.fp16}
    if model.dtype in mixed and any(mixed.values()) and not mixed[model.dtype]:
        raise UserError(f"--dtype {model.dtype}: not with the other precision of --bf16 or --fp16")
    tuning.check()
    if request.run.world_size > 1:
        tuning.check_processes()
    if request.run.shard_model == "yes":
        if request.run.world_size == 1:
            raise UserError("--shard_model yes: there is one process; start several with torchrun")
        tuning.check_sharding()
    if request.run.label_smoothing:
        tuning.check_smoothing()
    return request
