"""Write the random subsets of a data file that low-data runs train on.

    python scripts/sample_lowdata_e2e.py --seeds 0 1 2 3 4 --sizes 50 100 200 500

Training does not need them: ``train_e2e.py --notes lowdata_SEED_SIZE`` draws the same pairs itself.
They are for looking at, and for other programs. A subset of SIZE pairs is written as
``lowdata_<seed>_<size>_train.txt``, with 30 % of that from the development file as
``lowdata_<seed>_<size>_valid.txt``; a share of PERCENT as ``datalevels_<seed>_<percent>_...``, with
the same share of the development file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpt2.readers import Record
from gpt2.records import development_size, sample_pairs
from gpt2.tasks import TASKS, read_records
from prefix_tuning.errors import UserError, run_command

FILES = TASKS["data2text"].files


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2, 3, 4],
        help="seeds, each of which draws a subset",
    )
    add("--sizes", type=int, nargs="*", default=[], help="subsets of these numbers of pairs")
    add(
        "--percents",
        type=int,
        nargs="*",
        default=[],
        help="subsets of these percentages of the file",
    )
    add("--train_file", type=Path, default=FILES["train"], help="SOURCE||TARGET lines to draw from")
    add(
        "--eval_file",
        type=Path,
        default=FILES["valid"],
        help="SOURCE||TARGET lines of the development set",
    )
    add("--output_dir", type=Path, help="folder to write (default: that of the training file)")
    return parser


def write_subset(path: Path, records: Sequence[Record]) -> None:
    """Write ``SOURCE||TARGET`` lines."""
    lines = [f"{record.source}||{record.targets[0]}\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Write the files that ``argv`` asks for."""
    args = _parser().parse_args(argv)
    if not args.sizes and not args.percents:
        raise UserError("nothing to write: give --sizes or --percents")
    train = read_records("data2text", args.train_file, training=True)
    valid = read_records("data2text", args.eval_file, training=True)
    folder = args.output_dir or args.train_file.parent
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [("lowdata", size, f"{size}") for size in args.sizes]
    kinds += [("datalevels", percent, f"{percent}%") for percent in args.percents]
    for seed in args.seeds:
        for kind, number, size in kinds:
            stem = f"{kind}_{seed}_{number}"
            write_subset(folder / f"{stem}_train.txt", sample_pairs(train, size, seed))
            subset = sample_pairs(valid, development_size(size), seed)
            write_subset(folder / f"{stem}_valid.txt", subset)
            print(folder / f"{stem}_train.txt", f"{stem}_valid.txt")


if __name__ == "__main__":
    run_command(main)
