"""Run a row of ``experiments/tables/ptuning_*.yaml``, the original's hyper-parameters, by its name.

    python scripts/run_hyperparameters.py rte_roberta --seed 44

Flags behind the name go to ``ptuning_v2/run.py`` and override the row. Without a name, the rows are
listed.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments import spec
from harness.flags import command
from prefix_tuning.errors import UserError, run_command
from ptuning_v2 import run
from ptuning_v2.arguments import Arguments, get_args

ALWAYS = {"do_train": True, "do_eval": True, "eval_strategy": "epoch"}


def read_rows() -> dict[str, spec.Flags]:
    """Name -> flags, with the folder of the original's script."""
    rows = {}
    for table in (name for name in spec.names() if name.startswith("ptuning_")):
        experiment = spec.read(table)
        for row in experiment.rows:
            flags = experiment.common | row.flags
            model = row.name.rpartition("_")[2]
            flags["output_dir"] = f"checkpoints/{flags['dataset_name']}-{model}"
            rows[row.name] = flags
    return rows


def read_row(name: str) -> spec.Flags:
    """The flags of a row.

    Raises:
        UserError: there is no such row.
    """
    rows = read_rows()
    if name not in rows:
        raise UserError(
            f"{name!r} is no row of {spec.FOLDER}/ptuning_*.yaml: use {', '.join(rows)}"
        )
    return rows[name]


def arguments_of(name: str, overrides: Sequence[str] = (), **values: object) -> Arguments:
    """What ``run.py`` is asked for by a row.

    Args:
        overrides: flags of ``run.py``, which go before everything.
        values: by flag, which go before the row.

    Raises:
        UserError: there is no such row, or a flag makes no sense.
    """
    return get_args(overrides, {**ALWAYS, **read_row(name), **values})


def main(argv: Sequence[str] | None = None) -> None:
    """Run the row that ``argv`` names, or list all."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & {*arguments}:
        print(__doc__.strip() if __doc__ else "")
        return
    if not arguments or arguments[0].startswith("-"):
        for name, row in read_rows().items():
            print(f"{name:18} {row['model_name_or_path']}")
        return
    name, *overrides = arguments
    line = [*command({**ALWAYS, **read_row(name)}), *overrides]
    print("python ptuning_v2/run.py", shlex.join(line), flush=True)
    run.run(arguments_of(name, overrides))


if __name__ == "__main__":
    run_command(main)
