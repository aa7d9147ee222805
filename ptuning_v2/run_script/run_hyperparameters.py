"""Run a row of ``experiments/tables/ptuning_*.yaml``, the original's hyper-parameters, by its name.

    python ptuning_v2/run_script/run_hyperparameters.py rte_roberta --seed 44

Flags behind the name go to ``run.py`` and override the row. Without a name, the rows are listed.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prefix_tuning.errors import UserError, run_command
from ptuning_v2 import run

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "tables"
ALWAYS = ["--do_train", "--do_eval", "--eval_strategy", "epoch"]


def read_rows() -> dict[str, dict[str, Any]]:
    """Name -> flags, with the folder of the original's script."""
    rows = {}
    for path in sorted(FOLDER.glob("ptuning_*.yaml")):
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
        for row in table["rows"]:
            name, flags = row["name"], table["common"] | row["flags"]
            flags["output_dir"] = f"checkpoints/{flags['dataset_name']}-{name.rpartition('_')[2]}"
            rows[name] = flags
    return rows


def command_of(name: str, overrides: Sequence[str] = ()) -> list[str]:
    """The arguments of ``run.py`` for a row.

    Raises:
        UserError: there is no such row.
    """
    rows = read_rows()
    if name not in rows:
        raise UserError(f"{name!r} is no row of {FOLDER}/ptuning_*.yaml: use {', '.join(rows)}")
    command = list(ALWAYS)
    for flag, value in rows[name].items():
        command += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
    return [*command, *overrides]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the row that ``argv`` names, or list all."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or arguments[0].startswith("-"):
        for name, row in read_rows().items():
            print(f"{name:18} {row['model_name_or_path']}")
        return
    command = command_of(arguments[0], arguments[1:])
    print("python ptuning_v2/run.py", shlex.join(command), flush=True)
    run.main(command)


if __name__ == "__main__":
    run_command(main)
