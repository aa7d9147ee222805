"""Run names and command lines stay what they were: recorded once, for some thirty sets of flags."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from conftest import ROOT

from gpt2 import train_e2e

GOLDEN = json.loads((Path(__file__).with_name("golden_commands.json")).read_text("utf-8"))


@pytest.mark.parametrize("flags", GOLDEN, ids=lambda flags: flags or "nothing")
def test_the_command_is_the_recorded_one(
    flags: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    train_e2e.main([*shlex.split(flags), "--submit", "print"])
    # What lies before the script is this machine's Python.
    _, _, *command = shlex.split(capsys.readouterr().out.replace(f"{ROOT}/", ""))
    assert sorted(command) == sorted(shlex.split(GOLDEN[flags]))
