"""What a run on one's own data does unless flags say otherwise: the quick start's recipe.

The original's defaults are for GPT-2 medium on 42,000 pairs. Fifty pairs need more passes and a
larger learning rate; both were chosen on small models with ``scripts/quickstart.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

BATCH = 8
FEWEST_UPDATES = 200
PASSES = 5


@dataclass(frozen=True)
class Recipe:
    """Defaults by the size of the data.

    Args:
        n_pairs: to train on.
        asked: updates, where a flag says how many.
    """

    n_pairs: int
    asked: int | None = None

    @property
    def batch_size(self) -> int:
        """Pairs of an update."""
        return min(BATCH, self.n_pairs)

    @property
    def steps(self) -> int:
        """Updates: five passes over the data, and 200 at least, unless asked for otherwise."""
        if self.asked is not None:
            return self.asked
        return max(FEWEST_UPDATES, PASSES * math.ceil(self.n_pairs / self.batch_size))

    def launcher(self) -> dict[str, object]:
        """Defaults of the launcher's flags."""
        return {
            "bsz": self.batch_size,
            "max_steps": self.steps,
            "eval_steps": max(1, self.steps // 4),
            "warmup_steps": self.steps // 20,
            "learning_rate": 1e-3,
            "objective_mode": 0,
        }

    def trainer(self, output_dir: Path) -> dict[str, object]:
        """Flags of the trainer that the launcher does not have."""
        return {
            "length_groups": "yes",
            "logging_first_step": True,
            "logging_steps": max(1, self.steps // 20),
            "save_steps": max(1, self.steps // 4),
            "results_dir": output_dir,
        }
