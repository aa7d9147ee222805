"""From nothing to text and a score: train a prefix on restaurants, and show what it changed."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.small_models import find_base_model
from gpt2.readers import Record
from harness.flags import ShowDefaults
from prefix_tuning.errors import UserError, run_command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    add = parser.add_argument
    add("--data_dir", type=Path, default=ROOT / "data" / "restaurants", help="src1_*.txt files")
    add("--output_dir", type=Path, default=ROOT / "quickstart", help="everything is written here")
    add("--model_name_or_path", help="base model (default: gpt2, or SmolLM2-135M without a hub)")
    add("--steps", type=int, default=120, help="training steps of 8 pairs")
    add("--preseqlen", type=int, default=10, help="prefix length")
    add("--inputs", type=int, default=60, help="inputs that are decoded and scored")
    add(
        "--split",
        default="valid",
        choices=["valid", "test"],
        help="split that the inputs are taken from",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train, decode with and without the prefix, and compare."""
    args = _parser().parse_args(argv)
    start = time.monotonic()
    for split in ("train", args.split):
        if not (args.data_dir / f"src1_{split}.txt").is_file():
            raise UserError(f"--data_dir {args.data_dir} holds no src1_{split}.txt")
    from experiments.inputs import pick_inputs
    from gpt2 import gen, run_generation, train_e2e
    from gpt2.decode_request import DecodeOptions, DecodeRequest

    print("== 1. The base model", flush=True)
    base = args.model_name_or_path or find_base_model()
    work = args.output_dir / f"{args.data_dir.resolve().name}-{Path(base).name}"
    every, first, picked = pick_inputs(
        args.data_dir / f"src1_{args.split}.txt", args.inputs, work / "data"
    )
    # Read below by their usual names: texts of other steps or inputs give way.
    options = DecodeOptions(data_file=str(every), dtype="auto", length=60, overwrite_results=True)

    print(f"\n== 2. What {Path(base).name} writes without a prefix", flush=True)
    run_generation.decode(
        DecodeRequest(**vars(options), model_name_or_path=base, gen_dir=str(work / "without"))
    )
    print(f"\n== 3. Training a prefix of {args.preseqlen} vectors a layer", flush=True)
    run = work / f"prefix-{args.preseqlen}-{args.steps}"
    flags: dict[str, object] = {"model_name_or_path": base, "output_dir": run, "dtype": "auto"}
    flags |= {"train_file": args.data_dir / "src1_train.txt", "eval_file": first}
    flags |= {"preseqlen": args.preseqlen, "max_steps": args.steps, "bsz": 8}
    flags |= {"learning_rate": 1e-3, "warmup_steps": 10, "objective_mode": 0}
    flags |= {"length_groups": "yes", "logging_steps": 10, "eval_steps": 60}
    flags |= {"save_steps": 60, "generate": "no"}
    train_e2e.start(*train_e2e.read([], flags))
    print("\n== 4. What it writes with the prefix", flush=True)
    what = gen.GenArguments(
        "data2text",
        "yes",
        args.split,
        str(run / "export"),
        model_name_or_path=base,
        results_dir=str(work / "with"),
    )
    gen.decode(what, options)
    shutil.copyfile(run / "loss.png", args.output_dir / "loss.png")

    print(f"\n== Result ({len(picked)} inputs, {time.monotonic() - start:.0f} seconds)\n")
    stems = {
        "without": work / "without" / f"{Path(base).name}_valid_beam",
        "with": work / "with" / "e2e_results_conv2" / f"export_{args.split}_beam",
    }
    _compare(picked, stems)
    size = (run / "export" / "prefix.safetensors").stat().st_size
    print(f"\nThe prefix: {size / 1e6:.2f} MB in {run / 'export'}")
    print(f"The loss:   {args.output_dir / 'loss.png'}")
    print("Next, the same on real E2E files (src1_train.txt, src1_valid.txt) in a folder:")
    print("  ./scripts/quickstart.sh --data_dir FOLDER")


def _compare(picked: Sequence[Record], stems: Mapping[str, Path]) -> None:
    """Print some of the texts that were decoded without and with the prefix, and both scores."""
    from experiments.inputs import read_outputs, rouge_l

    references = [record.targets for record in picked]
    outputs, rows = {}, []
    for name, stem in stems.items():
        outputs[name], bleu = read_outputs(stem)
        rouge = 100 * rouge_l(references, outputs[name])
        rows.append(f"{name + ' prefix':>16} {bleu:8.1f} {rouge:9.1f}")
    for i in range(0, len(picked), max(1, len(picked) // 5)):
        print(f"input    {picked[i].source}")
        print(f"without  {outputs['without'][i]}")
        print(f"with     {outputs['with'][i]}\n")
    print("\n".join([f"{'':16} {'BLEU':>8} {'ROUGE-L':>9}", *rows]))


if __name__ == "__main__":
    run_command(main)
