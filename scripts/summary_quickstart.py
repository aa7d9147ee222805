"""From nothing to summaries of another style: train prefixes in front of a frozen BART.

A toy, and fast: a tiny BART with random weights first learns to summarise village news by telling
*who* did it (fine-tuning, all weights). It is then frozen, and prefixes on its three kinds of
attention learn to tell *when* it happened. ``--model_name_or_path facebook/bart-base`` does the
second part with a real model, where the model hub can be reached.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from data.village_news import generate
from prefix_tuning.errors import run_command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output_dir", type=Path, default=ROOT / "quickstart-bart", help="where all is written")
    add("--model_name_or_path", help="a real BART, instead of making a tiny one")
    add("--base_steps", type=int, default=600, help="steps in which the tiny BART learns `who`")
    add("--steps", type=int, default=700, help="steps in which the prefixes learn `when`")
    add("--preseqlen", type=int, default=10, help="prefix length")
    add("--inputs", type=int, default=200, help="articles of the test set that are decoded")
    return parser


def make_data(folder: Path) -> None:
    """Village news in both styles, and `who` with sentences to copy, which teaches to read."""
    files = generate.generate(seed=0)
    for kind in ("source", "target"):
        lines = files[f"who/train.{kind}"].splitlines()
        for i, article in enumerate(files["who/train.source"].splitlines()):
            sentences = article.split(" . ")
            lines.append(sentences[i % len(sentences)].removesuffix(" .") + " .")
        files[f"who-and-copies/train.{kind}"] = "".join(f"{line}\n" for line in lines)
        files[f"who-and-copies/val.{kind}"] = files[f"who/val.{kind}"]
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


COMMON: dict[str, object] = {"seed": 0, "num_workers": 0, "search": "paper", "logging_steps": 20}
COMMON |= {"eval_min_gen_length": 3, "eval_max_gen_length": 40, "no_repeat_ngram_size": 0}
COMMON |= {"max_source_length": 200}
"""Flags of training and decoding."""
TRAINING = {**COMMON, "mode": "xsum", "bsz": 32, "n_val": 50}


def train(**flags: object) -> None:
    """Launch a training."""
    from seq2seq import train_bart

    train_bart.start(*train_bart.read([], {**TRAINING, **flags}))


def train_base(work: Path, steps: int) -> str:
    """Make the tiny BART and teach it `who`; return its folder."""
    from experiments.toy_models import word_bart

    base, run = work / "tiny-bart", work / "base"
    if not (base / "config.json").is_file():
        word_bart(work / "data" / "when", base)
    train(
        tuning_mode="finetune",
        model_name_or_path=base,
        data_dir=work / "data" / "who-and-copies",
        output_dir=run,
        max_steps=steps,
        learning_rate=2e-3,
    )
    return str(run)


def decode(data: Path, output: Path, **flags: object) -> tuple[list[str], dict[str, float]]:
    """Decode the test set; return texts and scores."""
    from seq2seq import arguments, finetune

    own: dict[str, object] = {"data_dir": data, "output_dir": output.parent, "do_predict": True}
    own["overwrite_results"] = True  # read below by their usual name
    finetune.run(arguments.parse([], {**COMMON, **own, **flags}))
    scores = json.loads(output.with_name(output.name + "_eval.json").read_text("utf-8"))
    return output.read_text("utf-8").splitlines(), scores["scores"]


def main(argv: Sequence[str] | None = None) -> None:
    """Make a base model, train prefixes, and compare."""
    args = _parser().parse_args(argv)
    start, work = time.monotonic(), args.output_dir
    make_data(work / "data")
    data = work / "data" / "when"
    print("== 1. The base model", flush=True)
    base = args.model_name_or_path or train_base(work, args.base_steps)

    print(f"\n== 2. Prefixes of {args.preseqlen} vectors on three attentions", flush=True)
    run = work / f"prefix-{args.preseqlen}-{args.steps}"
    train(
        model_name_or_path=base,
        data_dir=data,
        output_dir=run,
        preseqlen=args.preseqlen,
        max_steps=args.steps,
        learning_rate=3e-3,
    )
    print("\n== 3. The test set without and with the prefixes", flush=True)
    name = "test_beam_0.8"
    is_local = Path(base).is_dir()
    without = Path(base) / name if is_local else work / "without" / name
    export = run / "checkpoint-curr_best" / "export"
    frozen = {"tuning_mode": "finetune", "model_name_or_path": base}
    results = {
        "without": decode(data, without, limit=args.inputs, **frozen),
        "with": decode(data, export / name, limit=args.inputs, prefixModel_name_or_path=export),
    }
    shutil.copyfile(run / "loss.png", work / "loss.png")

    sources = (data / "test.source").read_text("utf-8").splitlines()[: args.inputs]
    print(f"\n== Result ({len(sources)} articles, {time.monotonic() - start:.0f} seconds)\n")
    for i in range(0, len(sources), max(1, len(sources) // 4)):
        print(f"article  {sources[i]}")
        for way, (texts, _) in results.items():
            print(f"{way:8} {texts[i]}")
        print()
    print(f"{'':16} ROUGE-1  ROUGE-2  ROUGE-L")
    for way, (_, scores) in results.items():
        columns = "".join(f"{scores[k]:9.1f}" for k in ("rouge1", "rouge2", "rougeL"))
        print(f"{way + ' prefix':>14} {columns}")
    size = (export / "prefix.safetensors").stat().st_size
    print(f"\nThe prefixes: {size / 1e6:.2f} MB in {export}")
    print(f"The loss:     {work / 'loss.png'}")


if __name__ == "__main__":
    run_command(main)
