"""Question answering: which model, and which loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptuning_v2.arguments import Arguments
from ptuning_v2.tasks.qa.dataset import SQuAD, Windows
from ptuning_v2.training.build import build_trainer, load_base
from ptuning_v2.training.trainer_qa import QuestionAnsweringTrainer


def get_trainer(args: Arguments) -> tuple[QuestionAnsweringTrainer, SQuAD]:
    """The trainer of a run, and its data; every evaluation writes its answers."""
    config, tokenizer = load_base(args)
    data = SQuAD(tokenizer, args[1], args[2], args[3])

    def answer(examples: Windows, logits: Any) -> dict[str, float]:
        answers = data.predict(examples, logits)
        answers.write(Path(args[2].output_dir))
        return data.score(examples, answers)

    more = {"post_process_function": answer}
    return build_trainer(args, config, data, QuestionAnsweringTrainer, **more), data
