"""How summaries are searched for: one configuration for training, validation and test.

The search is transformers' own. It gives the token sequences of the original's beam search of 2020
once the end token is forced for beams only and no start token is forced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from prefix_tuning.attention import KeyValues
from prefix_tuning.errors import UserError


@dataclass(frozen=True)
class Search:
    """Beam search over summaries; the defaults are the paper's for XSUM.

    Lengths count the token that the decoder starts from, as in the original.
    """

    num_beams: int = 6
    length_penalty: float = 0.8
    min_length: int = 11
    max_length: int = 62
    no_repeat_ngram_size: int = 3
    early_stopping: bool = True

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise UserError(f"--eval_beams {self.num_beams}: at least one beam is needed")
        if not 0 <= self.min_length < self.max_length:
            raise UserError(
                f"outputs of {self.min_length} to {self.max_length} tokens are impossible: raise "
                "--eval_max_gen_length or lower --eval_min_gen_length"
            )

    def config(self, model: PreTrainedModel) -> GenerationConfig:
        """The same for ``generate``, with the special tokens of ``model``."""
        options: dict[str, Any] = asdict(self)
        forced_end = None
        if self.num_beams == 1:
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


PRESETS = {
    "paper": Search(),
    "original-code": Search(length_penalty=1.0),
    "cnn_dm": Search(num_beams=4, length_penalty=2.0, min_length=56, max_length=142),
    "translation": Search(5, 1.0, min_length=0, max_length=142, no_repeat_ngram_size=0),
}
"""``paper``: section 5.3. ``original-code``: the penalty of the released code, for any data.
``cnn_dm``: BART's own for CNN/DailyMail. ``translation``: plain beam search."""


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
    own, model.generation_config = model.generation_config, search.config(model)
    try:
        return model.generate(input_ids, attention_mask=attention_mask, **more)
    finally:
        model.generation_config = own


def texts(tokenizer: PreTrainedTokenizerBase, rows: Tensor | Sequence[Sequence[int]]) -> list[str]:
    """Decoded rows without special tokens, on one line each."""
    decoded = tokenizer.batch_decode(
        rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return [" ".join(text.split()) for text in decoded]
