"""What the launchers share: a command that is shown, checked, written down and run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from prefix_tuning.errors import UserError

Request = TypeVar("Request")


def launch(
    script: Path,
    command: Sequence[str],
    output_dir: Path,
    check: Callable[[], Request],
    run: Callable[[Request], object],
    submit: str = "no",
) -> None:
    """Show the command of a run, check it, write it to ``<output_dir>.sh`` and run it here.

    Args:
        script: the command that is launched.
        command: its arguments.
        check: parses the arguments; a wrong flag ends here, before anything is written.
        run: runs what ``check`` made of them, in this process.
        submit: "no" runs; anything else only shows the command.

    Raises:
        UserError: ``submit`` is "yes", which was the originals' cluster.
    """
    if submit == "yes":
        raise UserError("--submit yes: the original's cluster is not supported; use no or print")
    line = shlex.join([sys.executable, str(script), *command])
    print(line, flush=True)
    request = check()
    if submit != "no":
        return
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    path = output_dir.with_name(output_dir.name + ".sh")
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    run(request)


def subset_note(notes: str | None, kind: str, last: str) -> tuple[int, str] | None:
    """Seed and size of the random subset that a run's notes name, as ``lowdata_SEED_SIZE``.

    Args:
        notes: of the run.
        kind: the word that marks such notes, "lowdata" or "datalevels".
        last: what the last part is, for the message: "size" or "percent".

    Returns:
        None where the notes do not have the word.

    Raises:
        UserError: they have it, but not in three parts, the last two of them numbers.
    """
    if kind not in (notes or ""):
        return None
    parts = (notes or "").split("_")
    numbers = [part for part in parts[1:] if part.isdecimal() and len(part) < 19]
    if len(parts) != 3 or kind not in parts[0] or len(numbers) != 2:
        raise UserError(f"--notes {notes}: expected {kind}_SEED_{last.upper()}, {kind}_0_50 say")
    return int(parts[1]), parts[2]
