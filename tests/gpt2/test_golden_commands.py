"""Run names and command lines stay what they were: recorded once, for some thirty sets of flags."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import ROOT

from gpt2 import train_e2e
from gpt2.launch_flags import LaunchFlags, read
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


REACHES: dict[str, tuple[str, dict[str, object]]] = {
    "seed": ("7", {"seed": 7}),
    "bsz": ("3", {"per_device_train_batch_size": 3, "per_device_eval_batch_size": 3}),
    "epoch": ("2", {"num_train_epochs": 2}),
    "max_steps": ("9", {"max_steps": 9}),
    "eval_steps": ("8", {"eval_steps": 8}),
    "warmup_steps": ("6", {"warmup_steps": 6}),
    "gradient_accumulation_steps": ("4", {"gradient_accumulation_steps": 4}),
    "learning_rate": ("0.5", {"learning_rate": 0.5}),
    "weight_decay": ("0.25", {"weight_decay": 0.25}),
    "dropout": ("0.125", {"prefix_dropout": 0.125}),
    "preseqlen": ("3", {"preseqlen": 3}),
    "cache_dir": ("c", {"cache_dir": "c"}),
    "model_name_or_path": ("m", {"model_name_or_path": "m"}),
    "train_file": ("t.txt", {"train_data_file": "t.txt"}),
    "eval_file": ("e.txt", {"eval_data_file": "e.txt"}),
    "test_file": ("d.txt", {"test_data_file": "d.txt"}),
    "eval_fraction": ("0.3", {"eval_fraction": 0.3}),
    "source_column": ("q", {"source_column": "q"}),
    "target_column": ("a", {"target_column": "a"}),
    "train_size": ("50", {"train_size": "50", "sample_seed": 0}),
    "sample_seed": ("5", {"sample_seed": 5}),
    "resume": ("no", {"overwrite_output_dir": True}),
}
"""Flags of the launcher alone, and what becomes of them."""
ELSEWHERE = {
    *("mode", "tuning_mode", "notes", "seeds", "sweep", "submit", "dir_name", "output_dir"),
    *("lowdata_token", "use_lowdata_token", "use_custom_teacher_dropout"),
    *("prefix_model_path", "use_big"),
}
"""Those that other tests are about."""


@pytest.mark.parametrize("name", [f.name for f in fields(LaunchFlags) if f.name not in ELSEWHERE])
def test_every_flag_of_the_launcher_reaches_the_run(name: str) -> None:
    text, expected = REACHES[name]
    more = ["--train_size", "50"] if name == "sample_seed" else []
    launch, rest = read([*more, f"--{name}", text])
    values = train_e2e.values_of(launch, Path("run"))
    assert rest == []
    assert {key: values.get(key) for key in expected} == expected
    assert ("resume_from_checkpoint" in values) == (name != "resume")
