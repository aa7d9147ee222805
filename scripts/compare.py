"""Tuning modes side by side on a small data set: what each trains, stores, takes and scores.

Every mode is trained by ``gpt2/train_e2e.py`` and decoded by ``gpt2/gen.py``, in processes of their
own, so that the peak memory is its own too. Finished modes are not run again, and an interrupted
one goes on where it was.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.inputs import pick_inputs, read_outputs, rouge_l
from experiments.small_models import find_base_model
from gpt2.readers import Record
from gpt2.tuning.both import MODEL_FOLDER
from gpt2.tuning.lora import check_peft
from harness.flags import ShowDefaults
from harness.ranges import COUNT
from prefix_tuning.errors import UserError, run_command
from prefix_tuning.files import read_json_object, write_json, write_text

MODES = {
    "prefix": "--tuning_mode prefixtune --preseqlen 10 --learning_rate 1e-3",
    "deep": "--tuning_mode prefixtune --preseqlen 10 --deep yes --learning_rate 1e-3",
    "shallow": "--tuning_mode prefixtune --preseqlen 10 --init_shallow yes"
    " --init_shallow_word no --learning_rate 5e-2",
    "infix": "--tuning_mode prefixtune --preseqlen 10 --format_mode infix --learning_rate 1e-3",
    "embedding": "--tuning_mode prefixtune --preseqlen 10 --prefix_mode embedding"
    " --learning_rate 1e-3",
    "finetune": "--tuning_mode finetune --learning_rate 1e-4",
    "finetune-top": "--tuning_mode finetune-top --top_layers 22 --learning_rate 5e-4",
    "adapter": "--tuning_mode adaptertune --adapter_bottleneck 32 --learning_rate 1e-3",
    "lora": "--tuning_mode lora --lora_r 4 --learning_rate 1e-3",
    "bothtune": "--tuning_mode bothtune --preseqlen 10 --learning_rate 1e-4",
}
"""Mode -> flags of ``train_e2e.py``, with a learning rate for runs of tens of steps."""
DEFAULT = "prefix,finetune-top,adapter,lora,embedding,infix"
COLUMNS = {
    "trained": ("trained parameters", "{:,}"),
    "stored_mb": ("stored MB", "{:.2f}"),
    "seconds_per_step": ("s / step", "{:.2f}"),
    "peak_mb": ("peak memory, MB", "{:,.0f}"),
    "bleu": ("BLEU", "{:.1f}"),
    "rouge_l": ("ROUGE-L", "{:.1f}"),
}
Row = dict[str, float | None]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    add = parser.add_argument
    add("--modes", default=DEFAULT, help=f"separated by commas, of {', '.join(MODES)}")
    add("--steps", type=int, default=60, help="training steps of 8 pairs")
    add("--inputs", type=int, default=30, help="inputs that are decoded and scored")
    add("--data_dir", type=Path, default=ROOT / "data" / "restaurants", help="src1_*.txt files")
    add("--output_dir", type=Path, default=ROOT / "comparison", help="everything is written here")
    add("--model_name_or_path", help="base model (default: the quick start's)")
    return parser


def chosen_modes(names: str) -> list[str]:
    """The modes named, in the order given.

    Raises:
        UserError: one does not exist, or cannot run here.
    """
    modes = [name.strip() for name in names.split(",")]
    for mode in modes:
        if mode not in MODES:
            raise UserError(f"--modes {mode}: choose from {', '.join(MODES)}")
    if "lora" in modes:
        check_peft()
    return list(dict.fromkeys(modes))


def _run(script: str, arguments: Sequence[str]) -> None:
    """Run a command of this project; it prints its own mistakes."""
    process = subprocess.run([sys.executable, str(ROOT / "gpt2" / script), *arguments])
    if process.returncode:
        raise UserError(
            f"gpt2/{script} ended with status {process.returncode}, see above; the same command "
            "goes on with what is finished"
        )


def _weights(run: Path) -> tuple[Path, list[Path]]:
    """What decoding takes of a run, and the files that must be kept for it."""
    folder = run / "export" if (run / "export").is_dir() else run
    both = (run / MODEL_FOLDER).glob("*.safetensors")
    return folder, [*folder.glob("*.safetensors"), *both]


def run_mode(
    mode: str, args: argparse.Namespace, base: str, work: Path, files: tuple[Path, Path]
) -> Path:
    """Train and decode, or what is left of it; return the file of the texts."""
    every, first = files
    run = work / f"{mode}-{args.steps}"
    if not (run / "log_history.json").is_file():
        _run(
            "train_e2e.py",
            ["--model_name_or_path", base, "--output_dir", str(run), *MODES[mode].split()]
            + ["--train_file", str(args.data_dir / "src1_train.txt"), "--eval_file", str(first)]
            + ["--max_steps", str(args.steps), "--warmup_steps", str(args.steps // 10)]
            + ["--bsz", "8", "--objective_mode", "0", "--length_groups", "yes"]
            + ["--logging_steps", "10", "--eval_steps", str(args.steps + 1)]
            + ["--save_steps", str(max(1, args.steps // 3)), "--generate", "no"]
            + ["--report_to", "none"],
        )
    folder, _ = _weights(run)
    results = work / f"texts-{args.inputs}" / run.name
    output = results / "e2e_results_conv2" / f"{folder.name}_valid_beam"
    if not output.with_name(output.name + "_eval.json").is_file():
        _run(
            "gen.py",
            ["data2text", "yes", "valid", str(folder), "no", "--data_file", str(every)]
            + ["--results_dir", str(results), "--length", "60", "--overwrite_results"],
        )
    return output


def measure(run: Path, output: Path, records: Sequence[Record]) -> Row:
    """One line of the table."""
    costs = read_json_object(run / "train_results.json")
    texts, bleu = read_outputs(output)
    return {
        "trained": costs["trained_parameters"],
        "stored_mb": sum(path.stat().st_size for path in _weights(run)[1]) / 1e6,
        # None: it was stopped between its last step and its end, and only the end was run again.
        "seconds_per_step": costs["seconds"] / costs["steps"] if costs["steps"] else None,
        "peak_mb": costs["peak_bytes"] / 1e6,
        "bleu": bleu,
        "rouge_l": 100 * rouge_l([record.targets for record in records], texts),
    }


def table(rows: dict[str, Row]) -> str:
    """The rows as Markdown."""
    lines = [["mode", *(title for title, _ in COLUMNS.values())], ["---", *["---:"] * len(COLUMNS)]]
    for mode, row in rows.items():
        values = [(row[name], form) for name, (_, form) in COLUMNS.items()]
        lines.append([mode, *("-" if v is None else form.format(v) for v, form in values)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    texts = []
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        texts.append(f"| {' | '.join(cells)} |\n")
    return "".join(texts)


def draw(rows: dict[str, Row], path: Path) -> None:
    """Both scores over the stored size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, plots = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharex=True)
    for axes, score in zip(plots, ("bleu", "rouge_l"), strict=True):
        for mode, row in rows.items():
            axes.scatter(row["stored_mb"], row[score], color="tab:blue")
            axes.annotate(mode, (row["stored_mb"], row[score]), (4, 4), textcoords="offset points")
        axes.set_xscale("log")
        axes.margins(0.2)
        axes.set_xlabel("stored, MB")
        axes.set_ylabel(COLUMNS[score][0])
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _check_same(work: Path, settings: dict[str, str]) -> None:
    """Refuse a folder of data or a model of the same name that lies elsewhere."""
    path = work / "settings.json"
    before = read_json_object(path) if path.is_file() else settings
    for name, value in settings.items():
        if before.get(name) != value:
            raise UserError(
                f"{work} is of --{name} {before.get(name)}, now it is {value}: give another "
                "--output_dir"
            )
    work.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the modes one after the other and compare them."""
    args = _parser().parse_args(argv)
    modes = chosen_modes(args.modes)
    for name in ("steps", "inputs"):
        COUNT.check(name, getattr(args, name))
    for split in ("train", "valid"):
        if not (args.data_dir / f"src1_{split}.txt").is_file():
            raise UserError(f"--data_dir {args.data_dir} holds no src1_{split}.txt")
    base = args.model_name_or_path
    if base is None:
        # In a process of its own: what it holds at most would count as the children's.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            base = pool.submit(find_base_model).result()
    work = args.output_dir / f"{args.data_dir.resolve().name}-{Path(base).name}"
    _check_same(work, {"data_dir": str(args.data_dir.resolve()), "model_name_or_path": base})
    source = args.data_dir / "src1_valid.txt"
    *files, records = pick_inputs(source, args.inputs, work / f"data-{args.inputs}")
    rows: dict[str, Row] = {}
    for number, mode in enumerate(modes, start=1):
        print(f"\n== {number} of {len(modes)}: {mode} ({MODES[mode]})", flush=True)
        output = run_mode(mode, args, base, work, (files[0], files[1]))
        rows[mode] = measure(work / f"{mode}-{args.steps}", output, records)
    what = f"{Path(base).name}, {args.steps} steps of 8 pairs, {len(records)} inputs"
    text = table(rows)
    write_json(work / "comparison.json", {"what": what, "rows": rows})
    write_text(work / "comparison.md", f"{what}\n\n{text}")
    draw(rows, work / "comparison.png")
    print(f"\n== Result: {what}\n\n{text}\nAlso in {work}: comparison.md, .json, .png")


if __name__ == "__main__":
    run_command(main)
