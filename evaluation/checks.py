"""What cannot be scored, refused in one sentence each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from prefix_tuning.errors import NOT_FINITE, UserError


def check_texts(references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> None:
    """Refuse unequal counts and instances without references; an output may be empty.

    Raises:
        UserError: naming both counts, or the first instance at fault (counted from 1).
    """
    check_counts(len(references), len(hypotheses))
    for number, texts in enumerate(references, 1):
        if not any(text.strip() for text in texts):
            raise UserError(f"instance {number} has no reference")


def check_counts(references: int, hypotheses: int, unit: str = "instances") -> None:
    """Refuse unequal or zero counts, naming both."""
    if references != hypotheses:
        raise UserError(f"the references have {references} {unit}, the hypotheses {hypotheses}")
    if references == 0:
        raise UserError(f"nothing to score: 0 {unit}")


def check_finite(values: ArrayLike, what: str) -> None:
    """Refuse numbers of which argmax, topk or argsort would choose something all the same.

    Args:
        values: logits or scores, of any shape.
        what: begins the sentence, such as ``"the logits of the test set"``.

    Raises:
        UserError: one of them is nan or infinite.
    """
    finite = np.isfinite(np.asarray(values, dtype=np.float64))
    if not finite.all():
        raise UserError(
            f"{what}: {finite.size - np.count_nonzero(finite)} of {finite.size} are {NOT_FINITE}"
        )


def empty_outputs(hypotheses: Sequence[str]) -> str:
    """A remark on the outputs that are empty; nothing where none is."""
    empty = sum(not text.strip() for text in hypotheses)
    if not empty:
        return ""
    return f"{empty} of {len(hypotheses)} outputs are empty and scored as the official script does"
