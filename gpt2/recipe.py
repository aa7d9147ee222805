"""What a run on one's own data does unless flags say otherwise: the quick start's recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness import recipe


@dataclass(frozen=True)
class Recipe(recipe.Recipe):
    """Defaults by the size of the data."""

    def launcher(self) -> dict[str, object]:
        """Defaults of the launcher's flags."""
        return {
            "bsz": self.batch_size,
            "max_steps": self.steps,
            "eval_steps": max(1, self.steps // 4),
            "warmup_steps": self.warmup_steps,
            "learning_rate": recipe.LEARNING_RATE,
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
