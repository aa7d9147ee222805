"""Where real tokens stand: behind the prefix, or from 0.

Decoders and encoders number real tokens from the end of the prefix, as the originals do, unless a
prefix says otherwise (its ``offset``). Encoder-decoders number them from 0, also as the original.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefix_tuning.errors import UserError


def real_positions(
    n_query: int,
    n_past: int | Tensor,
    attention_mask: Tensor | None,
    device: torch.device,
) -> Tensor:
    """Positions ``[B or 1, n_query]`` that count real tokens from 0, padding on either side."""
    if attention_mask is not None and attention_mask.ndim == 2:
        return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -n_query:]
    return (torch.arange(n_query, device=device) + n_past).unsqueeze(0)


def position_inputs(
    model: PreTrainedModel, offset: int | Tensor, inputs: dict[str, Any]
) -> dict[str, Tensor]:
    """The ``position_ids`` of a forward call, shifted by ``offset``; none for encoder-decoders.

    ``offset`` is one number, or int64 ``[rows]`` with one for each row (or its beams).
    ``position_ids`` in ``inputs`` count real tokens from 0. Without them they come from a 2-D
    ``attention_mask`` or from the length of the cache; in the family of RoBERTa, which leaves
    padding in place, from the token ids.

    Raises:
        UserError: prefix and tokens do not fit into the model's position table.
    """
    if model.config.is_encoder_decoder:
        for name in ("input_ids", "decoder_input_ids", "labels"):
            if inputs.get(name) is not None:
                check_length(model, 0, inputs[name].shape[1])
        return {}
    tokens = inputs.get("input_ids")
    if isinstance(offset, Tensor):
        given = inputs["inputs_embeds"] if tokens is None else tokens
        offset = offset.repeat_interleave(len(given) // len(offset))[:, None]  # [rows] -> [B, 1]
    of_embeddings: Any = getattr(model.base_model, "embeddings", None)
    if hasattr(of_embeddings, "create_position_ids_from_input_ids") and tokens is not None:
        check_length(model, offset, tokens.shape[1])
        padding = of_embeddings.padding_idx
        real = tokens != padding
        return {"position_ids": (real.cumsum(-1) + offset) * real + padding}
    tokens = inputs["inputs_embeds"] if tokens is None else tokens
    n_query, mask = tokens.shape[1], inputs.get("attention_mask")
    positions = inputs.get("position_ids")
    if positions is None:
        cache = inputs.get("past_key_values")
        n_past = 0 if cache is None else cache.get_seq_length()
        positions = real_positions(n_query, n_past, mask, tokens.device)
    n_token: int | Tensor = n_query
    if isinstance(mask, Tensor) and mask.ndim == 2:
        # Rows that differ in their offsets are held to their own tokens, without padding.
        n_token = mask.shape[1] if isinstance(offset, int) else mask.sum(1, keepdim=True)
    check_length(model, offset, n_token)
    return {"position_ids": positions + offset}


def position_limit(model: PreTrainedModel) -> int | None:
    """How many positions the model has for prefix and tokens; None without a position table."""
    config = model.config.get_text_config(decoder=True)
    if not getattr(config, "position_biased_input", True):
        return None  # a DeBERTa whose positions are relative
    limit = getattr(config, "max_position_embeddings", None)
    of_embeddings: Any = getattr(model.base_model, "embeddings", None)
    if limit is not None and hasattr(of_embeddings, "create_position_ids_from_input_ids"):
        limit -= of_embeddings.padding_idx + 1  # its first rows belong to padding
    return limit


def check_length(model: PreTrainedModel, offset: int | Tensor, n_token: int | Tensor) -> None:
    """Raise :class:`UserError` if ``offset + n_token`` positions are more than the model has.

    Both may be tensors with one number for each row of a batch.
    """
    limit = position_limit(model)
    if limit is None:
        return
    total = offset + n_token
    if isinstance(total, Tensor):
        worst = total.argmax()
        offset, n_token = (
            int(part.expand_as(total).flatten()[worst]) if isinstance(part, Tensor) else part
            for part in (offset, n_token)
        )
    if offset + n_token <= limit:
        return
    what = f"a prefix of {offset} positions and {n_token} tokens" if offset else f"{n_token} tokens"
    advice = "shorten the text or the prefix" if offset else "shorten the text"
    raise UserError(
        f"{what} do not fit into the {limit} positions of {model.config.model_type}: {advice}"
    )
