"""Checkpoints that are complete or not, as folders and as files."""

from __future__ import annotations

import json
import os
import stat
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
    said = f"is damaged ({Path('deep', 'b.pt')})" if is_folder else "is damaged"
    assert manifest.fault(path) == said
    first = manifest.set_aside(path)
    assert (first.name, path.exists()) == ("set-aside-last", False)
    assert (manifest.fault(first) or "").startswith("is damaged") or not is_folder
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(b"1")
    assert manifest.set_aside(path).name == "set-aside-2-last"


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"files": {}, "run": "a"}', '{"files": {"a": 5}, "run": "a"}'),
        '{"files": {"a": {"size": 1e999, "sha256": "a"}}, "run": "a"}',
    ],
)
def test_a_damaged_manifest(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    assert manifest.fault(tmp_path) == "is damaged (manifest.json)"


def test_all_of_a_checkpoint_is_on_the_disk_before_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contents and names, those of the manifest last; others of the user's group may read them."""
    path, done = tmp_path / "checkpoint-1", list[str]()
    (path / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (path / name).write_bytes(b"1")
        (path / name).chmod(0o600)
    synced = os.fsync

    def fsync(descriptor: int) -> None:
        done.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(f"{tmp_path}/"))
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    before = os.umask(0o022)
    try:
        manifest.seal(path, "me", 1)
    finally:
        os.umask(before)
    first = ["checkpoint-1", *(f"checkpoint-1/{name}" for name in ("a", "deep", "deep/b"))]
    assert sorted(done[:4]) == first
    assert done[4:] == ["checkpoint-1/manifest.json.tmp", "checkpoint-1"]
    assert {stat.S_IMODE((path / name).stat().st_mode) for name in ("a", "deep/b")} == {0o644}
