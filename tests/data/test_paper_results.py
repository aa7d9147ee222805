"""The papers' tables: their form, and numbers read off the papers by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

FOLDER = ROOT / "data" / "paper_results"
FILES = sorted(FOLDER.glob("*.json"))
WITHOUT_NUMBERS = {
    "data_levels",
    "initialisation",
    "small_bart",
    "small_ptuning",
    "small_ptuning_ner",
}
ACL, V1 = "ACL 2021, table 2", "arXiv v1"
PAPER = "arXiv 2110.07602"


def read(table: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{table}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_form(path: Path) -> None:
    data = read(path.stem)
    assert set(data) - {"notes"} == {"table", "title", "columns", "entries"}
    assert data["table"] == path.stem
    for column in data["columns"]:
        assert set(column) - {"metric"} == {"name", "higher_is_better", "decimals"}
        assert column["higher_is_better"] in (True, False, None)
    names = [column["name"] for column in data["columns"]]
    assert len(set(names)) == len(names)
    assert bool(data["entries"]) != (path.stem in WITHOUT_NUMBERS)
    assert data["entries"] or data["notes"]
    for entry in data["entries"]:
        assert set(entry) - {"note", "of"} == {"row", "model", "values", "source", "certainty"}
        assert list(entry["values"]) == names
        assert any(value is not None for value in entry["values"].values())
        assert entry["certainty"] in ("confirmed", "from memory")
    rows = {(entry["row"], entry["model"]) for entry in data["entries"] if "of" not in entry}
    assert all((e["of"], e["model"]) in rows for e in data["entries"] if "of" in e)
    keys = [(entry["row"], entry["model"], entry["source"]) for entry in data["entries"]]
    assert len(set(keys)) == len(keys)


def test_readme_names_every_file() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FILES:
        group = "validation_*" if path.stem.startswith("validation") else path.stem
        assert f"`{group}`" in readme


@pytest.mark.parametrize(
    ("table", "row", "model", "source", "values"),
    [
        ("e2e", "prefix 0.1%", "gpt2-medium", ACL, [70.3, 8.82, 46.3, 72.1, 2.46]),
        ("e2e", "prefix 0.1%", "gpt2-medium", V1, [69.7, 8.81, 46.1, 71.4, 2.49]),
        ("e2e", "fine-tuning", "gpt2-medium", ACL, [68.8, 8.71, 46.1, 71.1, 2.43]),
        ("e2e", "prefix 0.1%", "gpt2-large", ACL, [70.3, 8.85, 46.2, 71.7, 2.47]),
        ("e2e", "adapter 0.1%", "gpt2-medium", ACL, [66.3, 8.41, 45.0, 69.8, 2.40]),
        (
            "webnlg",
            "prefix 0.1%",
            "gpt2-medium",
            ACL,
            [62.9, 45.3, 55.0, 0.44, 0.37, 0.41, 0.35, 0.51, 0.42],
        ),
        ("dart", "prefix 0.1%", "gpt2-medium", ACL, [46.4, 0.38, 0.46, 0.50, 0.94, 0.39]),
        ("xsum", "prefix 2%", "bart-large", "ACL 2021", [43.80, 20.93, 36.05]),
        (
            "extrapolation",
            "prefix",
            "bart-large",
            "ACL 2021",
            [39.23, 16.74, 31.51, 39.41, 16.87, 31.47],
        ),
        (
            "recipes",
            "LoRA",
            "gpt2-medium",
            "LoRA (Hu et al., arXiv 2106.09685), table 3",
            [70.4, 8.85, 46.8, 71.8, 2.53],
        ),
        ("ablations", "EMB-20", "gpt2-medium", "ACL 2021", [61.9, 7.11, 39.3, 65.6, 1.85]),
        ("ablations", "INFIX-1", "gpt2-medium", "ACL 2021", [67.9, 8.63, 45.8, 69.4, 2.42]),
        ("validation_dart", "prefix 0.1%", "gpt2-medium", "ACL 2021, table 9", [51.11]),
        (
            "ptuning_superglue",
            "P-tuning v2",
            "roberta-large",
            PAPER,
            [84.8, 100, 93.0, 82.5, 89.3, 89.5, 73.4, 63.5],
        ),
        ("ptuning_ner", "P-tuning v2", "bert-large", PAPER, [90.2, 86.4, 84.5]),
        ("ptuning_qa", "P-tuning v2", "roberta-large", PAPER, [88.5, 94.4, 82.1, 85.5]),
        ("ptuning_srl", "fine-tuning", "deberta-xlarge", PAPER, [86.5, 91.2, 86.9]),
        (
            "ptuning_readme",
            "SQuAD 2.0",
            "roberta-large",
            "README of THUDM/P-tuning-v2",
            [84.7, 81.3, 9],
        ),
    ],
)
def test_values(table: str, row: str, model: str, source: str, values: list[float]) -> None:
    entries = read(table)["entries"]
    [entry] = [e for e in entries if (e["row"], e["model"], e["source"]) == (row, model, source)]
    assert list(entry["values"].values()) == values


def test_what_was_not_read_in_the_source_is_marked() -> None:
    for path in FILES:
        for entry in read(path.stem)["entries"]:
            unsure = entry["source"] in (PAPER, "He et al. 2022")
            assert entry["certainty"] == ("from memory" if unsure else "confirmed")


def test_both_versions_of_the_paper_have_the_same_rows() -> None:
    for table in ("e2e", "webnlg", "dart"):
        entries = read(table)["entries"]
        rows = {s: [(e["row"], e["model"]) for e in entries if e["source"] == s] for s in (ACL, V1)}
        assert rows[ACL] == rows[V1]
