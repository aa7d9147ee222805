"""The commands of the README: the cheap ones run, the long ones are at least valid."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from gpt2 import gen, train_e2e
from prefix_tuning.errors import UserError
from seq2seq import train_bart

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.S)
COMMANDS = [
    shlex.split(line, comments=True)
    for block in BLOCKS
    for line in re.sub(r"\\\n", " ", block).split("\n")
    if line.startswith("python ")
]


def commands_of(script: str) -> list[list[str]]:
    found = [command[2:] for command in COMMANDS if command[1] == script]
    assert found, f"the README has no command with {script}"
    return found


@pytest.mark.parametrize("arguments", commands_of("gpt2/train_e2e.py"), ids=" ".join)
def test_training_commands_are_valid(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    train_e2e.main([*arguments, "--submit", "print"])
    assert "run_language_modeling.py" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", commands_of("gpt2/gen.py"), ids=" ".join)
def test_decoding_commands_are_valid(
    arguments: list[str], tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*arguments[:3], str(tiny_folder), "print", *arguments[5:]]
    gen.main(arguments)
    assert "run_generation.py" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", commands_of("seq2seq/train_bart.py"), ids=" ".join)
def test_summary_commands_are_valid(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    train_bart.main([*arguments, "--submit", "print"])
    assert "finetune.py" in capsys.readouterr().out


def test_ones_own_data(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heredoc and the two commands under it, with a tiny model in the place of gpt2."""
    block = next(block for block in BLOCKS if "<<'END'" in block)
    heredoc = block[: block.index("\nEND\n") + 5]
    subprocess.run(["sh", "-c", heredoc], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    (train,) = [c for c in commands_of("gpt2/train_e2e.py") if "pairs.jsonl" in c]
    train[train.index("gpt2")] = str(tiny_folder)
    train_e2e.main([*train, "--use_cpu", "--report_to", "none", "--score", "no"])
    (decode,) = [c for c in commands_of("gpt2/gen.py") if "pairs.jsonl" in c]
    gen.main([*decode, "--no_cuda", "--no_score"])
    outputs = (tmp_path / "e2e_results_conv2" / "weather_test_beam").read_text("utf-8")
    assert len(outputs.splitlines()) == 2


def test_python_example(tiny_folder: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    names: dict[str, object] = {}
    exec(example.replace('"gpt2"', repr(str(tiny_folder))), names)
    assert names["texts"].shape[0] == 1
    assert names["logits"].requires_grad


def test_every_long_command_says_what_to_expect() -> None:
    """Each block that trains, decodes or measures names minutes, steps or sizes."""
    for block in BLOCKS:
        if re.search("train_e2e|train_bart|quickstart|benchmarks", block):
            assert re.search(r"minute|steps|second|hour", block), block


def test_every_path_exists() -> None:
    for path in re.findall(
        r"(?:\./)?((?:scripts|benchmarks|gpt2|seq2seq|docs)/[\w.]+\.\w+)", README
    ):
        assert (ROOT / path).exists(), path


def test_modules_of_the_readme_exist() -> None:
    for name in re.findall(r"python -m ([\w.]+)", README):
        assert (ROOT / name.replace(".", "/")).with_suffix(".py").exists(), name


def test_what_is_not_there_yet_is_refused_as_the_readme_says() -> None:
    for flags in ("--format_mode infix", "--prefix_mode embedding", "--tuning_mode finetune-top"):
        with pytest.raises(UserError):
            train_e2e.main([*flags.split(), "--submit", "print"])
