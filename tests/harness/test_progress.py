"""What a run shows: few lines in a log, a bar on a terminal."""

from __future__ import annotations

import io

import pytest

from harness import progress
from harness.decode import show_decoding
from harness.progress import Shown, TrainingShown, show_scores, through


def test_a_log_has_the_first_some_twenty_and_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Shown("decoded", 1003, done=3)
    for done in range(4, 1004):
        shown.at(done)
    shown.close()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["4/1003", "50/1003", "100/1003"]
    assert lines[-1] == "decoded 1003/1003  0:00 left"
    assert len(lines) == 22


def test_several_at_once_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Shown("decoded", 60, to_stderr=True)
    for done in (32, 32, 60):
        shown.at(done)
    said = capsys.readouterr()
    assert [line.split()[1] for line in said.err.splitlines()] == ["32/60", "60/60"]
    assert said.out == ""


def test_a_single_text_has_no_line_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    show_decoding(1).at(1)
    show_decoding(2).at(2)
    assert capsys.readouterr().err == "decoded 2/2  0:00 left\n"


def test_what_is_often_and_short_shows_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("harness.progress.time.monotonic", lambda: now)
    shown = Shown("evaluated batches", 4, patience=10.0)
    for done, now in enumerate((3.0, 12.0, 13.0, 24.0), 1):  # noqa: B007
        shown.at(done)
    said = capsys.readouterr().out.splitlines()
    assert said == ["evaluated batches 2/4  0:12 left", "evaluated batches 4/4  0:00 left"]


def test_what_takes_long_has_lines_in_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(0, 1000, 3))  # the clock is looked at twice an item or so
    monkeypatch.setattr("harness.progress.time.monotonic", lambda: float(next(times)))
    assert [*through(range(40), "fitted steps")] == [*range(40)]
    said = capsys.readouterr()
    assert said.out == ""
    assert 2 <= len(said.err.splitlines()) <= 20
    assert said.err.startswith("fitted steps ")


def test_a_terminal_has_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", terminal)
    training = TrainingShown(200, 100)
    for step in range(101, 201):
        training.at(step, lambda: "2.50", lambda: 2.5)
    training.end()
    assert "200/200" in terminal.getvalue()
    assert "loss 2.50" in terminal.getvalue()
    assert capsys.readouterr().out.startswith("note: the loss did not fall (2.5 at first")


def test_scores_are_shown_without_their_costs(capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"loss": 0.51234, "accuracy": 75.0, "runtime": 3.0, "samples_per_second": 9.1}
    show_scores(40, scores)
    assert capsys.readouterr().out == "evaluation at step 40  loss 0.5123  accuracy 75\n"


def test_durations() -> None:
    assert [progress.duration(s) for s in (0.4, 75, 3675)] == ["0:00", "1:15", "1:01:15"]
