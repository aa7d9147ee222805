"""The loop of NER and SRL: the learning rate falls by 5 % every epoch."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from ptuning_v2.training.trainer_base import BaseTrainer

DECAY = 0.95


class ExponentialTrainer(BaseTrainer):
    """Learning rate ``lr * 0.95 ** epoch``, constant within an epoch.

    ``--lr_scheduler_type`` and ``--warmup_steps`` have no effect, as in the original. There, the
    rate stays as it is when gradients are accumulated over a number of batches that does not
    divide those of an epoch; here it falls in every case.
    """

    def create_scheduler(
        self, num_training_steps: int, optimizer: Optimizer | None = None
    ) -> LRScheduler:
        """One factor for all steps of an epoch."""
        if self.lr_scheduler is None:
            n_batch = len(self.get_train_dataloader())
            n_step = max(1, math.ceil(n_batch / self.args.gradient_accumulation_steps))

            def factor(step: int) -> float:
                return DECAY ** (step // n_step)

            chosen: Any = optimizer or self.optimizer
            self.lr_scheduler = LambdaLR(chosen, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler
