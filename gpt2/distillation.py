"""Distillation: the prefix learns to predict what a fine-tuned model predicts.

The loss compares the distributions over the next token of student and teacher (``kl``: Hinton et
al. 2015, temperature 1) or their logits, at the positions that predict a target token; the original
compares those of the source and of padding too (``all``). Evaluation keeps the loss of the texts,
so that runs can be compared.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div
from transformers import PreTrainedModel

from gpt2.trainer_prefix import Trainer_Prefix
from harness.models import load_causal_lm
from prefix_tuning.errors import UserError
from prefix_tuning.objectives import IGNORE


def matching_loss(student: Tensor, teacher: Tensor, objective: str) -> Tensor:
    """How far the student is from the teacher, summed over positions.

    Args:
        student, teacher: logits ``[N, V]`` of the same ``N`` positions.
        objective: ``kl``, sum over the vocabulary of ``p_T (log p_T - log p_S)`` in nats; or
            ``logits``, the Euclidean norm of the difference of the logits.

    Returns:
        a scalar, fp32.
    """
    student, teacher = student.float(), teacher.float()
    if objective == "logits":
        return (student - teacher).norm(dim=-1).sum()
    return kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), reduction="sum", log_target=True
    )


def load_teacher(path: str, model: PreTrainedModel) -> PreTrainedModel:
    """Load a fine-tuned model, frozen and in eval mode.

    Args:
        path: its folder.
        model: the student's model, whose vocabulary it must have.

    Raises:
        UserError: it cannot be had, or has another vocabulary.
    """
    try:
        teacher = load_causal_lm(path, str(model.dtype).removeprefix("torch."))
    except UserError as error:
        message = str(error).replace("--model_name_or_path", "--finetuned_model_path")
        raise UserError(message) from error
    rows, wanted = (m.get_output_embeddings().weight.shape[0] for m in (teacher, model))
    if rows != wanted:
        raise UserError(
            f"--finetuned_model_path {path} predicts {rows:,} tokens, the model of the prefix "
            f"{wanted:,}: give a run of --tuning_mode finetune with the same base model and the "
            "same --pad_row"
        )
    return teacher.requires_grad_(False)


class Trainer_Distill(Trainer_Prefix):
    """Optimise a prefix to predict as a teacher does.

    Args:
        teacher: frozen, in eval mode.
        matching_objective: one of :data:`gpt2.tuning.prefix.MATCHING_OBJECTIVES`.
        positions: one of :data:`gpt2.tuning.prefix.POSITIONS`.
    """

    graphable = False

    def __init__(
        self,
        *,
        teacher: PreTrainedModel,
        matching_objective: str = "kl",
        positions: str = "target",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.teacher = nn.Module.to(teacher, self.args.device)
        self.matching_objective = matching_objective
        self.positions = positions

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """The matching loss, averaged over the batch; while evaluating, the loss of the texts."""
        if not model.training:
            return super().batch_loss(model, inputs)
        ids, labels = inputs["input_ids"], inputs["labels"]
        student = model(input_ids=ids, gpt2_model=self.model_gpt2).logits
        with torch.no_grad():
            teacher = self.teacher(input_ids=ids, use_cache=False).logits
        compared = torch.ones_like(labels, dtype=torch.bool)
        if self.positions == "target":  # a position predicts the token behind it
            compared[:, :-1] = labels[:, 1:] != IGNORE
            compared[:, -1] = False
        loss = matching_loss(student[compared], teacher[compared], self.matching_objective)
        return loss / len(ids)
