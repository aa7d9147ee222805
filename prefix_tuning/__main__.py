"""``python -m prefix_tuning``: the commands there are, with one line each.

Those of the package are there wherever it is installed; the others are those of a checkout.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from prefix_tuning.errors import UserError, run_command

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = {
    "export": ("prefix_tuning.export", "a trained prefix for PEFT, transformers or mlx-lm"),
    "serve": ("prefix_tuning.serve", "many prefixes on one model behind an HTTP service"),
}
"""Command -> module and what it does."""
CHECKOUT = {
    "train": ("gpt2/train_e2e.py", "train a prefix to write texts, on your own file or E2E"),
    "write": ("gpt2/gen.py", "write texts with a run: RUN --prompt TEXT, or a data file"),
    "train-summary": ("seq2seq/train_bart.py", "train a prefix of BART to summarise"),
    "write-summary": ("seq2seq/predict.py", "summarise with a run"),
    "train-labels": ("ptuning_v2/run.py", "P-tuning v2: classify, tag, answer questions"),
    "quickstart": ("scripts/quickstart.py", "from nothing to text and a score in minutes"),
    "score": ("evaluation/e2e.py", "official scores of texts; evaluation/ has the others"),
    "reproduce": ("experiments/reproduce.py", "the papers' tables, run and shown"),
    "download": ("data/download/download_data.py", "data sets of the papers"),
}
"""Command -> file of a checkout and what it does."""


def listing() -> str:
    """The commands, a line each."""
    rows = {name: what for name, (_, what) in PACKAGE.items()}
    rows |= {name: what for name, (file, what) in CHECKOUT.items() if (ROOT / file).is_file()}
    lines = [f"  {name:14} {what}" for name, what in rows.items()]
    return "\n".join(
        ["usage: python -m prefix_tuning COMMAND ... (COMMAND --help says more)", *lines]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command, or list them.

    Raises:
        UserError: there is no such command here.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(listing())
        return
    name, rest = words[0], words[1:]
    if name in PACKAGE:
        module = PACKAGE[name][0]
        sys.argv = [f"python -m {module}", *rest]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    if name not in CHECKOUT:
        raise UserError(f"{name}: there is no such command; python -m prefix_tuning lists them")
    file = ROOT / CHECKOUT[name][0]
    if not file.is_file():
        raise UserError(f"{name} needs a checkout of the project, and this is the package alone")
    sys.argv = [str(file), *rest]
    sys.path.insert(0, str(ROOT))
    runpy.run_path(str(file), run_name="__main__")


def script() -> None:
    """The console script."""
    run_command(main)


if __name__ == "__main__":
    script()
