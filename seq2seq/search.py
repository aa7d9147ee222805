"""How summaries are searched for: options of the beam search, without the model."""

from __future__ import annotations

from dataclasses import dataclass

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


PRESETS = {
    "paper": Search(),
    "original-code": Search(length_penalty=1.0),
    "cnn_dm": Search(num_beams=4, length_penalty=2.0, min_length=56, max_length=142),
    "translation": Search(5, 1.0, min_length=0, max_length=142, no_repeat_ngram_size=0),
}
"""``paper``: section 5.3. ``original-code``: the penalty of the released code, for any data.
``cnn_dm``: BART's own for CNN/DailyMail. ``translation``: plain beam search."""
