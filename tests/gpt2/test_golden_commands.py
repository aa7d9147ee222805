"""Run names and command lines stay what they were: recorded once, for some thirty sets of flags."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from conftest import ROOT

from gpt2 import train_e2e
from gpt2.launch_flags import read
from gpt2.train_request import parse
from harness.flags import command

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


@pytest.mark.parametrize("flags", GOLDEN, ids=lambda flags: flags or "nothing")
def test_a_launch_asks_for_what_its_command_says(flags: str) -> None:
    """The request is made from values; the command written beside the run, from strings."""
    launch, rest = read(shlex.split(flags))
    values = train_e2e.values_of(launch, Path("run"))
    asked = parse(rest, values)
    said = parse([*command(values), *rest])
    assert (asked.model, asked.data, asked.tuning) == (said.model, said.data, said.tuning)
    assert asked.settings() == said.settings()
    ours, theirs = vars(asked.run), vars(said.run)
    different = [name for name in ours if ours[name] != theirs[name]]
    assert set(different) <= {"accelerator_config", "distributed_state"}  # objects of their own
