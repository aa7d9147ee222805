"""``docs/faithfulness.md``: its flags exist, in the commands and with the defaults it says."""

from __future__ import annotations

import re
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from transformers import TrainingArguments

from gpt2 import arguments as gpt2
from gpt2.decode_request import DecodeRequest
from gpt2.launch_flags import DEFAULTS, LaunchFlags
from ptuning_v2 import arguments as ptuning
from seq2seq.arguments import Arguments
from seq2seq.train_bart import LaunchArguments

PAGE = (ROOT / "docs" / "faithfulness.md").read_text(encoding="utf-8")
FLAG = re.compile(r"`--(\w+)(?: ([^`]+))?`")
GPT2 = [LaunchFlags, DecodeRequest, gpt2.ModelArguments, gpt2.DataArguments, gpt2.RunFlags]
CLASSES: dict[str, list[Any]] = {
    "GPT-2": [*GPT2, *gpt2.mode_classes(), TrainingArguments],
    "BART": [LaunchArguments, Arguments],
    "P-tuning v2": [ptuning.ModelArguments, ptuning.DataTrainingArguments, ptuning.RunFlags],
}


def sections() -> dict[str, list[list[str]]]:
    """Section -> the cells of its rows, without the head."""
    found = {}
    for text in PAGE.split("\n## ")[1:]:
        lines = [line for line in text.splitlines() if line.startswith("| ")]
        rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in lines]
        found[text.split("\n")[0].split(" (")[0]] = [[c.strip() for c in row] for row in rows[1:]]
    return found


def flags_of(section: str) -> dict[str, list[Field[Any]]]:
    found: dict[str, list[Field[Any]]] = {}
    for cls in CLASSES[section]:
        for field in fields(cls):
            found.setdefault(field.name, []).append(field)
    return found


def same(default: Any, value: str) -> bool:
    if isinstance(default, int | float) and not isinstance(default, bool):
        return float(default) == float(value)
    return str(default) == value


@pytest.mark.parametrize("section", CLASSES)
def test_flags_exist_and_have_the_defaults_and_values_that_the_page_says(section: str) -> None:
    known, seen = flags_of(section), 0
    for what, _, ours, other, _cost in sections()[section]:
        for name, value in FLAG.findall(ours):
            defaults = [field.default for field in known[name]]
            if section == "GPT-2" and name in DEFAULTS:
                defaults.append(DEFAULTS[name])
            assert not value or any(same(default, value) for default in defaults), (what, name)
            seen += 1
        for name, value in FLAG.findall(other):
            choices = [field.metadata.get("choices") for field in known[name]]
            assert not value or any(not c or value in c for c in choices), (what, name, value)
            assert not all(same(field.default, value) for field in known[name]), (what, name)
            seen += 1
    assert seen > 5


def test_flags_of_the_scorers_exist() -> None:
    for row in sections()["Scores"]:
        for name, _ in FLAG.findall(" ".join(row)):
            sources = [
                path.read_text(encoding="utf-8") for path in (ROOT / "evaluation").glob("*.py")
            ]
            assert any(f'"--{name}"' in source for source in sources), name


def test_rows_are_whole_and_links_lead_somewhere() -> None:
    assert {*CLASSES, "Scores", "What to expect"} == {*sections()}
    for name, rows in sections().items():
        assert all(len(row) == 5 and all(row) for row in rows), name
    for link in re.findall(r"\]\(([\w./]+)\)", PAGE):
        assert (ROOT / "docs" / Path(link)).is_file(), link
