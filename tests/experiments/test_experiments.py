"""The experiments' files against the papers' tables and the launchers' flags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from gpt2 import launch_flags, train_e2e
from gpt2.train_request import parse

FILES = [*sorted((ROOT / "experiments" / "tables").glob("*.yaml"))]
REQUIRED = {"table", "title", "launcher", "scorer", "common", "rows"}
OPTIONAL = {"validation", "seeds", "subsets", "levels", "decoding", "assumed", "figures", "scales"}


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def paper(table: str) -> dict[str, Any]:
    path = ROOT / "data" / "paper_results" / f"{table}.json"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_form_and_rows_of_the_paper(path: Path) -> None:
    data = read(path)
    assert set(data) >= REQUIRED
    assert set(data) <= REQUIRED | OPTIONAL
    assert data["table"] in path.stem
    assert len({row["name"] for row in data["rows"]}) == len(data["rows"])
    for table in (data["table"], data.get("validation", data["table"])):
        columns = [column["name"] for column in paper(table)["columns"]]
        known = {(entry["row"], entry["model"]) for entry in paper(table)["entries"]}
        for row in data["rows"]:
            assert set(row) <= {"name", "paper_row", "flags", "assumed", "seeds", "decoding"}
            if wanted := row.get("paper_row"):
                # The development set of XSum has no row of fine-tuning.
                skip = (table, wanted["row"]) == ("validation_xsum", "fine-tuning")
                # A table without entries is of models that no paper has.
                assert skip or not known or (wanted["row"], wanted["model"]) in known
                assert any(name.startswith(wanted.get("columns", "")) for name in columns)
    for row in data["rows"]:
        assert not row["flags"].keys() & {"seed"} or "seeds" not in data


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_numbers_are_numbers(path: Path) -> None:
    """YAML reads 5e-5 as text and 5.0e-5 as a number, and no as a truth value."""
    data = read(path)
    for row in data["rows"]:
        flags = data["common"] | row["flags"]
        assert isinstance(flags.get("learning_rate", 0.0), float)
        for name, value in flags.items():
            assert not isinstance(value, bool) or name in (
                "prefix",
                "prompt",
                "freeze_backbone",
                "pad_to_max_length",
                "prefix_projection",
                "do_predict",
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_flags_of_gpt2_are_the_launchers(path: Path) -> None:
    data = read(path)
    if data["launcher"] != "gpt2/train_e2e.py":
        pytest.skip("another launcher")
    for row in data["rows"]:
        flags = data["common"] | row["flags"]
        if "notes" in flags:  # a run's, of the first subset and level
            flags["notes"] = flags["notes"].format(subset=0, level=5)
        command = [f"--{name}={value}" for name, value in flags.items()]
        launch, rest = launch_flags.read(command)
        known = {name: value for o in launch.options for name, value in vars(o).items()}
        known |= vars(launch.args)
        if rest:  # the trainer's
            asked = parse([*rest, "--use_cpu"], train_e2e.values_of(launch, Path("run")))
            passed_on = {word.split("=")[0].removeprefix("--") for word in rest}
            found = {**vars(asked.model), **vars(asked.data), **vars(asked.run)}
            known |= {name: found[name] for name in passed_on}
        assert {name: known[name] for name in flags} == flags


@pytest.mark.parametrize(
    ("file", "row", "flags"),
    [  # table 6 of the paper
        ("e2e", "prefix", {"learning_rate": 8e-5, "epoch": 5, "bsz": 10, "preseqlen": 5}),
        ("webnlg", "prefix", {"learning_rate": 5e-5, "epoch": 5, "bsz": 5, "preseqlen": 5}),
        ("dart", "prefix", {"learning_rate": 5e-5, "epoch": 10, "bsz": 5, "preseqlen": 10}),
        ("xsum", "prefix-2", {"learning_rate": 5e-5, "epoch": 30, "bsz": 14, "preseqlen": 100}),
        ("webnlg", "finetune", {"learning_rate": 1e-5, "epoch": 10, "bsz": 6}),
        ("webnlg", "top2", {"learning_rate": 5e-5, "epoch": 10, "bsz": 9}),
        ("dart", "adapter-0.1", {"learning_rate": 8e-5, "epoch": 5, "bsz": 5}),
        ("e2e", "adapter-0.1", {"learning_rate": 8e-5, "epoch": 10, "bsz": 5}),
        ("recipes", "prefix", {"learning_rate": 8e-5, "bsz": 10, "preseqlen": 5}),
        # The command of LoRA's README; its paper's table 11.
        ("recipes", "lora", {"lora_r": 4, "lora_alpha": 32, "lora_dropout": 0.1, "bsz": 8}),
        ("recipes", "lora", {"learning_rate": 2e-4, "weight_decay": 0.01, "warmup_steps": 500}),
        ("recipes", "lora", {"label_smoothing": 0.1, "max_grad_norm": 0}),
        (
            "extrapolation",
            "prefix-news",
            {"learning_rate": 5e-5, "epoch": 30, "bsz": 36, "preseqlen": 80},
        ),
        (
            "extrapolation",
            "prefix-sport",
            {"learning_rate": 5e-5, "epoch": 15, "bsz": 36, "preseqlen": 40},
        ),
    ],
)
def test_published_settings(file: str, row: str, flags: dict[str, Any]) -> None:
    data = read(ROOT / "experiments" / "tables" / f"{file}.yaml")
    [found] = [r for r in data["rows"] if r["name"] == row]
    assert {name: found["flags"][name] for name in flags} == flags
