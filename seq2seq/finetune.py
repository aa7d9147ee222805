"""Train a prefix in front of BART (or fine-tune all of it) to summarise, and decode a test set.

``train_bart.py`` builds the command line of this script; it can also be called directly:

    python seq2seq/finetune.py --do_train --do_predict --model_name_or_path facebook/bart-large \\
        --data_dir data/xsum --output_dir xsum_models/prefix --preseqlen 200 --mid_dim 800

A run folder ends up with what was trained last (``model.safetensors``, ``config.json``,
``export/``), the same of the best validation (``checkpoint-curr_best/``), ``metrics.json`` (all
validations), ``log_history.json`` and ``loss.png`` (the losses). Whatever stops a run, the same
command goes on with it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prefix_tuning.errors import run_command
from seq2seq import arguments
from seq2seq.arguments import Arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, then train and decode as it says."""
    run(arguments.parse(argv))


def run(args: Arguments) -> None:
    """Train, then decode, as the flags say."""
    from seq2seq import training  # torch and Lightning: not for --help

    training.run(args)


def __getattr__(name: str) -> Any:
    """The original's modules, which are defined where their loss is."""
    if name == "MODULES" or name.endswith("Module"):
        from seq2seq import modules

        return getattr(modules, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    run_command(main)
