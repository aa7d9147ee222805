"""Where real tokens stand: behind the prefix, or from 0.

Decoders and encoders number real tokens from the end of the prefix, as the originals do, unless a
prefix says otherwise (its ``offset``). Encoder-decoders number them from 0, also as the original.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

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
    tokens, skipped = inputs.get("input_ids"), rows_of_padding(model.config)
    if isinstance(offset, Tensor):
        given = inputs["inputs_embeds"] if tokens is None else tokens
        offset = offset.repeat_interleave(len(given) // len(offset))[:, None]  # [rows] -> [B, 1]
    if skipped and tokens is not None:
        check_length(model, offset, tokens.shape[1])
        padding = skipped - 1
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
    return {"position_ids": positions + offset + skipped}


_NUMBERED_AFTER_PADDING = (
    *("camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "mpnet", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
)
"""Families that leave padding in place, and number tokens from the row behind that of padding."""


def rows_of_padding(config: PretrainedConfig) -> int:
    """How many rows at the start of the position table no token uses."""
    numbered_after_padding = config.model_type in _NUMBERED_AFTER_PADDING
    return config.pad_token_id + 1 if numbered_after_padding else 0


def room(config: PretrainedConfig, occupied: int = 0) -> int | None:
    """How many tokens a model has positions for.

    Args:
        config: of the model.
        occupied: positions that a prefix takes from them; none in an encoder-decoder.

    Returns:
        the number, 0 or less where there is no room; None where positions are not numbered in a
        table.
    """
    config = config.get_text_config(decoder=True)
    if not getattr(config, "position_biased_input", True):
        return None  # a DeBERTa whose positions are relative
    limit = getattr(config, "max_position_embeddings", None)
    return None if limit is None else limit - rows_of_padding(config) - occupied


def check_length(model: PreTrainedModel, offset: int | Tensor, n_token: int | Tensor) -> None:
    """Raise :class:`UserError` if ``offset + n_token`` positions are more than the model has.

    Both may be tensors with one number for each row of a batch.
    """
    limit = room(model.config)
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


def check_window(model: PreTrainedModel, n_token: int) -> None:
    """Raise :class:`UserError` if prompt and output are longer than a model's sliding window."""
    window = getattr(model.config.get_text_config(decoder=True), "sliding_window", None)
    if window is not None and n_token > window:
        raise UserError(
            f"prompt and output of {n_token} tokens exceed the sliding window of {window} tokens "
            f"of {model.config.model_type}: use --beam_search transformers"
        )
