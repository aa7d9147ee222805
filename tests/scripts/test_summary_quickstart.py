"""The quick start of BART, in a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefix_tuning.errors import UserError
from scripts import summary_quickstart, tiny_bart


def test_from_nothing_to_two_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--output_dir", str(tmp_path), "--base_steps", "2", "--steps", "2"]
    arguments += ["--preseqlen", "2", "--inputs", "4"]
    summary_quickstart.main(arguments)
    output = capsys.readouterr().out
    assert "== Result (4 articles" in output
    assert "without prefix" in output
    assert "with prefix" in output
    assert (tmp_path / "loss.png").is_file()
    summary_quickstart.main([*arguments, "--inputs", "3"])  # safe to run twice
    output = capsys.readouterr().out
    assert output.count("is trained already") == 2
    assert "== Result (3 articles" in output
    assert len((tmp_path / "base" / "test_beam_0.8").read_text("utf-8").splitlines()) == 3


def test_copies_are_sentences_of_the_articles(tmp_path: Path) -> None:
    summary_quickstart.make_data(tmp_path)
    articles = (tmp_path / "who" / "train.source").read_text("utf-8").splitlines()
    folder = tmp_path / "who-and-copies"
    sources = (folder / "train.source").read_text("utf-8").splitlines()
    targets = (folder / "train.target").read_text("utf-8").splitlines()
    assert sources[: len(articles)] == articles
    assert sources[len(articles) :] == targets[len(articles) :]
    for article, copy in zip(articles, sources[len(articles) :], strict=True):
        assert copy in article


def test_a_model_is_not_written_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "base").write_text("precious")
    with pytest.raises(UserError, match="base is a file: name a folder"):
        tiny_bart.main([str(tmp_path), str(tmp_path / "base")])
