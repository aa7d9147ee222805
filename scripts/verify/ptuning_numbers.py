"""P-tuning v2: logits, losses and gradients of every family, task and kind of prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import CONFIG_MAPPING, AutoModel

from prefix_tuning.shape import PrefixShape
from ptuning_v2.model.heads import TaskType
from ptuning_v2.model.prefix_encoder import PrefixEncoder
from ptuning_v2.model.prompted_encoder import PromptedEncoder
from scripts.verify.cases import Case, difference, gradients
from scripts.verify.checks import Difference

TASKS = {
    "sequence": TaskType.SEQUENCE_CLASSIFICATION,
    "token": TaskType.TOKEN_CLASSIFICATION,
    "question_answering": TaskType.QUESTION_ANSWERING,
    "multiple_choice": TaskType.MULTIPLE_CHOICE,
}


def model_of(case: Case) -> PromptedEncoder:
    """The encoder of a case with its prompts and head, in eval mode."""
    settings, tuning = dict(case.about["config"]), case.about["tuning"]
    config = CONFIG_MAPPING[settings.pop("model_type")](**settings)
    length, task = tuning["pre_seq_len"], TASKS[case.about["task"]]
    prompts: Any = nn.Embedding(length, config.hidden_size)
    if case.about["method"] == "deep_prefix":
        prompts = PrefixEncoder(
            PrefixShape.from_config(config),
            length,
            dropout=config.hidden_dropout_prob,
            projection=tuning["prefix_projection"],
            hidden_size=tuning["prefix_hidden_size"] or 512,
        )
    backbone = AutoModel.from_config(config)
    backbone.load_state_dict(case.part("base."), strict=task.pools)
    n_label = tuning["num_labels"] or 1
    model = PromptedEncoder(backbone, task, n_label, prompts, convolve_padding=True)
    if model.load_state_dict(case.part("trainable."), strict=False).unexpected_keys:
        raise ValueError("the case trains parameters that the model does not have")
    return model.eval()


def numbers(case: Case) -> Iterator[Difference]:
    """Logits where tokens are real, the loss, and the gradients of all that is trained."""
    model, bound = model_of(case), case.tolerance
    output = model(**case.part("in."))
    real = case.tensors["in.attention_mask"].bool()
    for name in ("logits", "start_logits", "end_logits"):
        if f"out.{name}" in case.tensors:
            found, expected = getattr(output, name), case.tensors[f"out.{name}"]
            per_token = found.shape[:2] == real.shape and case.about["task"] != "multiple_choice"
            where = real if per_token else None
            yield difference(name.replace("_", " "), found, expected, bound["logits"], where)
    yield Difference("loss", abs(output.loss.item() - case.about["loss"]), bound["loss"])
    output.loss.backward()
    found_gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    yield gradients(found_gradients, case.part("grad."), bound["grad"], "gradients")
