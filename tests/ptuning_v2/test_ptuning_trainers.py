"""The loops: learning rates of the original, and what counts as the best epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PretrainedConfig, TrainerCallback, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput

from prefix_tuning.files import read_json_object
from ptuning_v2.tasks.base import Examples
from ptuning_v2.training.trainer_base import BaseTrainer, Ties
from ptuning_v2.training.trainer_exp import ExponentialTrainer
from ptuning_v2.training.trainer_qa import QuestionAnsweringTrainer


class Toy(nn.Module):
    """One weight; its loss does not matter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = PretrainedConfig()
        self.new_names: list[str] = []

    def forward(self, x: Tensor, labels: Tensor) -> SequenceClassifierOutput:
        logits = (x * self.weight).unsqueeze(1)
        return SequenceClassifierOutput(loss=(logits - 1).square().mean(), logits=logits)


class Rates(TrainerCallback):
    """Notes the learning rate of every step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.found.append(kwargs["optimizer"].param_groups[0]["lr"])


ROWS = [{"x": torch.tensor(float(i)), "labels": torch.tensor(0)} for i in range(10)]


def trainer_of(
    trainer_class: type[BaseTrainer], folder: Path, epochs: int, **options: Any
) -> BaseTrainer:
    accumulation = options.pop("accumulation", 1)
    args = TrainingArguments(
        str(folder),
        num_train_epochs=epochs,
        learning_rate=0.01,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=accumulation,
        eval_strategy="epoch",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    return trainer_class(
        Toy(),
        args,
        train_dataset=ROWS,
        eval_dataset=ROWS,
        meta={"tuning": {"prefix": True, "prompt": False}},
        **options,
    )


def no_score(p: Any, rows: Any) -> dict[str, float]:
    return {"accuracy": 0.0}


@pytest.mark.parametrize(("accumulation", "steps"), [(1, 5), (2, 3), (5, 1), (9, 1)])
def test_exponential_rate(accumulation: int, steps: int, tmp_path: Path) -> None:
    """0.01, 0.0095, 0.009025, ..., each for an epoch, however gradients are accumulated."""
    rates = Rates()
    options = {"accumulation": accumulation, "compute_metrics": no_score}
    trainer = trainer_of(ExponentialTrainer, tmp_path, 3, **options)
    trainer.add_callback(rates)
    trainer.train()
    expected = [rate for rate in (0.01, 0.0095, 0.009025) for _ in range(steps)]
    assert rates.found == pytest.approx(expected, rel=1e-9)


def test_linear_rate(tmp_path: Path) -> None:
    rates = Rates()
    trainer = trainer_of(BaseTrainer, tmp_path, 2, compute_metrics=no_score)
    trainer.add_callback(rates)
    trainer.train()
    assert rates.found == pytest.approx([0.01 * (1 - step / 10) for step in range(10)])


def test_the_loss_of_words_depends_on_no_batch(tmp_path: Path) -> None:
    """It chooses the best where no score does; each label counts once, as by hand."""

    class Words(Toy):
        def forward(self, input_ids: Tensor, labels: Tensor) -> SequenceClassifierOutput:
            losses = input_ids[labels >= 0].float() * (1 + self.weight)
            return SequenceClassifierOutput(loss=losses.mean(), logits=input_ids[..., None])

    ids = torch.arange(12).view(4, 3)
    labels = torch.tensor([[0, 0, 0], [0, -100, -100], [0, 0, -100], [-100, 0, -100]])
    rows = [{"input_ids": row, "labels": of} for row, of in zip(ids, labels, strict=True)]
    losses = []
    for size in (1, 2, 4):
        trainer = trainer_of(BaseTrainer, tmp_path, 1, compute_metrics=no_score)
        trainer.args.per_device_eval_batch_size, trainer.model = size, Words()
        metrics = trainer.evaluate(rows)
        losses.append((metrics["eval_loss"], metrics["eval_batch_loss"]))
    known = [0, 1, 2, 3, 6, 7, 10]
    assert [loss for loss, _ in losses] == pytest.approx([sum(known) / 7] * 3)
    assert losses[0][1] == pytest.approx((1 + 3 + 6.5 + 10) / 4)


def scripted(scores: list[float]) -> Any:
    """A metric that returns these numbers one after the other."""
    left = iter(scores)
    return lambda p, rows: {"f1": next(left)}


def test_best_is_strictly_greater_and_tests_belong_to_it(tmp_path: Path) -> None:
    # Evaluation of each epoch; behind a new best the two test sets.
    scores = [0.5, 0.11, 0.12, 0.5, 0.7, 0.21, 0.22, 0.6]
    sets = {"test_wsj": ROWS, "test_brown": ROWS, "unlabelled": ROWS[:1]}
    options = {"compute_metrics": scripted(scores), "test_key": "f1", "predict_dataset": sets}
    trainer = trainer_of(BaseTrainer, tmp_path, 4, **options)
    trainer.train()
    assert trainer.best_metrics == {
        "best_epoch": 2,  # from 0
        "best_eval_f1": 0.7,
        "best_test_wsj_f1": 0.21,
        "best_test_brown_f1": 0.22,
    }
    logged = [log["best_epoch"] for log in trainer.state.log_history if "best_epoch" in log]
    assert logged == [0, 0, 2, 2]
    trainer.log_best_metrics()
    assert read_json_object(tmp_path / "best_results.json")["full"] == 1
    assert (tmp_path / "best" / "model.safetensors").is_file()


def test_nothing_above_zero_is_no_best(tmp_path: Path) -> None:
    options = {"compute_metrics": scripted([0.0, -0.5]), "test_key": "f1"}
    trainer = trainer_of(BaseTrainer, tmp_path, 2, **options)
    trainer.train()
    assert trainer.best_metrics == {"best_epoch": 0, "best_eval_f1": 0}
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize("score", [0.5, 0.0, float("nan")])
def test_a_score_that_is_always_equal_chooses_nothing(score: float, tmp_path: Path) -> None:
    options = {"compute_metrics": scripted([score] * 4), "test_key": "f1"}
    trainer = trainer_of(BaseTrainer, tmp_path, 4, **options)
    trainer.train()
    evaluations = [log for log in trainer.state.log_history if "eval_loss" in log]
    least = min(evaluations, key=lambda log: log["eval_loss"])
    weights = load_file(tmp_path / "least-loss" / "model.safetensors")
    trainer.trained_model.get_parameter("weight").data.fill_(9.0)  # as later epochs left it
    trainer.settle()
    assert load_file(tmp_path / "best" / "model.safetensors") == weights
    assert trainer.trained_model.get_parameter("weight") == weights["weight"] != 9.0
    assert least is not evaluations[0]
    assert trainer.best_metrics["best_epoch"] == round(least["epoch"]) - 1
    defined = None if score != score else score
    assert trainer.best_metrics["best_eval_f1"] == defined
    assert (tmp_path / "best" / "model.safetensors").is_file()
    assert not (tmp_path / "least-loss").exists()


def test_of_equal_losses_the_first_is_least() -> None:
    ties, losses = Ties(), (2.0, 2.0, 1.0)
    assert [ties.least(i, 0.5, loss) for i, loss in enumerate(losses)] == [True, False, True]
    assert not ties.least(3, 0.75, 0.5)
    assert (ties.is_always_equal, ties.step, ties.n_evaluation) == (False, 2, 4)


def test_a_resumed_run_knows_the_least_loss_of_equal_scores(tmp_path: Path) -> None:
    trainer = trainer_of(BaseTrainer, tmp_path, 1, test_key="f1")
    for step, loss in ((5, 2.0), (10, 1.0), (15, 3.0)):
        log: Any = {"step": step, "eval_loss": loss, "eval_f1": 0.5}
        trainer.state.log_history.append(log)
    handler = trainer.callback_handler
    handler.on_train_begin(trainer.args, trainer.state, trainer.control)
    assert trainer.ties is not None
    assert (trainer.ties.is_always_equal, trainer.ties.step) == (True, 10)
    assert not trainer.ties.least(20, 0.5, 1.5)


@pytest.mark.parametrize("name", ["eval_exact_match", "eval_exact"])
def test_scores_of_answers_are_of_100(name: str, tmp_path: Path) -> None:
    """SQuAD 1.1 and 2.0 have two names for the share of exact ones."""
    options: Any = {"post_process_function": None, "test_key": "f1"}
    trainer = trainer_of(QuestionAnsweringTrainer, tmp_path, 1, **options)
    trainer._note_best({"eval_f1": 50.0, name: 25.0}, 1 + 1e-9)
    trainer.log_best_metrics()
    found = read_json_object(tmp_path / "best_results.json")
    assert found == {
        **{"best_epoch": 0, "best_eval_f1": 50.0, "best_eval_exact_match": 25.0},
        "full": 100,
    }


def test_answers_go_where_they_are_asked_for(tmp_path: Path) -> None:
    """To the folder of drafts and not into that of the run; only evaluations have scores."""
    seen: list[Any] = []

    def answer(dataset: Any, logits: Any, folder: Path) -> dict[str, float]:
        seen.append((len(dataset), folder))
        return {"f1": 50.0}

    options: Any = {"post_process_function": answer, "test_key": "f1"}
    trainer: Any = trainer_of(QuestionAnsweringTrainer, tmp_path, 1, **options)
    trainer.answers_to = tmp_path / "drafts"
    assert trainer.evaluate()["eval_f1"] == 50.0
    assert "test_f1" not in trainer.predict(ROWS[:3], metric_key_prefix="test").metrics
    assert seen == [(len(ROWS), tmp_path / "drafts")]


def test_scores_are_of_the_rows_that_were_evaluated(tmp_path: Path) -> None:
    """Two sets of one length, with labels both: their lengths do not tell them apart."""
    sets = {name: Examples(ROWS, [name] * len(ROWS)) for name in ("validation", "test")}

    def score(p: Any, rows: Any) -> dict[str, float]:
        assert len(p.predictions) == len(rows)
        return {"accuracy": {"validation": 0.25, "test": 0.75}[rows[0]]}

    trainer = trainer_of(BaseTrainer, tmp_path, 1, compute_metrics=score)
    assert trainer.evaluate(sets["validation"])["eval_accuracy"] == 0.25
    found = trainer.predict(sets["test"], metric_key_prefix="test").metrics
    assert found["test_accuracy"] == 0.75
    assert trainer.evaluate(sets["validation"])["eval_accuracy"] == 0.25


def test_rows_are_predicted_in_their_order(tmp_path: Path) -> None:
    """Where training groups rows by length, Trainer would group those of evaluation too."""
    rows = [{**row, "input_ids": [1] * (i % 3 + 1)} for i, row in enumerate(ROWS)]
    trainer: Any = trainer_of(BaseTrainer, tmp_path, 1)
    trainer.args.train_sampling_strategy = "group_by_length"
    trainer.trained_model.weight.data.fill_(1)
    found = trainer.predict(rows).predictions  # [10, 1]
    assert found[:, 0].tolist() == list(range(10))
