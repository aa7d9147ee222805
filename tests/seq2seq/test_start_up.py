"""Help is quick: nothing heavy is imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT

CODE = """
import sys
from seq2seq import finetune, train_bart
try:
    {}.main(["--help"])
except SystemExit:
    print(*sys.modules)
"""


@pytest.mark.parametrize("name", ["finetune", "train_bart"])
def test_help_imports_neither_torch_nor_transformers(name: str) -> None:
    command = [sys.executable, "-c", CODE.format(name)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--preseqlen" in shown
    loaded = set(shown.split("\n")[-2].split())
    assert "seq2seq.arguments" in loaded
    assert not {"torch", "transformers", "pytorch_lightning", "numpy"} & loaded
