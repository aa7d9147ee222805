"""The quick start's own steps, on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT

from gpt2.tasks import read_records
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
    quickstart.main(arguments)  # safe to run twice
    assert "is trained already" in capsys.readouterr().out


def test_inputs_are_spread_over_the_file(tmp_path: Path) -> None:
    source = ROOT / "data/restaurants/src1_valid.txt"
    every, first, picked = quickstart.pick_inputs(source, 10, tmp_path)
    assert len(picked) == 10
    assert len({record.source for record in picked}) == 10
    assert len(read_records("data2text", first, training=True)) == 10
    n_target = sum(len(record.targets) for record in picked)
    assert len(read_records("data2text", every, training=True)) == n_target
    lines = source.read_text("utf-8").splitlines()
    assert set(every.read_text("utf-8").splitlines()) <= set(lines)


def test_rouge_l_by_hand() -> None:
    """The longest common subsequence of 3 words: F1 of 3/4 and 3/5."""
    score = quickstart.rouge_l([["a b x c", "z"]], ["a b c y w"])
    assert score == pytest.approx(2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5))


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no src1_train\.txt"):
        quickstart.main(["--data_dir", str(tmp_path)])
