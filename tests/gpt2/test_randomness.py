"""What differs between batches and epochs of a run, the modes of its models, its best weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gpt2.data import collate
from gpt2.keep_best import EVALUATION, KeepBest, best_checkpoints
from gpt2.train_control import PrefixTuning
from gpt2.trainer_prefix import Trainer_Prefix
from harness import loop
from harness.folder import RunFolder
from harness.samplers import LengthGroupedSampler
from prefix_tuning.attention import enable_prefix
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, write_json

EXAMPLES = [
    {"input_ids": [3 + i] * n, "labels": [-100] + [3 + i] * (n - 1)}
    for i, n in enumerate([2, 5, 3, 4, 2, 5, 3, 4, 6, 2, 3, 5])
]


class Examples(Dataset[dict[str, list[int]]]):
    @property
    def lengths(self) -> list[int]:
        return [len(example["input_ids"]) for example in EXAMPLES]

    def __len__(self) -> int:
        return len(EXAMPLES)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return EXAMPLES[index]


class Watched(Trainer_Prefix):
    """Keeps what every call of ``compute_loss`` finds."""

    def __init__(self, **kwargs: Any) -> None:
        self.found: list[dict[str, Any]] = []
        super().__init__(**kwargs)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kw: Any) -> Any:
        self.found.append(
            {
                "random": torch.get_rng_state(),
                "rows": inputs["input_ids"][:, 0].tolist(),
                "training": (self.prefix.training, self.model_gpt2.training),
            }
        )
        return super().compute_loss(model, inputs, *args, **kw)


def trainer(
    folder: Path,
    save: Callable[[Path], None] = lambda folder: folder.mkdir(parents=True, exist_ok=True),
    length_groups: bool = False,
    use_dropout: bool = False,
    **flags: Any,
) -> Watched:
    model = enable_prefix(tiny_model("gpt2")).requires_grad_(False)
    prefix = PrefixTuning(model.config, preseqlen=2, mid_dim=4, prefix_dropout=0.5)
    given = {
        **{"per_device_train_batch_size": 2, "num_train_epochs": 2, "report_to": "none"},
        **{"use_cpu": True, "save_strategy": "no", "logging_strategy": "no", "seed": 3},
        **{"disable_tqdm": True, "per_device_eval_batch_size": 6, **flags},
    }
    return Watched(
        model=prefix,
        model_gpt2=model,
        args=TrainingArguments(str(folder), **given),
        train_dataset=Examples(),
        eval_dataset=Examples(),
        data_collator=partial(collate, pad_id=2),
        save=save,
        length_groups=length_groups,
        use_dropout=use_dropout,
    )


@pytest.mark.parametrize("length_groups", [True, False])
def test_every_batch_has_a_random_state_and_every_epoch_an_order_of_its_own(
    tmp_path: Path, length_groups: bool
) -> None:
    watched = trainer(tmp_path, length_groups=length_groups)
    watched.train()
    states = {tuple(step["random"].tolist()) for step in watched.found}
    assert len(states) == len(watched.found) == 12
    orders = [
        [i for step in part for i in step["rows"]]
        for part in (watched.found[:6], watched.found[6:])
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == [*range(3, 15)]
    assert orders[0] != orders[1]
    again = trainer(tmp_path, length_groups=length_groups)
    again.train()
    assert [step["rows"] for step in again.found] == [step["rows"] for step in watched.found]
    other = trainer(tmp_path, length_groups=length_groups, data_seed=4, num_train_epochs=1)
    other.train()
    assert [i for step in other.found for i in step["rows"]] != orders[0]


def test_the_order_of_length_groups_depends_on_seed_and_epoch_in_every_part() -> None:
    """Batches change places, and examples of one length change batches."""
    sampler = LengthGroupedSampler([1 + i % 4 for i in range(64)], 4, seed=0)
    orders = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        orders.append([*sampler])
    batches = [{frozenset(o[i : i + 4]) for i in range(0, 64, 4)} for o in orders]
    lengths = [tuple(1 + i % 4 for i in order) for order in orders]
    for i in range(3):
        assert batches[i] != batches[i + 1]
        assert lengths[i] != lengths[i + 1]
    assert [*LengthGroupedSampler([1 + i % 4 for i in range(64)], 4, seed=9)] not in orders


@pytest.mark.parametrize("use_dropout", [True, False])
def test_the_modes_of_prefix_and_frozen_model(tmp_path: Path, use_dropout: bool) -> None:
    """Evaluations in between have all dropout off, and the next step has it on again."""
    watched = trainer(
        tmp_path, use_dropout=use_dropout, eval_strategy="steps", eval_steps=2, max_steps=4
    )
    watched.train()
    step, evaluation = [(True, use_dropout)] * 2, [(False, False)] * 2
    assert [found["training"] for found in watched.found] == [
        *(step + evaluation + step + evaluation)
    ]


def test_the_older_best_weights_are_there_until_the_better_are_written(tmp_path: Path) -> None:
    run, seen = tmp_path / "m", []

    def save(folder: Path) -> None:
        seen.append([path.name for path in best_checkpoints(run)])
        folder.mkdir(parents=True)
        (folder / "weights").touch()
        if folder.name.endswith("-11"):
            raise KeyboardInterrupt

    watched = trainer(run, save)
    callbacks, state, control = watched.callback_handler, watched.state, watched.control

    def evaluate(step: int, loss: float) -> None:
        state.global_step = step
        callbacks.on_evaluate(watched.args, state, control, {"eval_loss": loss})

    for step, loss in ((9, 2.0), (10, 1.0), (8, 1.5)):
        evaluate(step, loss)
    assert seen == [[], ["m-checkpoint-9"]]
    assert [path.name for path in best_checkpoints(run)] == ["m-checkpoint-10"]
    with pytest.raises(KeyboardInterrupt):
        evaluate(11, 0.5)
    assert (run / "m-checkpoint-10" / "weights").is_file()


def test_the_first_of_equal_evaluations_is_kept_by_the_first_process(tmp_path: Path) -> None:
    run = tmp_path / "m"

    def save(folder: Path) -> None:
        """A kill from here on must not leave these weights beside the loss of others."""
        assert not (folder / EVALUATION).exists()
        folder.mkdir(parents=True, exist_ok=True)

    keep, args = KeepBest(save), TrainingArguments(str(run), use_cpu=True, report_to="none")

    def best(step: int, loss: float, is_first: bool = True) -> tuple[str, float]:
        state = TrainerState(global_step=step, is_world_process_zero=is_first)
        keep.on_evaluate(args, state, TrainerControl(), metrics={"eval_loss": loss})
        (folder,) = best_checkpoints(run)
        return folder.name, read_json_object(folder / EVALUATION)["eval_loss"]

    assert best(2, 2.0) == ("m-checkpoint-2", 2.0)
    assert best(4, 2.0) == ("m-checkpoint-2", 2.0)
    assert best(6, float("nan")) == ("m-checkpoint-2", 2.0)
    assert best(8, 1.0, is_first=False) == ("m-checkpoint-2", 2.0)
    write_json(run / "m-checkpoint-2" / EVALUATION, {"step": 2, "eval_loss": 1.5})
    keep.on_train_begin(args, TrainerState(), TrainerControl())
    assert best(10, 1.75) == ("m-checkpoint-2", 1.5)  # what an earlier part of the run found
    assert best(2, 1.0) == ("m-checkpoint-2", 1.0)
    (run / "m-checkpoint-2" / EVALUATION).unlink()  # as an older version left it
    logs: Any = [{"step": 2, "eval_loss": 0.75}, {"step": 2, "loss": 0.5}]
    keep.on_train_begin(args, TrainerState(log_history=logs), TrainerControl())
    assert keep.best == 0.75


class Spoils(TrainerCallback):
    """Makes a parameter infinite after the second step, whose loss had been a number."""

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **more: Any) -> None:
        if state.global_step == 2:
            next(more["model"].parameters()).data.view(-1)[0] = torch.inf


@pytest.mark.parametrize("strategy", ["steps", "no"])
def test_weights_that_are_no_numbers_are_neither_kept_nor_published(
    tmp_path: Path, strategy: str
) -> None:
    run = RunFolder(tmp_path / "m", {}, "done")
    run.create()
    watched = trainer(run.path, save_strategy=strategy, save_steps=1, max_steps=2)
    watched.add_callback(Spoils())
    with pytest.raises(UserError, match=r"training diverged: .* at step 2 is not a finite number"):
        loop.train(watched, run, None)
    kept = {path.name for path in run.path.glob("checkpoint-*")}
    assert kept == ({"checkpoint-1"} if strategy == "steps" else set())
