"""What a run does: train, evaluate, predict."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import set_seed
from transformers.utils import logging as library_logging

from harness import graphs, loop, report
from harness.folder import AGAIN, RunFolder
from harness.processes import is_first
from harness.trainer import check_batches, set_up
from prefix_tuning.errors import UserError
from ptuning_v2.arguments import Arguments
from ptuning_v2.identity import data_files, settings
from ptuning_v2.model import checkpoint
from ptuning_v2.model.utils import sizes
from ptuning_v2.tasks.base import TaskData
from ptuning_v2.tasks.families import FAMILIES
from ptuning_v2.training.outputs import add_to_all, drafts, place, write_scores
from ptuning_v2.training.trainer_base import BEST, LEAST_LOSS, BaseTrainer


@dataclass(frozen=True)
class Session:
    """A model in its trainer, and the data, loaded."""

    trainer: BaseTrainer
    data: TaskData[Any, Any]
    folder: Path
    overwrite: bool = False
    """Whether predictions and scores replace others."""
    trained: bool = False
    """Whether it was trained just now: its scores replace those of its earlier epochs."""


def run(args: Arguments) -> None:
    """Train, evaluate and predict, as far as ``args`` says.

    Raises:
        UserError: the folder is another run's, a file is malformed, or a model cannot be had.
    """
    library_logging.set_verbosity_error()
    model_args, do_train = args.model_args, args.training_args.do_train
    prompted = model_args.prefix or model_args.prompt
    if prompted and not (do_train or model_args.prefix_checkpoint):
        raise UserError("these prompts are not trained: add --do_train or --prefix_checkpoint")
    session = train(args) if do_train else load(args)
    if args.training_args.do_eval:
        evaluate(session)
    if args.training_args.do_predict:
        predict(session)
    elif args.data_args.is_own and is_first():
        print(f"to predict: {_next_command(args)}")


def _next_command(args: Arguments) -> str:
    """How to use what a run on one's own data has trained."""
    folder = args.training_args.output_dir
    values = {
        "model_name_or_path": args.model_args.model_name_or_path,
        "task_name": args.data_args.task_name,
        "prefix_checkpoint": f"{folder}/{BEST}",
        "test_file": "FILE",
        "output_dir": f"{folder}/predictions",
    }
    flags = (f"--{name} {shlex.quote(value)}" for name, value in values.items())
    return f"python ptuning_v2/run.py {' '.join(flags)}"


def load(args: Arguments) -> Session:
    """Read the data and the model, which becomes that of ``--prefix_checkpoint``, if any."""
    folder = Path(args.training_args.output_dir)
    set_up(args.training_args, args.training_args.logging_dir or folder / "runs")
    set_seed(args.training_args.seed)
    args = args._replace(model_args=checkpoint.adopted(args.model_args))
    trainer, data = FAMILIES[args.data_args.task_name](args)
    return Session(trainer, data, folder, args.training_args.overwrite_output_dir)


def run_folder(args: Arguments) -> RunFolder:
    """The folder that this training owns."""
    training_args = args.training_args
    return RunFolder(
        Path(training_args.output_dir),
        settings(args),
        finished="best_results.json",
        leftovers=("all_results.json", "curves.png", "checkpoint-*", BEST, LEAST_LOSS, "export"),
        overwrite=training_args.overwrite_output_dir,
        resume_from=training_args.resume_from_checkpoint,
        data=data_files(args),
    )


def train(args: Arguments) -> Session:
    """Train, or go on with it, or load what is trained already.

    The model has the weights of the best epoch, or the last where nothing was evaluated.
    """
    folder = run_folder(args)
    with folder.held() as state:
        if state.kind == "finished":
            print(f"{folder.path} is trained already; {AGAIN}")
            return load(args.of_trained(folder.path / BEST))
        session = load(args)
        folder.check_base(session.trainer.meta["base_model"])
        check_batches(args.training_args, len(session.trainer.train_dataset))  # type: ignore[arg-type]
        # Only now: what was there stays if the data cannot be read.
        if state.kind == "new" and is_first():
            folder.create()
        if state.checkpoint:
            print(f"going on from {state.checkpoint}", flush=True)
        if is_first():
            sizes(session.trainer.trained_model).write(folder.path)
        graphs.use_if_asked(session.trainer, args.training_args.cuda_graphs)
        _train(session.trainer, folder, state.checkpoint)
        return replace(session, trained=True)


def _train(trainer: BaseTrainer, run: RunFolder, resume_from: Path | None) -> None:
    if not run.records_data():  # begun by an older version, which had the first of equal ones
        trainer.ties = None
    folder, result = run.path, loop.train(trainer, run, resume_from)
    trainer.settle()
    trainer.log_metrics("train", result.metrics)
    trainer.save_state()
    if is_first():
        write_scores(folder, "train", result.metrics)
        add_to_all(folder, result.metrics)
        report.draw_loss(trainer.state.log_history, folder / "curves.png", trainer.test_key)
    trainer.accelerator.wait_for_everyone()  # for the best to be written
    if (folder / BEST).is_dir():
        checkpoint.load(folder / BEST, trainer.trained_model)
    else:
        trainer.save_model(str(folder / BEST))
    if trainer.is_world_process_zero():
        checkpoint.export(folder / "export", trainer.trained_model, trainer.meta)
    trainer.log_best_metrics()


def evaluate(session: Session) -> None:
    """Score the development set; the scores go to ``eval_results.json``."""
    trainer = session.trainer
    with drafts(session.folder) as folder:
        trainer.answers_to = folder
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        _keep(session, folder, "eval", metrics, "scores")


def predict(session: Session) -> None:
    """Write predictions, and the scores of the sets that have labels."""
    trainer, data = session.trainer, session.data
    for split, examples in data.predict_datasets.items():
        output = trainer.predict(examples, metric_key_prefix=split)
        metrics = output.metrics or {}
        trainer.log_metrics(split, metrics)
        if is_first():
            with drafts(session.folder) as folder:
                written = data.write_predictions(folder, split, output.predictions)
                kept = _keep(session, folder, split, metrics, "predictions")
            print(f"predictions of {split}: {kept / written.name}", flush=True)


def _keep(
    session: Session, drafted: Path, split: str, metrics: Mapping[str, Any], kind: str
) -> Path:
    """Write the scores of a split and what was drafted; return the folder they are in."""
    folder = session.folder
    if is_first():
        write_scores(drafted, split, metrics)
        overwrite = session.overwrite or (session.trained and kind == "scores")
        folder = place(drafted, session.folder, kind, overwrite)
        if folder == session.folder:
            add_to_all(folder, metrics)
    return folder
