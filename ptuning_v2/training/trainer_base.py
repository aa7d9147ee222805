"""The loop of GLUE and SuperGLUE, and what all families share."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import TrainerCallback, TrainerState
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction

from harness.loop import SafeTrainer
from prefix_tuning.files import write_json
from ptuning_v2.model import checkpoint

BEST = "best"
"""Folder in a run of the checkpoint with the best score."""
LEAST_LOSS = "least-loss"
"""Folder in a run of the checkpoint with the least loss, while all scores are the same."""


@dataclass
class Ties:
    """Whether a score was the same, or undefined, at every evaluation so far.

    Such a score does not choose the best evaluation: the one with the least loss is best then.
    """

    is_always_equal: bool = True
    step: int | None = None
    """The step of the least loss, while the score was always equal."""
    score: float | None = None
    loss: float = math.inf
    n_evaluation: int = 0

    def least(self, step: int, score: float | None, loss: float | None) -> bool:
        """Whether this evaluation, which counts from now on, has the least loss of equal ones."""
        value = score if score is not None and math.isfinite(score) else None
        self.is_always_equal = self.is_always_equal and (
            self.n_evaluation == 0 or value == self.score
        )
        self.score = value
        self.n_evaluation += 1
        if not self.is_always_equal or loss is None or not loss < self.loss:
            return False
        self.step, self.loss = step, loss
        return True


class BaseTrainer(SafeTrainer):
    """Trainer that remembers the epoch with the best score on the evaluation set.

    Best is what is strictly greater than all before, and than 0: of equal epochs the first
    counts. Where the score is the same or undefined at every evaluation, the one with the least
    loss is best (:meth:`settle`). The epoch is numbered from 0.
    Whenever there is a new best, its weights are written to ``<output_dir>/best`` and the labelled
    test sets are predicted: the test scores that are reported are those of the epoch that is best
    on the evaluation set.

    Args:
        compute_metrics: ``compute_metrics(p, rows)`` scores logits and labels ``p`` of ``rows``,
            those of the data set that was evaluated.
        test_key: the metric that decides, without ``eval_``.
        predict_dataset: test sets by name; those without labels are not scored.
        meta: what checkpoints say about themselves (``ptuning_v2.model.checkpoint.metadata``).
    """

    graphable = True
    full_score = 1
    """The score of faultless outputs; what ``best_results.json`` says beside its scores."""

    def __init__(
        self,
        *args: Any,
        compute_metrics: Callable[[EvalPrediction, Sequence[Any]], dict[str, float]] | None = None,
        test_key: str = "accuracy",
        predict_dataset: Mapping[str, Dataset] | None = None,
        meta: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        self._score = compute_metrics
        self._rows: Sequence[Any] = ()
        super().__init__(
            *args,
            **{**kwargs, "compute_metrics": self._score_rows if compute_metrics else None},
        )
        # The loss is a mean over the batch already: Trainer must divide it by the accumulation.
        self.model_accepts_loss_kwargs = False
        assert self.args.output_dir is not None
        self.folder = self.answers_to = Path(self.args.output_dir)
        self.test_key = test_key
        self.predict_dataset = predict_dataset or {}
        self.meta = meta
        self.best_metrics: dict[str, Any] = {"best_epoch": 0, f"best_eval_{test_key}": 0}
        self.ties: Ties | None = Ties()
        self.add_callback(_RestoreBest(self))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """The loss; of several processes, their part of the mean over all labels."""
        labels = inputs.get("labels")
        if self.args.world_size == 1 or not model.training:
            found = super().compute_loss(model, inputs, *args, **kwargs)
            if self.whole is not None and labels is not None and labels.ndim > 1:
                n_label = (labels >= 0).sum()  # of words
                self.count((found[0] if isinstance(found, tuple) else found) * n_label, n_label)
            return found
        count = torch.tensor(len(inputs["input_ids"]))
        if labels is not None and not labels.is_floating_point():
            count = (labels >= 0).sum()
        share = self.share(count.to(self.args.device))
        return super().compute_loss(model, inputs, *args, **kwargs) * share

    def _score_rows(self, p: EvalPrediction) -> dict[str, float]:
        assert self._score is not None
        return self._score(p, self._rows)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        """Rows in their order, by which they are written, also where training groups them."""
        ordered = SequentialSampler(eval_dataset)  # type: ignore[arg-type]
        return ordered if self.args.world_size <= 1 else None

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The loop, noting whose rows its metrics are of."""
        self._rows = getattr(dataloader.dataset, "rows", ())
        return super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate; while training, also compare with the best so far."""
        metrics = super().evaluate(*args, **kwargs)
        if self.is_in_train:
            self._track(metrics)
        return metrics

    def _track(self, metrics: dict[str, float]) -> None:
        score = metrics.get(f"eval_{self.test_key}")
        if score is not None and score > (self.best_metrics[f"best_eval_{self.test_key}"] or 0):
            self._note_best(metrics, self.state.epoch)
            self.save_model(str(self.folder / BEST))
        if self.ties and self.ties.least(self.state.global_step, score, metrics.get("eval_loss")):
            self.save_model(str(self.folder / LEAST_LOSS))
        self._log_best()

    def _log_best(self) -> None:
        self.log({name: value for name, value in self.best_metrics.items() if value is not None})

    def settle(self) -> None:
        """Where the score was the same at every evaluation, let the loss choose the best one."""
        folder, ties = self.folder / LEAST_LOSS, self.ties
        logs = [log for log in self.state.log_history if "eval_loss" in log]
        if ties and ties.is_always_equal and ties.n_evaluation > 1 and folder.is_dir():
            self.accelerator.wait_for_everyone()  # for the folder to be written
            (chosen,) = [log for log in logs if log["step"] == ties.step][-1:]
            checkpoint.load(folder, self.trained_model)
            self._note_best(chosen, chosen["epoch"])
            self.save_model(str(self.folder / BEST))
            self._log_best()
        if self.is_world_process_zero():
            shutil.rmtree(folder, ignore_errors=True)

    def _note_best(self, metrics: dict[str, float], epoch: float | None) -> None:
        assert epoch is not None
        self.best_metrics["best_epoch"] = math.ceil(round(epoch, 6)) - 1
        score = metrics.get(f"eval_{self.test_key}")
        defined = score is not None and math.isfinite(score)
        self.best_metrics[f"best_eval_{self.test_key}"] = score if defined else None
        for name, dataset in self.predict_dataset.items():
            if name.startswith("test") and "labels" in dataset[0]:
                scores = self.predict(dataset, metric_key_prefix="test").metrics or {}
                score = scores[f"test_{self.test_key}"]
                self.best_metrics[f"best_{name}_{self.test_key}"] = score

    @property
    def trained_model(self) -> nn.Module:
        """The model, which Trainer may declare to be missing."""
        assert self.model is not None
        return self.model

    def log_best_metrics(self) -> None:
        """Print the best scores and write them to ``best_results.json``."""
        best = dict(self.best_metrics)
        self.log_metrics("best", best)
        if self.is_world_process_zero():
            write_json(self.folder / "best_results.json", {**best, "full": self.full_score})

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.args.should_save:  # asked of every process
            checkpoint.save(Path(output_dir or self.folder), self.trained_model, self.meta)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoint.load(Path(resume_from_checkpoint), model or self.trained_model)


class _RestoreBest(TrainerCallback):
    """A resumed run knows its best epoch from the log that came with the checkpoint."""

    def __init__(self, trainer: BaseTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        trainer, key = self.trainer, f"eval_{self.trainer.test_key}"
        for log in state.log_history:
            trainer.best_metrics |= {k: v for k, v in log.items() if k.startswith("best_")}
            if trainer.ties and "eval_loss" in log:
                trainer.ties.least(int(log["step"]), log.get(key), log["eval_loss"])
