"""The families of tasks: the functions that make their trainers and data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ptuning_v2.arguments import Arguments
from ptuning_v2.tasks.base import TaskData
from ptuning_v2.tasks.glue import get_trainer as glue
from ptuning_v2.tasks.ner import get_trainer as ner
from ptuning_v2.tasks.own import get_trainer as own
from ptuning_v2.tasks.qa import get_trainer as qa
from ptuning_v2.tasks.srl import get_trainer as srl
from ptuning_v2.tasks.superglue import get_trainer as superglue
from ptuning_v2.training.trainer_base import BaseTrainer

GetTrainer = Callable[[Arguments], tuple[BaseTrainer, TaskData[Any, Any]]]
FAMILIES: dict[str, GetTrainer] = {
    "glue": glue.get_trainer,
    "superglue": superglue.get_trainer,
    "ner": ner.get_trainer,
    "srl": srl.get_trainer,
    "qa": qa.get_trainer,
    "classification": own.classification,
    "tagging": own.tagging,
}
"""By ``--task_name``: from the flags of a run to its trainer and its data, loaded."""
