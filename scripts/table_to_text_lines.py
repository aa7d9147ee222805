"""Turn E2E, WebNLG or DART files into folders that ``seq2seq/`` reads.

    python scripts/table_to_text_lines.py data2text --out data/e2e

--train gives a line for every pair. --val and --test give a line for every input, with its first
reference as target; all its references are in ``<split>.references``, in groups separated by a
blank line, as ``python -m evaluation.e2e`` takes them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gpt2.records import group_by_source
from gpt2.tasks import TASKS, read_records
from prefix_tuning.errors import run_command
from seq2seq.files import Record, write_splits

SPLITS = {"train": "train", "val": "valid", "test": "test"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "mode", choices=["data2text", "webnlg", "triples"], help="whose format the files have"
    )
    for split in SPLITS:
        text = "file (default: where the original's repository keeps it)"
        parser.add_argument(f"--{split}", type=Path, metavar="FILE", help=text)
    parser.add_argument("--out", type=Path, required=True, help="folder, which must not exist")
    return parser


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    splits, references = {}, {}
    for split, file_split in SPLITS.items():
        path = getattr(args, split) or TASKS[args.mode].files[file_split]
        records = read_records(args.mode, path, training=split == "train")
        if split != "train":
            records = group_by_source(records)
            groups = ["".join(f"{_one_line(text)}\n" for text in r.targets) for r in records]
            references[f"{split}.references"] = "\n".join(groups)
        splits[split] = [
            Record(_one_line(r.source), _one_line(target), r.where)
            for r in records
            for target in (r.targets if split == "train" else r.targets[:1])
        ]
    write_splits(args.out, splits, references)
    counts = ", ".join(f"{len(records):,} {split}" for split, records in splits.items())
    print(f"{args.out}: {counts}")


if __name__ == "__main__":
    run_command(main)
