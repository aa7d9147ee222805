"""Train prompts (or a head, or everything) for a task of language understanding.

A run folder ends up with the checkpoint that is best on the evaluation set (``best/``; the last one
if nothing was evaluated), the keys, values and head alone (``export/``), ``best_results.json``,
``all_results.json``, the log (``trainer_state.json``), its picture (``curves.png``) and, with
``--do_predict``, predictions in the benchmark's format. A run that was interrupted goes on when the
command is given again.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from transformers import set_seed
from transformers.utils import logging as library_logging

from harness import report
from harness.folder import last_complete_checkpoint
from prefix_tuning.errors import UserError, run_command
from prefix_tuning.files import read_json_object, write_json
from ptuning_v2.arguments import Arguments, RunArguments, get_args
from ptuning_v2.model import checkpoint
from ptuning_v2.tasks.base import TaskData
from ptuning_v2.tasks.families import FAMILIES
from ptuning_v2.training.trainer_base import BEST, BaseTrainer

SETTINGS = "run_settings.json"
"""What must not change when a run is resumed."""
AGAIN = "to train it again add --overwrite_output_dir"


def main(argv: Sequence[str] | None = None) -> None:
    """Train, evaluate and predict, as far as ``argv`` says."""
    library_logging.set_verbosity_error()
    args = get_args(argv)
    model_args, data_args, run_args, _ = args
    output_dir = Path(run_args.output_dir)
    _check(args)
    settings = _settings(args)
    resume_from = _find_run(run_args, settings, output_dir) if run_args.do_train else None
    if run_args.do_train and _is_finished(run_args, output_dir):
        print(f"{output_dir} is trained already; {AGAIN}")
        run_args.do_train = False
        model_args.prefix_checkpoint = str(output_dir / BEST)
    _configure(run_args, output_dir)
    set_seed(run_args.seed)
    trainer, data = FAMILIES[data_args.task_name](args)
    if run_args.do_train:
        if resume_from is None:
            _start_run(output_dir, settings)
        _train(trainer, output_dir, resume_from)
    if run_args.do_eval:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)
    if run_args.do_predict:
        _predict(trainer, data, output_dir)


def _check(args: Arguments) -> None:
    """Refuse what only shows once the parts meet."""
    model_args, _, run_args, _ = args
    prompted = model_args.prefix or model_args.prompt
    if prompted and not (run_args.do_train or model_args.prefix_checkpoint):
        raise UserError("these prompts are not trained: add --do_train or --prefix_checkpoint")
    if run_args.load_best_model_at_end:
        raise UserError("--load_best_model_at_end: leave it out, the best epoch is kept anyway")


def _settings(args: Arguments) -> dict[str, Any]:
    model_args, data_args, run_args, _ = args
    of_run = (
        "per_device_train_batch_size gradient_accumulation_steps learning_rate weight_decay "
        "num_train_epochs max_steps warmup_steps max_grad_norm seed"
    )
    of_model = (
        "model_name_or_path prefix prompt pre_seq_len prefix_projection prefix_hidden_size "
        "hidden_dropout_prob shift_positions freeze_backbone prefix_checkpoint"
    )
    of_data = "task_name dataset_name max_seq_length max_train_samples train_size template_id"
    names = ((run_args, of_run), (model_args, of_model), (data_args, of_data))
    settings = {name: getattr(owner, name) for owner, text in names for name in text.split()}
    return settings | {"lr_scheduler_type": str(run_args.lr_scheduler_type)}


def _find_run(run_args: RunArguments, settings: dict[str, Any], output_dir: Path) -> Path | None:
    """The checkpoint to go on from, None to start from the beginning.

    Raises:
        UserError: there is something in ``output_dir`` that this run is not the continuation of.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output_dir {output_dir} is a file: name a folder")
    asked = run_args.resume_from_checkpoint
    if run_args.overwrite_output_dir or not output_dir.is_dir() or not any(output_dir.iterdir()):
        if asked:
            raise UserError(
                f"--resume_from_checkpoint {asked}: --output_dir {output_dir} holds no run to go "
                "on with, or is to be overwritten; --prefix_checkpoint starts a new one from it"
            )
        return None
    if not (output_dir / SETTINGS).is_file():
        raise UserError(
            f"--output_dir {output_dir} is not empty and holds no run: name another folder, or "
            "add --overwrite_output_dir"
        )
    before = read_json_object(output_dir / SETTINGS)
    for name, value in settings.items():
        if before.get(name) != value:
            raise UserError(
                f"{output_dir} was started with --{name} {before.get(name)}, now it is {value}: "
                f"use the old value; {AGAIN}"
            )
    if asked and not Path(asked, "trainer_state.json").is_file():
        raise UserError(f"--resume_from_checkpoint {asked} holds no complete checkpoint")
    return Path(asked) if asked else last_complete_checkpoint(output_dir)


def _is_finished(run_args: RunArguments, output_dir: Path) -> bool:
    return (output_dir / "best_results.json").is_file() and not run_args.overwrite_output_dir


def _configure(run_args: RunArguments, output_dir: Path) -> None:
    if run_args.report_to == ["tensorboard"]:
        os.environ["TENSORBOARD_LOGGING_DIR"] = run_args.logging_dir or str(output_dir / "runs")
    run_args.dataloader_pin_memory = run_args.n_gpu > 0
    if run_args.n_gpu > 1:
        print("several GPUs seen: using the first; start with torchrun to use all")
        run_args._n_gpu = 1


def _start_run(output_dir: Path, settings: dict[str, Any]) -> None:
    """Make the folder, without what a new run would take for its own."""
    output_dir.mkdir(parents=True, exist_ok=True)
    for name in ("best_results.json", "all_results.json", "curves.png"):
        (output_dir / name).unlink(missing_ok=True)
    for folder in [*output_dir.glob("checkpoint-*"), output_dir / BEST, output_dir / "export"]:
        shutil.rmtree(folder, ignore_errors=True)
    write_json(output_dir / SETTINGS, settings)


def _train(trainer: BaseTrainer, output_dir: Path, resume_from: Path | None) -> None:
    """Train; leave the best weights in the model, or the last where nothing was evaluated."""
    if resume_from:
        print(f"going on from {resume_from}", flush=True)
    result = trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    report.draw_loss(trainer.state.log_history, output_dir / "curves.png", trainer.test_key)
    if (output_dir / BEST).is_dir():
        checkpoint.load(output_dir / BEST, trainer.model)
    else:
        trainer.save_model(str(output_dir / BEST))
    if trainer.is_world_process_zero():
        checkpoint.export(output_dir / "export", trainer.model, trainer.meta)
    trainer.log_best_metrics()


def _predict(trainer: BaseTrainer, data: TaskData, output_dir: Path) -> None:
    for split, examples in data.predict_datasets.items():
        output = trainer.predict(examples, metric_key_prefix=split)
        trainer.log_metrics(split, output.metrics)
        trainer.save_metrics(split, output.metrics)
        if trainer.is_world_process_zero():
            path = data.write_predictions(output_dir, split, output.predictions)
            print(f"predictions of {split}: {path}")


if __name__ == "__main__":
    run_command(main)
