"""Train prompts (or a head, or everything) for a task of language understanding.

A run folder ends up with the checkpoint that is best on the evaluation set (``best/``; the last one
if nothing was evaluated), the keys, values and head alone (``export/``), ``best_results.json``,
``all_results.json``, the log (``trainer_state.json``), its picture (``curves.png``) and, with
``--do_predict``, predictions in the benchmark's format. A run that was interrupted goes on when the
command is given again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prefix_tuning.errors import run_command
from ptuning_v2.arguments import Arguments, get_args


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, and do what it says."""
    run(get_args(argv))


def run(args: Arguments) -> None:
    """Train, evaluate and predict, as far as ``args`` says."""
    from ptuning_v2.training import session  # torch and transformers: not for --help

    session.run(args)


if __name__ == "__main__":
    run_command(main)
