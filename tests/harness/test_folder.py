"""Run folders: new, going on, finished, refused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import manifest
from harness.folder import FINISHED, NEW, RunFolder, State, trainer_checkpoints
from prefix_tuning.errors import UserError

SETTINGS = {"seed": 42, "init": None, "sites": ["self"]}


def folder(path: Path, **changes: Any) -> RunFolder:
    given: dict[str, Any] = {
        "settings": SETTINGS,
        "finished": "done.json",
        "leftovers": ("checkpoint-*", "best", "loss.png"),
    }
    return RunFolder(path, **{**given, **changes})


def checkpoint(run: Path, step: int, complete: bool = True) -> Path:
    path = run / f"checkpoint-{step}"
    path.mkdir(parents=True)
    text = json.dumps({"global_step": step})
    (path / "trainer_state.json").write_text(text, encoding="utf-8")
    if complete:
        manifest.seal(path, folder(run).identity(), step)
    return path


def test_a_run_from_its_start_to_its_end(tmp_path: Path) -> None:
    run = folder(tmp_path / "of all runs" / "m")
    assert run.state() == NEW
    assert not run.path.exists()  # looking changes nothing
    run.create()
    assert json.loads((run.path / "run_settings.json").read_text("utf-8")) == SETTINGS
    assert run.state() == NEW  # killed before its first checkpoint
    for step in (9, 10):
        checkpoint(run.path, step)
    checkpoint(run.path, 11, complete=False)
    cut_off = (run.path / "checkpoint-11", "lacks optimizer.pt")
    assert run.state() == State("resume", run.path / "checkpoint-10", (cut_off,))
    assert folder(run.path, resume_from="auto").state() == run.state()
    (run.path / "done.json").touch()
    assert run.state() == FINISHED
    assert folder(run.path, overwrite=True).state() == NEW


def test_tuples_are_the_lists_that_json_makes_of_them(tmp_path: Path) -> None:
    run = folder(tmp_path, settings={"sites": ("self", "encoder")})
    run.create()
    assert run.state() == NEW


def test_a_setting_that_an_older_version_did_not_record_is_no_difference(tmp_path: Path) -> None:
    folder(tmp_path).create()
    checkpoint(tmp_path, 1)
    later = {**SETTINGS, "teacher": "new in this version"}
    assert folder(tmp_path, settings=later).state().kind == "resume"
    with pytest.raises(UserError, match="was started with --init None, now it is text"):
        folder(tmp_path, settings={**later, "init": "text"}).state()


def test_a_start_that_was_killed_is_new(tmp_path: Path) -> None:
    (tmp_path / "runs" / "deeper").mkdir(parents=True)
    (tmp_path / "run_settings.json.tmp").write_text("{", encoding="utf-8")
    assert folder(tmp_path).state() == NEW
    (tmp_path / "runs" / "events").touch()
    with pytest.raises(UserError, match="is not empty and holds no run"):
        folder(tmp_path).state()


def test_a_new_run_takes_nothing_of_an_old_one(tmp_path: Path) -> None:
    checkpoint(tmp_path, 4, complete=False)
    (tmp_path / "best" / "export").mkdir(parents=True)
    for name in ("done.json", "loss.png", "thesis.tex"):
        (tmp_path / name).touch()
    run = folder(tmp_path, overwrite=True)
    assert run.state() == NEW
    run.create()
    assert {p.name for p in tmp_path.iterdir()} == {"run_settings.json", "thesis.tex"}


def test_one_names_the_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "m"
    with pytest.raises(UserError, match="holds no run to go on with"):
        folder(run, resume_from=str(tmp_path / "checkpoint-3")).state()
    assert folder(run, resume_from="auto").state() == NEW
    folder(run).create()
    early, _ = checkpoint(run, 3), checkpoint(run, 6)
    assert folder(run, resume_from=str(early)).state() == State("resume", early)
    with pytest.raises(UserError, match="holds no complete checkpoint"):
        folder(run, resume_from=str(run / "checkpoint-5")).state()
    with pytest.raises(UserError, match="exclude each other"):
        folder(run, resume_from="auto", overwrite=True).state()


def test_damaged_settings_and_files_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run_settings.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(UserError, match=r"run_settings\.json holds no JSON object"):
        folder(tmp_path).state()
    for name in ("data_sha256", "base_model"):
        text = json.dumps({**SETTINGS, name: None})
        (tmp_path / "run_settings.json").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=rf"run_settings\.json: {name} is damaged: copy the"):
            folder(tmp_path).state()
    with pytest.raises(UserError, match="is a file"):
        folder(tmp_path / "run_settings.json").state()


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for step in (9, 100, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-11").touch()
    (tmp_path / "checkpoint-x").mkdir()
    names = [path.name for path in trainer_checkpoints(tmp_path)]
    assert names == ["checkpoint-100", "checkpoint-10", "checkpoint-9"]
    assert trainer_checkpoints(tmp_path / "nowhere") == []


def test_data_are_known_by_their_content(tmp_path: Path) -> None:
    file, parts = tmp_path / "train.txt", tmp_path / "parts"
    file.write_text("a", encoding="utf-8")
    parts.mkdir()
    (parts / "1.txt").write_text("b", encoding="utf-8")

    def started(file: Path, parts: Path) -> RunFolder:
        settings = {**SETTINGS, "train": str(file)}
        return folder(tmp_path / "m", settings=settings, data={"train": file, "parts": parts})

    started(file, parts).create()
    elsewhere = file.rename(tmp_path / "moved.txt")
    assert started(elsewhere, parts).state() == NEW
    for changed in (elsewhere, parts / "1.txt"):
        before = changed.read_text(encoding="utf-8")
        changed.write_text("c", encoding="utf-8")
        with pytest.raises(UserError, match=r"other data: the content of .*has changed"):
            started(elsewhere, parts).state()
        changed.write_text(before, encoding="utf-8")
    with pytest.raises(UserError, match=r"was started with --train .*train\.txt, now it is .*gone"):
        started(tmp_path / "gone", parts).state()


def test_a_run_whose_checkpoints_were_all_set_aside_starts_again_only_when_asked(
    tmp_path: Path,
) -> None:
    run = folder(tmp_path / "m")
    with run.held() as state:
        assert state == NEW
        run.create()
    with run.held() as state:  # killed before its first checkpoint
        assert state == NEW
    manifest.set_aside(checkpoint(run.path, 4))
    with pytest.raises(UserError, match="no checkpoint but set-aside-checkpoint-4"), run.held():
        pass
    with folder(run.path, overwrite=True).held() as state:
        assert state == NEW


def test_a_folder_that_was_there_stays_after_a_mistake(tmp_path: Path) -> None:
    for name in ("mine", "new"):
        run = folder(tmp_path / name)
        if name == "mine":
            run.path.mkdir()
        with pytest.raises(UserError, match="a line of the data"), run.held():
            raise UserError("a line of the data")
        assert run.path.is_dir() == (name == "mine")
        assert not (run.path / "run_settings.json").exists()


def test_a_run_that_ended_while_another_waited_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def waiting(path: Path) -> Iterator[None]:
        folder(path).create()
        (path / "done.json").touch()
        yield

    monkeypatch.setattr("harness.folder.locked", waiting)
    with folder(tmp_path).held() as state:
        assert state == FINISHED
