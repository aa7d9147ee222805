"""P-tuning v2 in a few minutes: a frozen encoder judges reviews, with and without a prefix."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.small_models import find_minilm
from harness.flags import ShowDefaults
from prefix_tuning.errors import UserError, run_command

KINDS = {"head alone": "freeze_backbone", "prefix and head": "prefix"}
"""What is trained -> the flag that says so."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    add = parser.add_argument
    add("--data_dir", type=Path, default=ROOT / "data" / "reviews", help="train.tsv, dev.tsv")
    add("--output_dir", type=Path, default=ROOT / "ptuning_quickstart", help="everything goes here")
    add("--model_name_or_path", help="encoder (default: MiniLM from a PyPI package)")
    add("--pre_seq_len", type=int, default=16, help="prefix length")
    add("--epochs", type=int, default=15, help="passes over the training reviews")
    return parser


def read_predictions(path: Path) -> list[int]:
    """The classes in a file of the benchmark's format."""
    return [int(line.split("\t")[1]) for line in path.read_text(encoding="utf-8").split("\n")[1:-1]]


def main(argv: Sequence[str] | None = None) -> None:
    """Train twice, and compare."""
    args = _parser().parse_args(argv)
    start = time.monotonic()
    for name in ("train.tsv", "dev.tsv"):
        if not (args.data_dir / name).is_file():
            raise UserError(f"--data_dir {args.data_dir} holds no {name}")
    from ptuning_v2.arguments import get_args
    from ptuning_v2.run import run
    from ptuning_v2.tasks.glue.dataset import read_glue

    base = args.model_name_or_path or find_minilm()
    common: dict[str, object] = {"task_name": "glue", "dataset_name": "sst2"}
    common |= {"model_name_or_path": base, "data_dir": args.data_dir}
    common |= {"pad_to_max_length": False, "learning_rate": 1e-2}
    common |= {"per_device_train_batch_size": 16, "num_train_epochs": args.epochs}
    common |= {"eval_strategy": "epoch", "predict_split": "validation", "seed": 11}
    common |= {"do_train": True, "do_eval": True, "do_predict": True}
    common["per_device_eval_batch_size"] = 50

    scores, predictions = {}, {}
    for kind, flag in KINDS.items():
        print(f"\n== Training {kind}", flush=True)
        folder = args.output_dir / f"{kind.replace(' ', '-')}-{args.pre_seq_len}-{args.epochs}"
        slots = {"pre_seq_len": args.pre_seq_len} if flag == "prefix" else {}
        run(get_args([], {**common, **slots, flag: True, "output_dir": folder}))
        results = json.loads((folder / "best_results.json").read_text(encoding="utf-8"))
        scores[kind] = results["best_eval_accuracy"]
        predictions[kind] = read_predictions(folder / "SST-2.tsv")

    rows = read_glue("sst2", args.data_dir / "dev.tsv")
    print(f"\n== Result ({len(rows)} unseen reviews, {time.monotonic() - start:.0f} seconds)\n")
    judged = zip(rows, *predictions.values(), strict=True)
    turned = [(row, prefix) for row, head, prefix in judged if head != prefix == row.label]
    print("judged right only with the prefix, for example:")
    for row, label in turned[:5]:
        print(f"  {'good' if label else 'bad':4}  {row.pairs[0][0]}")
    print()
    for kind, score in scores.items():
        print(f"{kind:>16}  accuracy {100 * score:.1f} %")
    print(f"\nThe prefix, its head and its curves: {folder}")


if __name__ == "__main__":
    run_command(main)
