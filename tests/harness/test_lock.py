"""One process at a time in the folder of a run."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT
from filelock import FileLock

from harness.lock import HOLDER, LOCK, locked
from prefix_tuning.errors import UserError

HOLD = """
import sys, time
from pathlib import Path
from harness.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_says_who_is_there_and_a_kill_frees_the_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=rf"in use by process {first.pid} on .*-c"),
            locked(tmp_path),
        ):
            pass
        first.send_signal(signal.SIGKILL)
        first.wait()
    with locked(tmp_path):
        assert (tmp_path / HOLDER).is_file()
    assert not (tmp_path / HOLDER).exists()


def test_a_lock_without_a_word_of_its_holder(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / HOLDER).write_text("{", encoding="utf-8")
        with pytest.raises(UserError, match="in use by another process"), locked(tmp_path):
            pass


def test_what_an_ended_process_started_is_waited_for(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    holder = {"pid": ended.pid, "host": socket.gethostname(), "command": "x"}
    (tmp_path / HOLDER).write_text(json.dumps(holder), encoding="utf-8")
    of_its_worker = FileLock(tmp_path / LOCK, thread_local=False)
    of_its_worker.acquire()
    threading.Timer(0.1, of_its_worker.release).start()
    with locked(tmp_path):
        assert not of_its_worker.is_locked
