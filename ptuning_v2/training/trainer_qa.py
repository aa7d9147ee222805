"""The loop of question answering: scores are those of texts, not of positions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from ptuning_v2.training.trainer_exp import ExponentialTrainer


class QuestionAnsweringTrainer(ExponentialTrainer):
    """ExponentialTrainer whose metrics need the answers as text.

    Args:
        post_process_function: ``post_process_function(dataset, logits, folder)`` makes answers of
            the logits ``[N, T]`` of starts and of ends, writes them, and returns their scores.
    """

    full_score = 100

    def __init__(
        self,
        *args: Any,
        post_process_function: Callable[[Any, Any, Path], dict[str, float]],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.post_process_function = post_process_function

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The loop, and behind it the scores of the answers (not when predicting)."""
        output = super().evaluation_loop(
            dataloader, description, False, ignore_keys, metric_key_prefix
        )
        if metric_key_prefix == "eval":
            scores = self.post_process_function(
                dataloader.dataset, output.predictions, self.answers_to
            )
            named = {f"eval_{name}": score for name, score in scores.items()}
            output = output._replace(metrics={**(output.metrics or {}), **named})
        return output

    def _note_best(self, metrics: dict[str, float], epoch: float | None) -> None:
        super()._note_best(metrics, epoch)
        # SQuAD 1.1 and 2.0 have two names for it.
        exact = metrics.get("eval_exact_match", metrics.get("eval_exact"))
        self.best_metrics["best_eval_exact_match"] = exact
