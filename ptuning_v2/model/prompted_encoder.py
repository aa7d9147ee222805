"""A frozen encoder with trained prompts in front and a trained head on top."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    ModelOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

from prefix_tuning.attention import KeyValues, enable_prefix, run
from prefix_tuning.errors import UserError
from prefix_tuning.positions import check_length
from prefix_tuning.prefix import Prefix
from ptuning_v2.model import heads
from ptuning_v2.model.heads import ContextPooler, TaskType
from ptuning_v2.model.prefix_encoder import init_weights


class PromptedEncoder(nn.Module):
    """Deep or shallow prompts for any encoder and any of the four kinds of task.

    The parameters are named as in the original: the encoder under its family's name (``bert``,
    ``roberta``, ``deberta``), ``prefix_encoder``, ``classifier`` or ``qa_outputs``, and for
    families without a pooler of their own ``pooler``. All but the encoder are trained. The
    pooler of BERT and RoBERTa is part of the encoder and frozen, even though that of RoBERTa is
    random: the original's accuracies are with it.

    Args:
        backbone: the encoder; it is frozen. Its dropout is active while training.
        task_type: which head.
        num_labels: outputs of the head; of multiple choice and question answering it is fixed.
        prompts: deep prompts, or for shallow ones an embedding ``[P, D]``.
        shift_positions: number the tokens from ``P``, as in the original, instead of 0.
        convolve_padding: let the convolution of a DeBERTa-v2 that has one read padding, as in the
            original: the logits of a row then depend on how much of it there is.

    Raises:
        UserError: the encoder cannot carry such prompts.
    """

    prefix_encoder: Prefix | nn.Embedding
    new_names: list[str]
    """Parameters that the pretrained weights lack: a checkpoint stores them even if frozen."""
    dropout: nn.Dropout
    classifier: nn.Linear
    qa_outputs: nn.Linear
    pooler: ContextPooler

    def __init__(
        self,
        backbone: PreTrainedModel,
        task_type: TaskType,
        num_labels: int,
        prompts: Prefix | nn.Embedding,
        shift_positions: bool = True,
        convolve_padding: bool = False,
    ) -> None:
        super().__init__()
        self.config = backbone.config
        self.task_type = task_type
        self.shift_positions = shift_positions
        self._backbone_name = backbone.base_model_prefix
        self.add_module(self._backbone_name, backbone.requires_grad_(False))
        self.prefix_encoder = prompts
        if isinstance(prompts, Prefix):
            self._carry_prefix(backbone, convolve_padding)
        elif getattr(backbone, "pooler", None) is None:
            raise UserError(f"--prompt: not for {self.config.model_type}, whose pooler it needs")
        width = self.config.hidden_size
        if task_type is TaskType.QUESTION_ANSWERING:
            self.qa_outputs = nn.Linear(width, 2)
        else:
            choices = task_type is TaskType.MULTIPLE_CHOICE
            self.dropout = nn.Dropout(heads.head_dropout(self.config))
            self.classifier = nn.Linear(width, 1 if choices else num_labels)
        for module in self.children():
            if isinstance(module, nn.Linear):
                init_weights(module)
        if task_type.pools and getattr(backbone, "pooler", None) is None:
            self.pooler = ContextPooler(self.config)

    @property
    def backbone(self) -> Any:
        """The frozen encoder, a ``PreTrainedModel``."""
        return self.get_submodule(self._backbone_name)

    def _carry_prefix(self, backbone: Any, convolve_padding: bool) -> None:
        enable_prefix(backbone)
        has_convolution = getattr(self.config, "conv_kernel_size", 0) > 0
        if self.config.model_type == "deberta-v2" and (convolve_padding or not has_convolution):
            # The original embeds padding like any token here. A convolution sees it; so do the
            # start and end of answers, whose softmax includes padding.
            backbone.embeddings.register_forward_pre_hook(_without_mask, with_kwargs=True)

    def gradient_checkpointing_enable(self, **_options: Any) -> None:
        """Recompute the encoder's layers during backward, in the one way that serves a prefix."""
        self.backbone.gradient_checkpointing_enable({"use_reentrant": False})

    activation_checkpointing_enable = gradient_checkpointing_enable  # Trainer's newer name

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
    ) -> ModelOutput:
        """Logits, and the loss if the targets are given.

        Args:
            input_ids: ``[B, T]`` int64, of multiple choice ``[B, C, T]``; ``attention_mask`` and
                ``token_type_ids`` have its shape.
            labels: ``[B]``; of token classification ``[B, T]``.
            start_positions, end_positions: ``[B]`` int64, of question answering.

        Raises:
            UserError: prompts and tokens do not fit into the encoder's position table.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        # Every choice is a row: [B, C, T] -> [B * C, T]; [B, T] stays.
        inputs = {name: value.flatten(0, -2) for name, value in inputs.items()}
        features = self._encode(**inputs)
        if self.task_type is TaskType.QUESTION_ANSWERING:
            return self._answer(features, start_positions, end_positions)
        logits = self.classifier(self.dropout(features))
        loss = None
        if self.task_type is TaskType.MULTIPLE_CHOICE:
            logits = logits.view(input_ids.shape[:2])  # [B * C, 1] -> [B, C]
        if self.task_type is TaskType.TOKEN_CLASSIFICATION:
            if labels is not None:
                loss = heads.token_loss(logits, labels, attention_mask)
            return TokenClassifierOutput(loss=loss, logits=logits)
        if labels is not None:
            loss = heads.classification_loss(logits, labels)
        if self.task_type is TaskType.MULTIPLE_CHOICE:
            return MultipleChoiceModelOutput(loss=loss, logits=logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _answer(
        self, hidden: Tensor, start: Tensor | None, end: Tensor | None
    ) -> QuestionAnsweringModelOutput:
        start_logits, end_logits = self.qa_outputs(hidden).unbind(-1)
        loss = None
        if start is not None and end is not None:
            loss = heads.span_loss(start_logits, end_logits, start, end)
        return QuestionAnsweringModelOutput(
            loss=loss, start_logits=start_logits, end_logits=end_logits
        )

    def _encode(self, **inputs: Tensor) -> Tensor:
        """What the head reads: ``[B, D]`` if it pools, otherwise ``[B, T, D]``."""
        prompts = self.prefix_encoder
        if isinstance(prompts, Prefix):
            output: Any = self._encode_deep(prompts, **inputs)
            if not self.task_type.pools:
                return output.last_hidden_state
            if hasattr(self, "pooler"):
                return self.pooler(output.last_hidden_state)
            return output.pooler_output
        output = self._encode_shallow(prompts, **inputs)
        if self.task_type is TaskType.MULTIPLE_CHOICE:
            # Behind shallow prompts this is the first prompt, not [CLS]: the original's choice.
            return output.pooler_output
        hidden = output.last_hidden_state[:, prompts.num_embeddings :]
        return self.backbone.pooler(hidden) if self.task_type.pools else hidden

    def _encode_deep(
        self, prompts: Prefix, input_ids: Tensor, **inputs: Tensor
    ) -> BaseModelOutputWithPooling:
        n_row, n_token = input_ids.shape
        layers = prompts.key_values(n_row)
        prefix = KeyValues(layers, offset=None if self.shift_positions else 0)
        # Padding is numbered like tokens: of question answering, it has a part in the loss.
        positions = torch.arange(n_token, device=input_ids.device).unsqueeze(0)  # [1, T]
        given = {"input_ids": input_ids, "position_ids": positions, **inputs}
        return run(self.backbone, prefix, given)

    def _encode_shallow(
        self, prompts: nn.Embedding, input_ids: Tensor, attention_mask: Tensor, **inputs: Tensor
    ) -> BaseModelOutputWithPooling:
        # As in the original, the encoder embeds the embedded tokens once more: positions, token
        # type 0 and layer norm are applied twice to tokens, once to prompts.
        n_row, length = len(input_ids), prompts.num_embeddings
        check_length(self.backbone, length, input_ids.shape[1])
        tokens = self.backbone.embeddings(input_ids=input_ids, **inputs)
        vectors = prompts.weight.expand(n_row, -1, -1).to(tokens.dtype)  # [P, D] -> [B, P, D]
        visible = attention_mask.new_ones(n_row, length)
        return self.backbone(
            inputs_embeds=torch.cat([vectors, tokens], dim=1),
            attention_mask=torch.cat([visible, attention_mask], dim=1),
        )


def _without_mask(
    _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, {**kwargs, "mask": None}
