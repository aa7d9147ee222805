"""Checkpoints that are complete or not, as folders and as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import manifest


@pytest.mark.parametrize("is_folder", [True, False])
def test_sealed_damaged_and_set_aside(is_folder: bool, tmp_path: Path) -> None:
    path = tmp_path / "last"
    part = path / "deep" / "b.pt" if is_folder else path
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(b"12345")
    assert "lacks" in (manifest.fault(path) or "")
    manifest.seal(path, "me", 7)
    assert manifest.fault(path) is None
    assert manifest.fault(path, "me") is None
    assert manifest.fault(path, "you") == "is of another run"
    content = json.loads(manifest.manifest_of(path).read_text(encoding="utf-8"))
    assert (content["run"], content["step"]) == ("me", 7)
    part.write_bytes(b"12346")
    assert (manifest.fault(path) or "").startswith("is damaged")
    first = manifest.set_aside(path)
    assert (first.name, path.exists()) == ("set-aside-last", False)
    assert (manifest.fault(first) or "").startswith("is damaged") or not is_folder
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(b"1")
    assert manifest.set_aside(path).name == "set-aside-2-last"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": {}, "run": "a"}', '{"files": {"a": 5}, "run": "a"}']
)
def test_a_damaged_manifest(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    assert manifest.fault(tmp_path) == "is damaged (manifest.json)"
