"""What has to be quick imports nothing heavy: the help of every command, scores, downloads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

FOLDERS = (
    "prefix_tuning gpt2 seq2seq ptuning_v2 evaluation experiments scripts data benchmarks".split()
)
HEAVY = "torch transformers pytorch_lightning datasets scipy sklearn nltk matplotlib".split()


def commands() -> list[Path]:
    """All files that can be started."""
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return [p.relative_to(ROOT) for p in files if 'if __name__ == "__main__"' in p.read_text()]


@pytest.fixture(scope="module")
def helps() -> list[dict[str, object]]:
    """What each command does with ``--help``."""
    asked = [str(path) for path in commands()]
    done = subprocess.run(
        [sys.executable, "tests/help_of_all.py", *asked], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["path"] for answer in answers] == asked, done.stderr
    return answers


def test_every_command_has_help(helps: list[dict[str, object]]) -> None:
    assert len(helps) > 25
    silent = [h["path"] for h in helps if h["status"] not in (0, None) or not h["length"]]
    assert silent == []


def test_the_usage_of_a_command_fits_on_a_screen(helps: list[dict[str, object]]) -> None:
    assert {h["path"]: h["usage"] for h in helps if h["usage"] > 20} == {}  # type: ignore


def test_every_flag_says_what_it_does(helps: list[dict[str, object]]) -> None:
    assert {h["path"]: h["unexplained"] for h in helps if h["unexplained"]} == {}
    assert [h["path"] for h in helps if h["none"]] == []


MAIN = ["gpt2/train_e2e.py", "gpt2/run_language_modeling.py", "gpt2/gen.py"]
MAIN += ["gpt2/run_generation.py", "seq2seq/train_bart.py", "seq2seq/finetune.py"]
MAIN += ["ptuning_v2/run.py"]


def test_help_begins_with_examples_whose_flags_it_lists(helps: list[dict[str, object]]) -> None:
    of = {str(answer["path"]): answer for answer in helps}
    for path in MAIN:
        examples = " ".join(of[path]["examples"])  # type: ignore
        assert examples.split()[:2] == ["python", path]
        assert {*re.findall(r"--\w+", examples)} <= {*of[path]["flags"], "--prompt"}  # type: ignore


def test_help_imports_nothing_heavy(helps: list[dict[str, object]]) -> None:
    slow = {h["path"]: h["imported"] for h in helps if {*HEAVY} & {*h["imported"]}}  # type: ignore
    assert slow == {}


@pytest.mark.parametrize(
    "statement",
    [
        "import prefix_tuning.errors, prefix_tuning.files",
        "import evaluation.e2e, evaluation.webnlg, evaluation.dart, evaluation.scorers",
        "import data.download.download_data",
        "import experiments.spec, experiments.table",
    ],
)
def test_imports_that_cost_no_torch(statement: str) -> None:
    code = f"import sys; {statement}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {*HEAVY} & {*done.stdout.split()}
