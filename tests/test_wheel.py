"""What a user of the library installs: one import name, and three packages beside it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of a copy of the project was installed, without a network."""
    pytest.importorskip("setuptools")
    work = tmp_path_factory.mktemp("wheel")
    source, wheels, target = (work / name for name in ("source", "wheels", "target"))
    source.mkdir()
    tracked = subprocess.run(["git", "ls-files", "*.py", "*.typed"], cwd=ROOT, capture_output=True)
    names = tracked.stdout.decode().split()
    files = [Path(name) for name in names] or [p.relative_to(ROOT) for p in ROOT.rglob("*.py")]
    for path in [*files, Path("pyproject.toml"), Path("README.md"), Path("LICENSE")]:
        if (ROOT / path).is_file():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, source / path)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir"]
    build = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    done = subprocess.run([*build, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [wheel] = wheels.iterdir()
    install = [*pip, "install", "-q", "--no-deps", "--no-index", "--target", str(target)]
    done = subprocess.run([*install, str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_one_import_name(installed: Path) -> None:
    names = {path.name for path in installed.iterdir()}
    mine = {name for name in names if not name.endswith(".dist-info")}
    assert mine == {"prefix_tuning", "bin"}
    assert [path.name for path in (installed / "bin").iterdir()] == ["prefix-tuning"]
    assert len(names) == 3  # the third describes the package
    assert (installed / "prefix_tuning" / "py.typed").is_file()


def test_it_is_imported_from_elsewhere(installed: Path, tmp_path: Path) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import prefix_tuning, prefix_tuning.errors, prefix_tuning.files
print(prefix_tuning.__file__)
assert "torch" not in sys.modules
from prefix_tuning import MLPPrefix, enable_prefix
ours = {"harness", "evaluation", "data", "gpt2", "seq2seq", "ptuning_v2", "experiments"}
assert not ours & {name.split(".")[0] for name in sys.modules}
"""
    command = [sys.executable, "-I", "-c", code, str(installed)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(str(installed))


def test_what_it_needs(installed: Path) -> None:
    [metadata] = installed.glob("*.dist-info/METADATA")
    needed = re.findall(r"^Requires-Dist: ([\w-]+)(.*)$", metadata.read_text("utf-8"), re.M)
    always = {name for name, rest in needed if "extra ==" not in rest}
    assert always == {"torch", "transformers", "safetensors"}


def test_what_is_tested_is_all_that_may_be_installed() -> None:
    """``requirements.txt`` has a version of everything that a checkout needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["research"]
    names = {re.split(r"[=>]", line)[0] for line in wanted}
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert {line.split("==")[0] for line in lines if not line.startswith("#")} == names


def test_the_lock_has_one_version_of_all_that_is_tested() -> None:
    """Several only where Pythons differ; and no place to fetch from."""
    texts = [(ROOT / f"requirements.{kind}").read_text("utf-8") for kind in ("lock", "txt")]
    lock, tested = ([line for line in t.splitlines() if line[:1] != "#"] for t in texts)
    assert set(tested) <= set(lock)
    assert all(re.fullmatch(r"[a-z0-9.-]+==[\w.]+( ; [^/]+)?", line) for line in lock)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {re.split(r"[\[=>]", line)[0] for line in extras["optional-dependencies"]["test"]}
    locked = {line.split("==")[0] for line in lock}
    assert {name.replace("_", "-") for name in wanted} - {"prefix-tuning"} <= locked
