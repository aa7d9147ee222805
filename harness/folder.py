"""The folder of a run."""

from __future__ import annotations

import json
from pathlib import Path


def last_complete_checkpoint(run: Path) -> Path | None:
    """The newest ``checkpoint-<step>`` of a training run that was written to its end.

    Trainer writes ``trainer_state.json`` last: where it is whole, everything before it is.
    """
    found = []
    for folder in run.glob("checkpoint-*"):
        try:
            state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
            found.append((state["global_step"], folder))
        except (OSError, ValueError, KeyError):
            continue
    return max(found)[1] if found else None
