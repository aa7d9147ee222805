"""What a command line program says and returns when something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from prefix_tuning.errors import Terminated, UserError, run_command
from prefix_tuning.files import write_json


def raising(error: BaseException) -> object:
    def main(argv: Sequence[str] | None) -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (UserError("--bsz 0: must be at least 1"), 2, "error: --bsz 0: must be at least 1"),
        (PermissionError(13, "Permission denied", "out/a"), 2, "error: out/a: Permission denied;"),
        (OSError(28, "No space left on device"), 2, "error: No space left on device; see to"),
        (RuntimeError("basic_ios::clear: iostream error"), 2, "error: the disk is full, or files"),
        (MemoryError(), 2, "error: not enough memory (MemoryError); smaller batches"),
        (OSError(12, "Cannot allocate memory"), 2, "error: not enough memory ([Errno 12]"),
        (torch.OutOfMemoryError("CUDA out of memory.\nx"), 2, "error: not enough memory (CUDA"),
        (KeyboardInterrupt(), 130, "interrupted;"),
        (Terminated(), 143, "terminated;"),
    ],
)
def test_one_line_and_a_status(
    error: BaseException, status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_of:
        run_command(raising(error))
    assert exit_of.value.code == status
    printed = capsys.readouterr().err
    assert printed.startswith(says)
    assert printed.count("\n") == 1


def test_a_tensor_too_large_for_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_command(lambda argv: torch.empty(2**50))
    assert capsys.readouterr().err.startswith("error: not enough memory (")


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SystemExit):
        run_command(lambda argv: (tmp_path / "file" / "run").mkdir())
    assert capsys.readouterr().err.startswith(
        f"error: {tmp_path / 'file' / 'run'}: Not a directory"
    )


def test_a_folder_in_a_files_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(SystemExit):
        run_command(lambda argv: write_json(tmp_path / "a.json", {}))
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'a.json'}: ")


def test_a_log_is_written_line_by_line() -> None:
    program = "from prefix_tuning.errors import run_command\nimport os\n"
    program += "def main(argv):\n    print('first')\n    os._exit(0)\n"  # ends without flushing
    command = [sys.executable, "-c", program + "run_command(main)"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.stdout == "first\n"


def test_a_thread_that_cannot_write_says_so_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """As TensorBoard's on a full disk, whose error the next call of its writer raises again."""

    def write() -> None:
        raise OSError(28, "No space left on device")

    def main(argv: Sequence[str] | None) -> None:
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()

    before = threading.excepthook
    run_command(main)
    assert capsys.readouterr().err == "error in a thread that writes: No space left on device\n"
    assert threading.excepthook is before


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("of a library")])
def test_bugs_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        run_command(raising(error))


def test_sigterm_is_a_sentence_and_a_status() -> None:
    program = "import os, signal\nfrom prefix_tuning.errors import run_command\n"
    program += "run_command(lambda argv: os.kill(os.getpid(), signal.SIGTERM))\n"
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 143
    assert found.stderr == "terminated; start the same command again to continue\n"


FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from prefix_tuning.checkpoint import write_tensors
from prefix_tuning.errors import run_command

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
tensors = {"a": torch.zeros(9999)}
path = Path(sys.argv[1]) / "x"
for write in (lambda: write_tensors(path, tensors), lambda: torch.save(tensors, path)):
    try:
        run_command(lambda argv: write())
    except SystemExit as end:
        print(end.code)
"""


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    """Whichever library writes."""
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.split() == ["2", "2"]
    sentences = found.stderr.splitlines()
    assert len(sentences) == 2
    assert all(sentence.startswith("error: ") for sentence in sentences)
    assert not list(tmp_path.glob("*.tmp"))
