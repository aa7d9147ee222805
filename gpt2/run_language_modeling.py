"""Train a prefix, or a baseline (``gpt2/tuning/``), to write texts.

``train_e2e.py`` builds the command line of this script; it can also be called directly. A run
folder ends up with the trained prefix as a checkpoint (``model.safetensors``, ``config.json``), its
export (``export/``), the best evaluation (``<run>-checkpoint-<step>/``), ``train_results.json``
(time, memory, trained parameters), ``log_history.json``, ``eval_results_lm.txt`` and ``loss.png``.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpt2 import gen, run_generation
from gpt2.decode_request import DecodeOptions
from gpt2.train_request import TrainRequest, parse
from harness.processes import is_first
from prefix_tuning.errors import run_command


def main(argv: Sequence[str] | None = None) -> None:
    """Train as ``argv`` says, then evaluate and decode."""
    run(parse(argv))


def run(request: TrainRequest) -> None:
    """Train as requested, then evaluate and decode."""
    from gpt2.training import train

    finish(request, train(request))


def finish(request: TrainRequest, folder: Path) -> None:
    """Decode what was trained, and say where it is."""
    if not is_first():  # the others are done
        return
    if request.data.generate == "yes":
        decode_run(request, folder)
    print(f"trained: {folder}")
    print(f'next:    python gpt2/gen.py {shlex.quote(str(folder))} --prompt "..."')


def decode_run(request: TrainRequest, folder: Path) -> None:
    """Decode the evaluation and test files of a run."""
    from gpt2.generator import TextGenerator
    from gpt2.keep_best import best_checkpoints
    from gpt2.training import HELD_OUT

    model, data = request.model, request.data
    folders, evaluated = [folder], data.eval_data_file
    if data.eval_fraction:
        evaluated = str(folder / HELD_OUT)
    if "earlystop" in folder.name:  # the original's word for: the best evaluation as well
        folders += best_checkpoints(folder)
    base = None if request.tuning.keeps_base else model.model_name_or_path
    for trained in folders:
        generator = None
        for split, path in (("valid", evaluated), ("test", data.test_data_file)):
            if path is None:
                continue
            args = gen.GenArguments(
                data.task_mode, "yes", split, str(trained), "no", base, data.results_dir
            )
            options = DecodeOptions(
                data_file=path,
                dtype=model.dtype,
                activation=model.activation,
                no_score=data.score == "no",
                overwrite_results=request.run.overwrite_output_dir,
                cache_dir=model.cache_dir,
                empty_sources=data.empty_sources,
                source_column=None if path.endswith(HELD_OUT) else data.source_column,
                target_column=None if path.endswith(HELD_OUT) else data.target_column,
            )
            wanted = gen.request_of(args, options)
            generator = generator or TextGenerator.load(wanted)
            run_generation.decode(wanted, generator)


if __name__ == "__main__":
    run_command(main)
