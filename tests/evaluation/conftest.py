"""Where the official scorers' own numbers lie, and what to skip without them or without Java."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples at every run.
settings.register_profile("evaluation", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("evaluation")

SHARED = Path(
    os.environ.get("PREFIX_TUNING_SHARED", Path(__file__).resolve().parents[3] / "shared")
)


@pytest.fixture(scope="session")
def shared() -> Path | None:
    """The folder with test sets and official numbers, if it is on this machine."""
    return SHARED if SHARED.is_dir() else None


@pytest.fixture
def data(shared: Path | None) -> Path:
    """Folder of test sets and system outputs."""
    if shared is None:
        pytest.skip("needs the test sets: set PREFIX_TUNING_SHARED")
    return shared / "data"


@pytest.fixture
def vectors(shared: Path | None) -> Callable[[str], dict[str, Any]]:
    """Loads a file of official numbers by name."""
    if shared is None:
        pytest.skip("needs the official numbers: set PREFIX_TUNING_SHARED")
    return lambda name: json.loads((shared / f"vectors/metrics/{name}.json").read_text("utf-8"))


@pytest.fixture
def needs_java() -> None:
    if shutil.which("java") is None:
        pytest.skip("needs Java")
