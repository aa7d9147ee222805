"""Lightning's steps and validations, shown as harness/progress.py shows them."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from harness.progress import PATIENCE, Shown, TrainingShown, show_scores


class ShowProgress(Callback):
    """Shows steps with their loss, and validations, in the first process."""

    def __init__(self) -> None:
        self.training: TrainingShown | None = None
        self.validation: Shown | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            total = pl_module.args.max_steps
            if total < 0:
                total = int(trainer.estimated_stepping_batches)
            self.training = TrainingShown(total, trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["mean"]

        def text() -> str:
            if not pl_module.is_sum:
                return f"{float(loss):.3f}"
            n_target = float((batch["labels"] != pl_module.tokenizer.pad_token_id).sum())
            return f"{float(loss):.2f} ({float(loss) / max(n_target, 1):.3f} a token)"

        if self.training is not None:
            self.training.at(trainer.global_step, text, lambda: float(loss))

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.training is not None:
            self.training.end()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            n_batch = int(sum(trainer.num_val_batches))
            self.validation = Shown("validated batches", n_batch, patience=PATIENCE)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if self.validation is not None:
            self.validation.at(batch_idx + 1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.validation is not None:
            self.validation.close()
            values = pl_module.metrics["val"][-1].items()
            averages = {n.removeprefix("val_avg_"): v for n, v in values if "val_avg_" in n}
            show_scores(trainer.global_step, averages)
