"""One process at a time in the folder of a run, or at the texts of a decode."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from prefix_tuning.errors import UserError
from prefix_tuning.files import write_json

LOCK, HOLDER = ".lock", ".lock.json"
"""The lock, and who holds it: process, machine and command."""
GRACE = 15.0
"""Seconds in which what a killed process has started (workers that read data) ends by itself."""


@contextlib.contextmanager
def locked(folder: Path, name: str = "") -> Iterator[None]:
    """Hold the folder, which must exist; the lock ends with the process, however that ends.

    Args:
        name: hold only what is called so in the folder.

    Raises:
        UserError: another process holds it; the message says which.
    """
    front = f".{name}" if name else ""
    lock, holder = FileLock(folder / f"{front}{LOCK}", timeout=0), folder / f"{front}{HOLDER}"
    try:
        _acquire(lock, holder, folder / name)
    except NotImplementedError:
        print(f"{folder}: this file system has no locks; start no second run in it", flush=True)
        yield
        return
    try:
        command = shlex.join(sys.argv)
        held = {"pid": os.getpid(), "host": socket.gethostname(), "command": command}
        write_json(holder, held)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, path: Path, what: Path) -> None:
    try:
        lock.acquire()
        return
    except Timeout:
        holder = _holder(path)
    if _has_ended(holder):
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=GRACE)
            return
    who = "another process"
    if holder:
        who = f"process {holder['pid']} on {holder['host']} ({holder['command']})"
    raise UserError(
        f"{what} is in use by {who}: wait until it ends, stop it, or name another folder"
    )


def _holder(path: Path) -> dict[str, object]:
    """Who says to hold the lock; empty in the moment before that is written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: found[name] for name in ("pid", "host", "command")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _has_ended(holder: dict[str, object]) -> bool:
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int):
        return False
    return not psutil.pid_exists(pid)
