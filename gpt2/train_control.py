"""The class people know from the original: a prefix for GPT-2, called together with GPT-2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from prefix_tuning import checkpoint
from prefix_tuning.attention import KeyValues
from prefix_tuning.errors import UserError
from prefix_tuning.objectives import IGNORE, objective, scatter_nll, target_nll
from prefix_tuning.prefix import MLPPrefix, PrefixShape

END_OF_TEXT = 50256
"""GPT-2's ``<|endoftext|>``, which objective mode 4 does not count."""


class PrefixTuning(MLPPrefix):
    """An MLP prefix with the original's constructor, ``get_prompt`` and ``forward``.

    Args:
        config: the base model's. Like the original, ``mid_dim``, ``prefix_dropout`` and
            ``_objective_mode`` are taken from it if they are there (512, 0.0, 1 otherwise).
        model_gpt2: the frozen model; the MLP prefix does not need it.
        optim_prefix, use_infix, deep_param: only the original's defaults for an MLP prefix.
        preseqlen: prefix length ``P``.
        mid_dim: hidden width of the MLP, if not in ``config``.
        prefix_dropout: dropout on the generated keys and values, if not in ``config``.
        objective_mode: how token losses are added up (:func:`prefix_tuning.objectives.objective`).
        end_id: the end token's id.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        model_gpt2: PreTrainedModel | None = None,
        optim_prefix: bool = True,
        preseqlen: int = 5,
        use_infix: bool = False,
        deep_param: bool = False,
        mid_dim: int | None = None,
        prefix_dropout: float | None = None,
        objective_mode: int | None = None,
        end_id: int = END_OF_TEXT,
    ) -> None:
        if not optim_prefix or use_infix or deep_param:
            raise UserError("PrefixTuning: only the MLP prefix (optim_prefix) is implemented yet")

        def choose(value: Any, name: str, default: Any) -> Any:
            return getattr(config, name, default) if value is None else value

        super().__init__(
            PrefixShape.from_config(config),
            preseqlen,
            mid_dim=choose(mid_dim, "mid_dim", 512),
            dropout=choose(prefix_dropout, "prefix_dropout", 0.0),
        )
        self.objective_mode: int = choose(objective_mode, "_objective_mode", 1)
        self.end_id = end_id

    @classmethod
    def from_pretrained(cls, folder: str | Path, config: PretrainedConfig) -> PrefixTuning:
        """Load a checkpoint of ours or of the original.

        Raises:
            UserError: the folder holds no MLP prefix.
        """
        prefix, meta = checkpoint.load(folder)
        if not isinstance(prefix, MLPPrefix):
            raise UserError(f"{folder} is an export, without the MLP that training needs")
        options = meta["options"]
        model = cls(
            config,
            preseqlen=options["length"],
            mid_dim=options["mid_dim"],
            prefix_dropout=options["dropout"],
        )
        model.load_state_dict(prefix.state_dict())
        return model.eval()

    def get_prompt(self, bsz: int = 1) -> tuple[Tensor, ...]:
        """The prefix as ``past_key_values``: ``L`` tensors ``[2, bsz, H, P, d]``."""
        return tuple(pair.expand(-1, bsz, -1, -1, -1) for pair in self.key_values(bsz))

    def get_cache(self, bsz: int = 1) -> DynamicCache:
        """The same as a cache, for whoever wants transformers' own way in.

        A forward pass appends to a cache: make a new one for every call.
        """
        return DynamicCache([(pair[0], pair[1]) for pair in self.get_prompt(bsz)])

    def forward(
        self,
        input_ids: Tensor,
        gpt2_model: PreTrainedModel,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        targets_only: bool = False,
    ) -> CausalLMOutputWithPast:
        """Run the frozen model behind the prefix.

        Args:
            input_ids: ``[B, T]`` int64.
            gpt2_model: the frozen model, after ``enable_prefix``.
            labels: ``[B, T]`` int64, -100 where there is no loss.
            attention_mask: ``[B, T]``; not needed for padding on the right.
            targets_only: skip the logits and compute only what the loss needs.

        Returns:
            ``loss`` as the objective mode returns it (a scalar for mode 0, else ``[B]``) and
            ``logits [B, T, V]``.
        """
        prefix = KeyValues(self.key_values(input_ids.shape[0]))
        logits = None
        if targets_only and labels is not None:
            nll = target_nll(gpt2_model, prefix, input_ids, labels, attention_mask)
        else:
            logits = gpt2_model(
                input_ids=input_ids, attention_mask=attention_mask, prefix=prefix, use_cache=False
            ).logits
            if labels is None:
                return CausalLMOutputWithPast(logits=logits)
            nll = scatter_nll(logits[:, :-1][labels[:, 1:] != IGNORE], labels)
        loss = objective(self.objective_mode, nll, labels, input_ids, self.end_id)
        return CausalLMOutputWithPast(loss=loss, logits=logits)


def add_pad_row(model: PreTrainedModel, pad_id: int, seed: int) -> None:
    """Give a model the original's row for ``[PAD]``: N(0, 0.02), frozen, part of the softmax.

    The prefix has to learn to push its logit down, which shows in the first hundreds of steps;
    decoding never sees the row. transformers would fill it with the mean of the other rows.
    """
    if pad_id >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(pad_id + 1, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    row = torch.randn(model.config.get_text_config().hidden_size, generator=generator) * 0.02
    with torch.no_grad():
        model.get_input_embeddings().weight[pad_id] = row.to(model.device, model.dtype)
        model.get_output_embeddings().weight[pad_id] = row.to(model.device, model.dtype)
