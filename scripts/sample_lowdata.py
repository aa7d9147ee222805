"""Low-data samples (section 6.3 of the paper) of a summarisation data set.

    python scripts/sample_lowdata.py data/xsum --size 50 100 200 500 --seed 101 22 8 \\
        --out data/lowdata_xsum --max_test 1500

writes a folder ``<name>_<size>_<seed>`` for every size and seed: ``size`` training examples and
30 % as many to validate. --max_test adds a random part of the test set, the same to all of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tqdm import tqdm

from harness.own_data import Columns
from harness.ranges import COUNT, SEED
from prefix_tuning.errors import UserError, run_command
from scripts.sampling import random_subset, sample_low_data
from seq2seq.files import write_splits


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("data", help="folder with train and val, or the name of a data set of the hub")
    add("--config", help="configuration of the hub's data set")
    add("--source_column", help="column of the sources (default: guessed)")
    add("--target_column", help="column of the targets (default: guessed)")
    add("--size", type=int, nargs="+", default=[50, 100, 200, 500], help="training examples")
    add("--seed", type=int, nargs="+", default=[101, 22, 8], help="a sample of each size per seed")
    add("--max_test", type=int, help="number of test examples to add, drawn with seed 0")
    add("--out", type=Path, required=True, help="the folders are written into this one")
    add("--name", help="first part of their names (default: that of the data)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    name = args.name or Path(args.data).resolve().name
    if Path(args.data).is_file():
        raise UserError(f"{args.data} is one file: give a folder with a train and a val split")
    COUNT.check("max_test", args.max_test)
    for seed in args.seed:
        SEED.check("seed", seed)
    folders = {
        (size, seed): args.out / f"{name}_{size}_{seed}" for size in args.size for seed in args.seed
    }
    for folder in folders.values():
        if folder.exists():
            raise UserError(f"{folder} exists already: remove it or give another --out")
    from seq2seq.data import read_split  # torch: not for --help

    columns = Columns(args.source_column, args.target_column)
    wanted = ["train", "val", *(["test"] if args.max_test is not None else [])]
    full = {
        split: read_split(args.data, split, split != "test", columns, args.config)
        for split in tqdm(wanted, "reading", disable=None)
    }
    tests = {}
    if args.max_test is not None:
        tests["test"] = random_subset(full["test"], args.max_test, seed=0)
    # All are drawn before the first is written: a size that is too large leaves nothing behind.
    samples = {key: sample_low_data(full["train"], full["val"], *key) for key in folders}
    for key, folder in tqdm(folders.items(), "writing", disable=None):
        train, val = samples[key]
        write_splits(folder, {"train": train, "val": val, **tests})
    print(f"{len(folders)} folders in {args.out}")


if __name__ == "__main__":
    run_command(main)
