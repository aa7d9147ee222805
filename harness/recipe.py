"""How long a prefix is trained on one's own pairs unless flags say otherwise.

The originals' defaults are for tens of thousands of pairs. Fifty need more passes and a larger
learning rate; both were chosen on small models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

BATCH = 8
FEWEST_UPDATES = 200
PASSES = 5
LEARNING_RATE = 1e-3


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

    @property
    def warmup_steps(self) -> int:
        """A twentieth of the updates."""
        return self.steps // 20
