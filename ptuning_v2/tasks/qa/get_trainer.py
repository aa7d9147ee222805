"""Question answering: which model, and which loop."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ptuning_v2.arguments import Arguments
from ptuning_v2.tasks.base import Outputs
from ptuning_v2.tasks.qa.dataset import SQuAD, Windows
from ptuning_v2.training.build import build_trainer, load_base
from ptuning_v2.training.trainer_qa import QuestionAnsweringTrainer


def get_trainer(args: Arguments) -> tuple[QuestionAnsweringTrainer, SQuAD]:
    """The trainer of a run, and its data; every evaluation writes its answers."""
    _, data_args, training_args, qa_args = args
    config, tokenizer = load_base(args)
    data = SQuAD(tokenizer, data_args, training_args, qa_args).load()

    def answer(examples: Windows, logits: Outputs, folder: Path) -> dict[str, float]:
        answers = data.predict(examples, logits)
        answers.write(folder)
        return data.score(examples, answers)

    make = partial(QuestionAnsweringTrainer, post_process_function=answer)
    return build_trainer(args, config, data, make), data
