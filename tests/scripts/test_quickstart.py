"""The quick start's own steps, on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefix_tuning.errors import UserError
from scripts import quickstart


def test_from_nothing_to_a_score(
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)  # a machine without Java
    arguments = ["--model_name_or_path", str(tiny_folder), "--output_dir", str(tmp_path)]
    arguments += ["--steps", "3", "--inputs", "5", "--preseqlen", "2"]
    quickstart.main(arguments)
    output = capsys.readouterr().out
    assert "METEOR: needs Java" in output
    assert "== Result (5 inputs" in output
    assert output.count("without  ") == 5
    assert "with prefix" in output
    assert (tmp_path / "loss.png").is_file()
    for path in tmp_path.rglob("*.made_by.json"):
        path.write_text("{}")  # as if the texts were of other steps
    quickstart.main(arguments)  # safe to run twice
    output = capsys.readouterr().out
    assert "is trained already" in output
    assert "these go to" not in output  # for those that are shown are of this run


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no src1_train\.txt"):
        quickstart.main(["--data_dir", str(tmp_path)])
