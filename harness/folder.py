"""The folder of a run: whether a run starts, goes on, is finished, or is somebody else's.

The same command goes on with its run by itself. What must not change until then stands in the
folder (``run_settings.json``): the flags, a digest of each data file, and, once it is loaded, the
base model. A setting that is not recorded there, because an older version did not know it, is no
difference.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness import manifest
from harness.lock import HOLDER, LOCK, locked
from harness.processes import agreed, is_first
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, write_json

SETTINGS = "run_settings.json"
DATA, BASE = "data_sha256", "base_model"
"""Of the settings: digests of data files by flag, and what recognises the base model."""
AGAIN = "to train it again add --overwrite_output_dir (to a launcher: --resume no)"


def trainer_checkpoints(run: Path) -> list[Path]:
    """Trainer's ``checkpoint-<step>``, the newest first."""
    steps = {p: p.name.removeprefix("checkpoint-") for p in run.glob("checkpoint-*") if p.is_dir()}
    numbered = {path: int(step) for path, step in steps.items() if step.isdecimal()}
    return sorted(numbered, key=lambda path: -numbered[path])


def trainer_fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint of Trainer without a manifest, as older versions wrote it."""
    from harness import older_checkpoints  # torch: only where there is such a checkpoint

    return older_checkpoints.fault(checkpoint)


@dataclass(frozen=True)
class State:
    """What is to be done in a run folder."""

    kind: Literal["new", "resume", "finished"]
    checkpoint: Path | None = None
    """Where an interrupted run goes on."""
    faults: tuple[tuple[Path, str], ...] = ()
    """Newer checkpoints that cannot be used, and why."""


NEW, FINISHED = State("new"), State("finished")


@dataclass
class RunFolder:
    """A folder that one training run owns.

    Args:
        path: of the folder; it need not exist.
        settings: flags that decide what is trained, by name (JSON values).
        finished: name of the file that is written last.
        leftovers: glob patterns, within the folder, of what a new run would take for its own.
        overwrite: start again whatever is there.
        resume_from: the checkpoint to go on from; None or "auto" for the newest complete one.
        checkpoints: finds all checkpoints, complete or not, the newest first.
        older: says what is wrong with one that has no manifest, as "is damaged"; None if nothing.
        data: files that decide what is trained, by flag; None where none is given. Their content
            decides, not their path.
    """

    path: Path
    settings: Mapping[str, Any]
    finished: str
    leftovers: Sequence[str] = ()
    overwrite: bool = False
    resume_from: str | None = None
    checkpoints: Callable[[Path], Sequence[Path]] = trainer_checkpoints
    older: Callable[[Path], str | None] = trainer_fault
    data: Mapping[str, Path | None] = field(default_factory=dict)
    begun: bool = field(default=False, init=False)
    """Whether training has begun."""
    base: dict[str, Any] | None = field(default=None, init=False)

    def state(self) -> State:
        """Look at the folder, and change nothing.

        Raises:
            UserError: the folder is not one of ours, was started with other flags or data, does
                not hold what is to be resumed, or has no checkpoint left that can be used.
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
        return self._asked(Path(asked)) if asked else self._newest()

    def _asked(self, checkpoint: Path) -> State:
        fault = self.fault(checkpoint)
        if fault:
            raise UserError(f"--resume_from_checkpoint {checkpoint} {fault}: name another one")
        return State("resume", checkpoint)

    def _newest(self) -> State:
        faults: list[tuple[Path, str]] = []
        for checkpoint in self.checkpoints(self.path):
            fault = self.fault(checkpoint)
            if fault is None:
                return State("resume", checkpoint, tuple(faults))
            faults.append((checkpoint, fault))
        return State("new", None, tuple(faults))

    def fault(self, checkpoint: Path) -> str | None:
        """What is wrong with a checkpoint, as "is damaged"; None if nothing."""
        is_ours = self.records_data()
        if not is_ours and not manifest.manifest_of(checkpoint).is_file():
            return self.older(checkpoint)
        return manifest.fault(checkpoint, self.identity() if is_ours else None)

    def recorded(self) -> dict[str, Any]:
        """What stands in the folder.

        Raises:
            UserError: it cannot be read, or what it says of data and base model is no object.
        """
        found = read_json_object(self.path / SETTINGS)
        for name in (DATA, BASE):
            if not isinstance(found.get(name, {}), dict):
                path = self.path / SETTINGS
                raise UserError(f"{path}: {name} is damaged: copy the file again; {AGAIN}")
        return found

    def records_data(self) -> bool:
        """Whether the run was begun by a version that records its data and seals checkpoints."""
        return DATA in self.recorded()

    def identity(self) -> str:
        """What the checkpoints of this run have in common: a digest of what is recorded."""
        text = json.dumps(self.recorded(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _check_unused(self, asked: str | None) -> None:
        if asked:
            raise UserError(
                f"--resume_from_checkpoint {asked}: --output_dir {self.path} holds no run to go on "
                "with; name the folder of the checkpoint's run"
            )
        # Killed between making the folder and recording its settings.
        ours = {f"{SETTINGS}.tmp", LOCK, HOLDER, f"{HOLDER}.tmp"}
        files = (entry for entry in self.path.rglob("*") if not entry.is_dir())
        if any(file.name not in ours for file in files):
            raise UserError(
                f"--output_dir {self.path} is not empty and holds no run of this project: name "
                f"another folder; {AGAIN}"
            )

    def _check_settings(self) -> None:
        before = self.recorded()
        if not before:
            raise UserError(f"{self.path / SETTINGS} is empty: copy it again; {AGAIN}")
        digests, now = before.get(DATA, {}), self._digests()
        for name, value in json.loads(json.dumps(self.settings)).items():
            by_content = digests.get(name) and now.get(name)
            if not by_content and before.get(name, value) != value:
                raise UserError(
                    f"{self.path} was started with --{name} {before[name]}, now it is {value}: "
                    f"use the old value; {AGAIN}"
                )
        for name, found in now.items():
            if digests.get(name, found) != found:
                flag = name.split("/")[0]
                raise UserError(
                    f"{self.path} was started with other data: the content of {self.data[name]} "
                    f"(--{flag}) has changed; put the old file back; {AGAIN}"
                )

    def _digests(self) -> dict[str, str | None]:
        """Digests of data files and folders; None for a flag that is not given or names neither."""
        there = {n: p for n, p in self.data.items() if p is not None and p.exists()}
        return {n: manifest.content(there[n]) if n in there else None for n in self.data}

    @contextlib.contextmanager
    def held(self) -> Iterator[State]:
        """Own the folder while a run starts, goes on and ends; what is to be done in it.

        The settings of a new run are recorded at once, whole or not. They vanish again, with a
        folder that is new, if it ends before :meth:`create`: a mistake in the data shows only then.
        Checkpoints that cannot be used are named and renamed. A finished run is not locked. Of
        several processes the first does all this, and the others learn from it what is to be done.

        Raises:
            UserError: another run is at work here, no checkpoint can be used, or as :meth:`state`.
        """
        if not is_first():
            yield agreed(None) or self.state()
        elif self.state() == FINISHED:
            agreed(FINISHED)
            yield FINISHED
        else:
            is_new = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                with locked(self.path):
                    yield from self._begin()
            finally:
                if is_new and {path.name for path in self.path.iterdir()} == {LOCK}:
                    shutil.rmtree(self.path, ignore_errors=True)

    def _begin(self) -> Iterator[State]:
        state = self.state()  # again, for another run may have ended since
        self._set_aside(state)
        is_fresh = not (self.path / SETTINGS).is_file()
        if is_fresh:
            self._record()
        agreed(state)
        try:
            yield state
        except BaseException:
            if is_fresh and not self.begun:
                (self.path / SETTINGS).unlink(missing_ok=True)
            raise

    def _set_aside(self, state: State) -> None:
        """Rename the checkpoints that cannot be used; stop if there is no other."""
        found = [(p, why, manifest.set_aside(p).name) for p, why in state.faults]
        if state.kind == "resume":
            for path, why, name in found:
                print(f"{path} {why}: it is set aside as {name}", flush=True)
        elif found:
            raise UserError(
                f"{'; '.join(f'{path} {why}' for path, why, _ in found)}: copy it again; {AGAIN} "
                f"(kept as {', '.join(name for _, _, name in found)})"
            )
        elif not self.overwrite and (aside := sorted(self.path.glob(f"{manifest.SET_ASIDE}*"))):
            raise UserError(
                f"{self.path} has no checkpoint but {', '.join(path.name for path in aside)}, "
                f"which cannot be used: copy a good one there, under its old name; {AGAIN}"
            )

    def create(self) -> None:
        """Training begins: remove an old run's leftovers where that was asked for."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self.overwrite:
            for pattern in (self.finished, *self.leftovers, f"{manifest.SET_ASIDE}*"):
                for old in self.path.glob(pattern):
                    _remove(old)
        if self.overwrite or not (self.path / SETTINGS).is_file():
            self._record()
        self.begun = True

    def _record(self) -> None:
        data = {DATA: self._digests()} if self.data else {}
        base = {BASE: self.base} if self.base else {}
        write_json(self.path / SETTINGS, {**self.settings, **data, **base})

    def check_base(self, described: dict[str, Any]) -> None:
        """Record the base model, or refuse another than the run was started with.

        Args:
            described: it by :func:`prefix_tuning.fingerprint.describe`, before it is trained.

        Raises:
            UserError: its weights are others.
        """
        from prefix_tuning import fingerprint

        if self.overwrite:
            self.base = described  # what is there stays until training begins
            return
        recorded = self.recorded()
        if BASE in recorded:
            fingerprint.compare(recorded[BASE], described, str(self.path))
        elif is_first():
            write_json(self.path / SETTINGS, {**recorded, BASE: described})


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
