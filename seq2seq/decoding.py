"""How summaries are searched for: one configuration for training, validation and test.

The search is transformers' own. It gives the token sequences of the original's beam search of 2020
once the end token is forced for beams only and no start token is forced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from prefix_tuning.attention import KeyValues
from prefix_tuning.finite import finite_logits
from seq2seq.search import Search


def generation_config(search: Search, model: PreTrainedModel) -> GenerationConfig:
    """``search`` as ``generate`` reads it, with the special tokens of ``model``."""
    options: dict[str, Any] = asdict(search)
    forced_end = None
    if search.num_beams == 1:
        del options["length_penalty"], options["early_stopping"]
    else:
        # The original forces the end at the last step, in the beam search alone.
        forced_end = model.generation_config.eos_token_id
    special = ("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id")
    ids = {name: getattr(model.generation_config, name) for name in special}
    # bart-large's configuration on the hub has forced a start token since 2022; the paper's
    # did not. mBART needs its forced one: it is the target language.
    forced_start = None
    if model.config.model_type != "bart":
        forced_start = model.generation_config.forced_bos_token_id
    return GenerationConfig(
        **options,
        **ids,
        do_sample=False,
        forced_eos_token_id=forced_end,
        forced_bos_token_id=forced_start,
    )


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prefix: KeyValues | None,
    input_ids: Tensor,
    attention_mask: Tensor,
    search: Search,
) -> Tensor:
    """Search for a summary of every row.

    Args:
        model: in eval mode; after ``enable_prefix`` if there is a prefix.
        prefix: one row, which ``generate`` does not repeat for beams; None for a fine-tuned model.
        input_ids: ``[B, S]`` int64, padded on the right.
        attention_mask: ``[B, S]``, 0 on padding.

    Returns:
        ``[B, T]`` int64, beginning with the decoder's start token, padded behind the end token.
    """
    more = {} if prefix is None else {"prefix": prefix}
    # What a configuration leaves at None, generate() takes from the model's own: a forced start
    # token of the hub would come back. So ours takes the place of the model's for the call.
    own, model.generation_config = model.generation_config, generation_config(search, model)
    try:
        return model.generate(  # type: ignore[operator]
            input_ids,
            attention_mask=attention_mask,
            logits_processor=finite_logits(),
            **more,
        )
    finally:
        model.generation_config = own


def texts(tokenizer: PreTrainedTokenizerBase, rows: Tensor | Sequence[Sequence[int]]) -> list[str]:
    """Decoded rows without special tokens, on one line each."""
    decoded = tokenizer.batch_decode(
        [list(row) for row in rows], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return [" ".join(text.split()) for text in decoded]
