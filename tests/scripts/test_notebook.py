"""The notebook's cells in their order, with a tiny model in the place of the one named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT

from prefix_tuning import KeyValues, enable_prefix, load_prefix

NOTEBOOK = ROOT / "docs" / "own_data.ipynb"


def test_every_cell_runs(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_folder, tmp_path / "base")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert len(cells) == 10
    names: dict[str, Any] = {}
    for cell in cells:
        assert not cell.get("outputs")
        if cell["cell_type"] == "code":
            text = "".join(cell["source"]).replace("HuggingFaceTB/SmolLM2-135M", "base")
            exec(compile(text.replace("STEPS = 200", "STEPS = 3"), str(NOTEBOOK), "exec"), names)
    said = capsys.readouterr().out
    assert "45 to train on, 5 held out" in said
    assert f"{2 * 2 * 10 * 32:,} of" in said  # keys and values, 2 layers, 10 slots, width 32
    ids = torch.tensor([names["dataset"][0]["input_ids"]])
    model = enable_prefix(names["AutoModelForCausalLM"].from_pretrained("base"))
    prefix = KeyValues(load_prefix("my-prefix", model).key_values())
    expected = model(ids, prefix=prefix).logits
    for of_notebook in (names["again"], names["model"].cpu().eval()):
        torch.testing.assert_close(of_notebook(ids).logits, expected)


def test_the_loss_is_on_the_target_alone(tokenizer: Any) -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (text,) = ["".join(c["source"]) for c in cells if "def example" in "".join(c["source"])]
    names: dict[str, Any] = {"tokenizer": tokenizer, "torch": torch, "SEPARATOR": " =>"}
    exec(text[text.index("def example") : text.index("dataset =")], names)
    rows = [names["example"]("pool", "Open."), names["example"]("pool | Monday", "Closed all day.")]
    batch = names["collate"](rows)
    for i, (source, target) in enumerate([("pool", "Open."), ("pool | Monday", "Closed all day.")]):
        labels, ids = batch["labels"][i], batch["input_ids"][i]
        assert tokenizer.decode(labels[labels >= 0]) == f" {target}{tokenizer.eos_token}"
        whole = tokenizer.decode(ids[batch["attention_mask"][i].bool()])
        assert whole == f"{source} => {target}{tokenizer.eos_token}"
