"""Which validation was the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor


class BestValidation:
    """Which validation was the best.

    Args:
        metric: that decides, the larger the better unless it is "loss". One that is equal or
            undefined at every validation decides nothing: the loss does.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.merit: float | None = None
        """The larger the better; None before the first validation."""
        self.loss_merit, self.always_equal = -math.inf, True

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        merit = self.merit
        return {
            "best": -merit if self.metric == "loss" and merit is not None else merit,
            "least_loss": self.loss_merit,
            "always_equal": self.always_equal,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """What :meth:`state` gave; older checkpoints have the metric alone."""
        best = state["best"]
        self.merit = -best if self.metric == "loss" and best is not None else best
        self.loss_merit = state.get("least_loss", -math.inf)
        self.always_equal = state.get("always_equal", False)

    def improves(self, metrics: Mapping[str, Tensor]) -> bool:
        """Whether a validation is better than all before; it counts from now on."""
        merit, loss = (self._merit(metrics, name) for name in (self.metric, "loss"))
        if self.merit is None:
            better = True
        else:
            self.always_equal = self.always_equal and merit == self.merit
            better = merit > self.merit or (self.always_equal and loss > self.loss_merit)
        if better:
            self.merit, self.loss_merit = merit, loss
        return better

    @staticmethod
    def _merit(metrics: Mapping[str, Tensor], name: str) -> float:
        """The larger the better; what is not a finite number is worse than all that are."""
        value = metrics[f"val_{name}"].item()
        return (-value if name == "loss" else value) if math.isfinite(value) else -math.inf
