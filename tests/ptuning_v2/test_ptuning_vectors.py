"""The original's logits, losses and gradients, for every family, task and kind of prompt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import load_vectors, part, vector_cases
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModel

from prefix_tuning.shape import PrefixShape
from ptuning_v2.model.heads import TaskType
from ptuning_v2.model.prefix_encoder import PrefixEncoder
from ptuning_v2.model.prompted_encoder import PromptedEncoder

TASKS = {
    "sequence": TaskType.SEQUENCE_CLASSIFICATION,
    "token": TaskType.TOKEN_CLASSIFICATION,
    "question_answering": TaskType.QUESTION_ANSWERING,
    "multiple_choice": TaskType.MULTIPLE_CHOICE,
}


def model_of(description: dict[str, Any], tensors: dict[str, Tensor]) -> PromptedEncoder:
    settings = dict(description["config"])
    config = CONFIG_MAPPING[settings.pop("model_type")](**settings)
    backbone = AutoModel.from_config(config)
    tuning = description["tuning"]
    length = tuning["pre_seq_len"]
    prompts: Any = nn.Embedding(length, config.hidden_size)
    if description["method"] == "deep_prefix":
        prompts = PrefixEncoder(
            PrefixShape.from_config(config),
            length,
            dropout=config.hidden_dropout_prob,
            projection=tuning["prefix_projection"],
            hidden_size=tuning["prefix_hidden_size"] or 512,
        )
    task = TASKS[description["task"]]
    backbone.load_state_dict(part(tensors, "base."), strict=task.pools)
    n_label = tuning["num_labels"] or 1
    model = PromptedEncoder(backbone, task, n_label, prompts, convolve_padding=True)
    trained = part(tensors, "trainable.")
    assert {n for n, p in model.named_parameters() if p.requires_grad} == trained.keys()
    assert not model.load_state_dict(trained, strict=False).unexpected_keys
    return model.eval()


@pytest.mark.parametrize("case", vector_cases("ptuning_"))
def test_the_originals_numbers(case: str) -> None:
    description, tensors = load_vectors(f"ptuning_{case}")
    model = model_of(description, tensors)
    tolerance = description["reproduction"]["recommended_tolerance"]
    output = model(**part(tensors, "in."))
    real = tensors["in.attention_mask"].bool()
    for name in ("logits", "start_logits", "end_logits"):
        if f"out.{name}" not in tensors:
            continue
        found, expected = getattr(output, name), tensors[f"out.{name}"]
        assert found.shape == expected.shape
        if found.shape[:2] == real.shape and description["task"] != "multiple_choice":
            found, expected = found[real], expected[real]
        assert torch.allclose(found, expected, rtol=0, atol=tolerance["logits"]), name
    assert abs(output.loss.item() - description["loss"]) < tolerance["loss"]
    output.loss.backward()
    for name, expected in part(tensors, "grad.").items():
        found = model.get_parameter(name).grad
        assert torch.allclose(found, expected, rtol=0, atol=tolerance["grad"]), name
