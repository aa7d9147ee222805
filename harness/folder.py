"""The folder of a run: whether a run starts, goes on, is finished, or is somebody else's.

The same command goes on with its run by itself. What must not change until then stands in the
folder (``run_settings.json``); a setting that is not recorded there, because an older version did
not know it, is no difference.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, write_json

SETTINGS = "run_settings.json"
AGAIN = "to train it again add --overwrite_output_dir (to a launcher: --resume no)"


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


@dataclass(frozen=True)
class State:
    """What is to be done in a run folder."""

    kind: Literal["new", "resume", "finished"]
    checkpoint: Path | None = None
    """Where an interrupted run goes on."""


NEW, FINISHED = State("new"), State("finished")


@dataclass(frozen=True)
class RunFolder:
    """A folder that one training run owns.

    Args:
        path: of the folder; it need not exist.
        settings: flags that decide what is trained, by name (JSON values).
        finished: name of the file that is written last.
        leftovers: glob patterns, within the folder, of what a new run would take for its own.
        overwrite: start again whatever is there.
        resume_from: the checkpoint to go on from; None or "auto" for the newest complete one.
        newest: finds the newest complete checkpoint.
    """

    path: Path
    settings: Mapping[str, Any]
    finished: str
    leftovers: Sequence[str] = ()
    overwrite: bool = False
    resume_from: str | None = None
    newest: Callable[[Path], Path | None] = last_complete_checkpoint

    def state(self) -> State:
        """Look at the folder, and change nothing.

        Raises:
            UserError: the folder is not one of ours, was started with other flags, or does not
                hold what is to be resumed.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--output_dir {self.path} is a file: name a folder")
        asked = None if self.resume_from == "auto" else self.resume_from
        if self.overwrite and self.resume_from:
            raise UserError(
                "--overwrite_output_dir and --resume_from_checkpoint exclude each other"
            )
        if self.overwrite:
            return NEW
        if not (self.path / SETTINGS).is_file():
            self._check_unused(asked)
            return NEW
        self._check_settings()
        if asked and not Path(asked, "trainer_state.json").is_file():
            raise UserError(f"--resume_from_checkpoint {asked} holds no complete checkpoint")
        if (self.path / self.finished).is_file():
            return FINISHED
        checkpoint = Path(asked) if asked else self.newest(self.path)
        return State("resume", checkpoint) if checkpoint else NEW

    def _check_unused(self, asked: str | None) -> None:
        if asked:
            raise UserError(
                f"--resume_from_checkpoint {asked}: --output_dir {self.path} holds no run to go on "
                "with; name the folder of the checkpoint's run"
            )
        files = (entry for entry in self.path.rglob("*") if not entry.is_dir())
        # Killed between making the folder and recording its settings.
        if any(file.name != f"{SETTINGS}.tmp" for file in files):
            raise UserError(
                f"--output_dir {self.path} is not empty and holds no run of this project: name "
                f"another folder; {AGAIN}"
            )

    def _check_settings(self) -> None:
        before = read_json_object(self.path / SETTINGS)
        for name, value in json.loads(json.dumps(self.settings)).items():
            if before.get(name, value) != value:
                raise UserError(
                    f"{self.path} was started with --{name} {before[name]}, now it is {value}: "
                    f"use the old value; {AGAIN}"
                )

    def create(self) -> None:
        """Make the folder, without an old run's leftovers, and record the settings."""
        self.path.mkdir(parents=True, exist_ok=True)
        for pattern in (self.finished, *self.leftovers):
            for old in self.path.glob(pattern):
                if old.is_dir():
                    shutil.rmtree(old, ignore_errors=True)
                else:
                    old.unlink(missing_ok=True)
        write_json(self.path / SETTINGS, self.settings)
