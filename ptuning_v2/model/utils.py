"""From flags to a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import transformers
from torch import nn
from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoModel, PretrainedConfig

from harness.models import load_config, load_partly
from harness.report import Sizes, n_parameters
from prefix_tuning.choice import build, check_independent, parse_options
from prefix_tuning.errors import UserError
from prefix_tuning.prefix import Prefix
from ptuning_v2.model.heads import TaskType
from ptuning_v2.model.prefix_encoder import init_weights
from ptuning_v2.model.prompted_encoder import PromptedEncoder

if TYPE_CHECKING:
    from ptuning_v2.arguments import ModelArguments

__all__ = ["TaskType", "get_config", "get_model", "parameter_lines"]

AUTO_CLASSES = {
    TaskType.TOKEN_CLASSIFICATION: transformers.AutoModelForTokenClassification,
    TaskType.SEQUENCE_CLASSIFICATION: transformers.AutoModelForSequenceClassification,
    TaskType.QUESTION_ANSWERING: transformers.AutoModelForQuestionAnswering,
    TaskType.MULTIPLE_CHOICE: transformers.AutoModelForMultipleChoice,
}
"""The models that are fine-tuned, or of which the head alone is."""


def get_config(model_args: ModelArguments) -> PretrainedConfig:
    """The encoder's configuration, with the dropout of the run.

    Raises:
        UserError: it cannot be had, or is not that of an encoder.
    """
    config = load_config(
        model_args.model_name_or_path,
        model_args.cache_dir,
        revision=model_args.model_revision,
    )
    if config.is_encoder_decoder or type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise UserError(
            f"--model_name_or_path {model_args.model_name_or_path}: {config.model_type} is no "
            "encoder; name one of the kind of BERT, RoBERTa or DeBERTa"
        )
    if model_args.prefix:
        config.hidden_dropout_prob = model_args.hidden_dropout_prob
    return config


def get_model(
    model_args: ModelArguments,
    task_type: TaskType,
    config: PretrainedConfig,
    fix_bert: bool = False,
) -> nn.Module:
    """The model that ``--prefix`` or ``--prompt`` asks for; the library's own without them.

    Args:
        task_type: which head.
        config: of :func:`get_config`.
        fix_bert: without prompts, train the head alone. The original decides this silently by
            the task; ``--freeze_backbone`` is the flag for it here.

    Returns:
        the model, with an attribute ``new_names``: of the parameters that the pretrained weights
        lack, and that therefore are part of a checkpoint even if frozen.

    Raises:
        UserError: the base model cannot be had, or cannot carry prompts.
    """
    options = _own_options(model_args)
    prompted = model_args.prefix or model_args.prompt
    auto_class = AutoModel if prompted else AUTO_CLASSES[task_type]
    base: Any
    base, new = load_partly(
        model_args.model_name_or_path,
        auto_class,
        cache_dir=model_args.cache_dir,
        config=config,
        revision=model_args.model_revision,
    )
    if not prompted:
        if fix_bert:
            base.base_model.requires_grad_(False)
        base.new_names = new
        return base
    if not task_type.pools and getattr(base, "pooler", None) is not None:
        base.pooler = None  # nothing reads it
    length = model_args.pre_seq_len
    prompts: Prefix | nn.Embedding = nn.Embedding(length, config.hidden_size)
    init_weights(prompts)
    if model_args.prefix:
        shared = {
            "length": length,
            "dropout": config.hidden_dropout_prob,
            "projection": model_args.prefix_projection,
            "hidden_size": model_args.prefix_hidden_size,
        }
        prompts = build(model_args.parametrization, config, shared, options)
    shift, n_label = model_args.shift_positions == "yes", cast(int, config.num_labels)
    convolve = model_args.convolve_padding == "yes"
    model = PromptedEncoder(base, task_type, n_label, prompts, shift, convolve)
    model.new_names = [f"{base.base_model_prefix}.{name}" for name in new]
    return model


def _own_options(model_args: ModelArguments) -> dict[str, Any]:
    """``--prefix_options``, refused before anything is loaded if they are none."""
    if not model_args.prefix:
        return {}
    check_independent(model_args.parametrization, "an encoder")
    return parse_options(model_args.parametrization, model_args.prefix_options)


def sizes(model: nn.Module) -> Sizes:
    """How much of the base model, the prompts and the head is trained."""
    base: Any
    prompts: int | None
    if isinstance(model, PromptedEncoder):
        base, prompts = model.backbone, n_parameters(model.prefix_encoder)
    else:
        base, prompts = model.base_model, None
    is_frozen = n_parameters(base, trainable_only=True) == 0
    trained = n_parameters(model, trainable_only=True)
    return Sizes(n_parameters(base), trained, is_frozen, prompts=prompts)


def parameter_lines(model: nn.Module) -> list[str]:
    """:func:`sizes` as lines."""
    return sizes(model).lines()
