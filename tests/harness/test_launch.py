"""Launching: shown, checked, written down, run."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness.launch import launch, subset_note
from prefix_tuning.errors import UserError


def test_a_command_is_shown_and_written_and_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[int] = []
    output = tmp_path / "models" / "m_lr=1e-05"
    launch(Path("train.py"), ["--text=a b"], output, check=lambda: 3, run=ran.append)
    line = shlex.join([sys.executable, "train.py", "--text=a b"])
    assert capsys.readouterr().out == f"{line}\n"
    script = tmp_path / "models" / "m_lr=1e-05.sh"
    assert script.read_text(encoding="utf-8") == f"#!/bin/sh\n{line}\n"
    assert ran == [3]


def test_a_shell_takes_texts_of_a_command_for_texts(tmp_path: Path) -> None:
    texts = ["--text=a'; touch x", '--text="$(touch x)"', "`touch x`", "a\nb", "*", "$HOME", ""]
    launch(Path("train.py"), texts, tmp_path / "m", check=lambda: 3, run=lambda request: None)
    line = (tmp_path / "m.sh").read_text(encoding="utf-8").removeprefix("#!/bin/sh\n")
    program = f"set -- {line}\nfor word; do printf '%s\\0' \"$word\"; done"
    found = subprocess.run(["/bin/sh", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert found.stdout.split("\0")[2:-1] == texts
    assert [path.name for path in tmp_path.iterdir()] == ["m.sh"]


def test_a_command_that_is_only_shown_or_wrong_leaves_nothing(tmp_path: Path) -> None:
    def wrong() -> None:
        raise UserError("--x 0: must be positive")

    output = tmp_path / "models" / "m"
    launch(Path("train.py"), [], output, check=lambda: 3, run=pytest.fail, submit="print")
    with pytest.raises(UserError, match="--x 0"):
        launch(Path("train.py"), [], output, check=wrong, run=pytest.fail)
    with pytest.raises(UserError, match="cluster"):
        launch(Path("train.py"), [], output, check=lambda: 3, run=pytest.fail, submit="yes")
    assert not list(tmp_path.iterdir())


def test_notes_name_a_subset() -> None:
    assert subset_note("Alowdata_4_100", "lowdata", "size") == (4, "100")
    assert subset_note("datalevels_0_20", "datalevels", "percent") == (0, "20")
    assert subset_note(None, "lowdata", "size") is None
    assert subset_note("datalevels_0_20", "lowdata", "size") is None
    for wrong in ("lowdata", "lowdata_50", "lowdata_1_²", "earlystop_lowdata_1_100"):
        with pytest.raises(UserError, match="expected lowdata_SEED_SIZE"):
            subset_note(wrong, "lowdata", "size")
