"""A tiny BART for trying things out: random weights, and a vocabulary of the words of a data set.

    python scripts/tiny_bart.py DATA_DIR OUT

writes a model folder as ``--model_name_or_path`` takes it. It knows nothing until it is fine-tuned.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from prefix_tuning.errors import UserError, run_command


def main(argv: Sequence[str] | None = None) -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data_dir", help="train.source and train.target, whose words it knows")
    parser.add_argument("out", type=Path, help="model folder to write")
    args = parser.parse_args(argv)
    if args.out.is_file():
        raise UserError(f"{args.out} is a file: name a folder to write")
    from experiments.toy_models import word_bart

    word_bart(args.data_dir, args.out)


if __name__ == "__main__":
    run_command(main)
