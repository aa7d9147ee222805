"""The commands of the READMEs: the cheap ones run, the long ones are at least valid."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from gpt2 import gen, train_e2e
from gpt2.train_request import parse as parse_training
from prefix_tuning.errors import UserError
from ptuning_v2.arguments import get_args
from seq2seq import train_bart

FILES = [
    ROOT / "README.md",
    *(
        ROOT / n / "README.md"
        for n in ("gpt2", "seq2seq", "ptuning_v2", "evaluation", "experiments")
    ),
]
README = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
OWN_DATA = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.S)
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.S)


FOLDERS = (
    "benchmarks docs evaluation experiments gpt2 harness prefix_tuning ptuning_v2 scripts seq2seq"
)
PATH = rf"\b(?:{FOLDERS.replace(' ', '|')})/[\w./-]+\.(?:py|sh|md|json|yaml|png|svg|ipynb)\b"


def test_the_files_that_pages_name_are_there() -> None:
    pages = [
        *FILES,
        *ROOT.glob("docs/*.md"),
        ROOT / "CONTRIBUTING.md",
        ROOT / "benchmarks/README.md",
    ]
    named = {(page, name) for page in pages for name in re.findall(PATH, page.read_text("utf-8"))}
    assert len(named) > 50
    assert [n for p, n in named if not ((ROOT / n).exists() or (p.parent / n).exists())] == []


def commands_in(blocks: list[str]) -> list[list[str]]:
    lines = [line for block in blocks for line in re.sub(r"\\\n", " ", block).split("\n")]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("python ")]


OWN = commands_in(re.findall(r"```sh\n(.*?)```", OWN_DATA, flags=re.S))
"""The commands of docs/own_data.md; some are in the README too."""
COMMANDS = [command for command in commands_in(BLOCKS) if command not in OWN]


def commands_of(script: str, commands: list[list[str]] = COMMANDS) -> list[list[str]]:
    found = [command[2:] for command in commands if command[1] == script]
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


def test_commands_for_ones_own_data(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Of docs/own_data.md: training is valid, writing writes."""
    monkeypatch.chdir(tmp_path)
    for name, header in (("pairs.csv", "source,target"), ("reviews.csv", "text,label")):
        rows = "".join(f"row {i},{i % 2}\n" for i in range(20))
        (tmp_path / name).write_text(f"{header}\n{rows}", encoding="utf-8")
    for command in commands_of("gpt2/train_e2e.py", OWN):
        train_e2e.main([*command, "--submit", "print"])
        assert "--output_dir=trained/pairs" in capsys.readouterr().out
    train_bart.main([*commands_of("seq2seq/train_bart.py", OWN)[0], "--submit", "print"])
    (tmp_path / "sentences.conll").write_text("Ann B-PER\nsings O\n", encoding="utf-8")
    (tmp_path / "questions.json").write_text('{"data": []}', encoding="utf-8")
    tasks = [get_args(command).data_args for command in commands_of("ptuning_v2/run.py", OWN)]
    assert [task.task_name for task in tasks] == ["classification", "tagging", "qa"]
    shutil.copytree(tiny_folder, tmp_path / "trained" / "pairs")
    monkeypatch.setattr("sys.stdin", io.StringIO("a\n"))
    for command in commands_of("gpt2/gen.py", OWN):
        gen.main([*command, "--no_cuda", "--length", "5"])


def test_attaching_example(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = EXAMPLES
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example.replace('"gpt2"', repr(str(tiny_folder))), names)
    trained = [name for name, p in names["model"].named_parameters() if p.requires_grad]
    assert trained
    assert all(name.startswith("prefix.") for name in trained)
    assert (tmp_path / "my-prefix" / "prefix.safetensors").is_file()


def test_every_long_command_says_what_to_expect() -> None:
    """Each block that trains, decodes or measures names hours, minutes, steps or seconds."""
    for block in BLOCKS:
        if re.search("train_e2e|train_bart|run.py|quickstart|compare|benchmarks", block):
            assert re.search(r"hour|minute|steps|second", block), block


def test_every_path_exists() -> None:
    for path in re.findall(
        r"(?:\./)?((?:scripts|benchmarks|gpt2|seq2seq|ptuning_v2|docs)/[\w.]+\.\w+)", README
    ):
        assert (ROOT / path).exists(), path


def test_modules_of_the_readme_exist() -> None:
    for name in re.findall(r"python -m ([\w.]+)", README):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


@pytest.mark.parametrize(
    "flags",
    [
        "--distill yes --finetuned_model_path t --matching_objective last_layer",
        "--format_mode nopeek",
        "--prefix_model_path x",
    ],
)
def test_what_the_readme_says_is_refused(flags: str) -> None:
    with pytest.raises(UserError):
        train_e2e.main([*flags.split(), "--submit", "print"])


def test_commands_of_several_processes_are_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """tests/harness, gpt2, seq2seq and ptuning_v2 run such commands by two processes."""
    text = (ROOT / "docs" / "several_processes.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", text, flags=re.S)
    lines = block.replace("\\\n", " ").splitlines()
    gpt2, ptuning, bart = (shlex.split(line) for line in lines)
    assert gpt2[:3] == ptuning[:3] == ["torchrun", "--nproc_per_node", "2"]
    monkeypatch.chdir(tmp_path)
    for name, header in (("pairs.csv", "source,target"), ("reviews.csv", "text,label")):
        rows = "".join(f"row {i},{i % 2}\n" for i in range(20))
        (tmp_path / name).write_text(f"{header}\n{rows}", encoding="utf-8")
    assert gpt2[3] == "gpt2/run_language_modeling.py"
    request = parse_training([*gpt2[4:], "--use_cpu"])
    assert request.run.max_steps == 200
    assert ptuning[3] == "ptuning_v2/run.py"
    assert get_args([*ptuning[4:], "--use_cpu"]).model_args.prefix
    assert bart[:2] == ["python", "seq2seq/train_bart.py"]
    train_bart.main([*bart[2:], "--accelerator", "cpu", "--submit", "print"])
    assert "--devices 2 --strategy ddp" in capsys.readouterr().out
