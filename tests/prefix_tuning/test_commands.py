"""``python -m prefix_tuning`` lists the commands of a checkout and runs them."""

from __future__ import annotations

import sys

import pytest
from conftest import ROOT

from prefix_tuning.__main__ import CHECKOUT, main
from prefix_tuning.errors import UserError


def test_every_command_is_listed_and_there(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    said = capsys.readouterr().out
    for name, (file, what) in CHECKOUT.items():
        assert (ROOT / file).is_file()
        assert f"  {name:14} {what}\n" in said + "\n"
    main(["--help"])
    assert capsys.readouterr().out == said


def test_a_command_gets_its_flags(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    assert ended.value.code == 0
    assert "--train_file" in capsys.readouterr().out
    monkeypatch.setattr("prefix_tuning.__main__.ROOT", ROOT / "nowhere")
    with pytest.raises(UserError, match=r"^train needs a checkout of the project, and this is"):
        main(["train"])
    with pytest.raises(UserError, match="trian: there is no such command"):
        main(["trian"])
