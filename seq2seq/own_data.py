"""What ``train_bart.py`` does on one's own pairs unless flags say otherwise."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from pathlib import Path

from harness.own_data import Columns
from harness.recipe import LEARNING_RATE, Recipe
from seq2seq.arguments import Arguments, held_out_share

_LENGTHS = ("--epoch", "--num_train_epochs", "--max_steps")


def defaults(args: Arguments, words: Sequence[str]) -> dict[str, object]:
    """Values of the launcher's flags, by the number of pairs; none for a data set of the hub.

    Args:
        args: the run as it would be without them.
        words: the command line; how long it says to train stays.

    Raises:
        UserError: the pairs cannot be read.
    """
    from seq2seq.data import read_split

    if not Path(args.data_dir).exists():
        return {}
    columns, skip = Columns(args.source_column, args.target_column), args.empty_sources == "skip"
    with contextlib.redirect_stdout(io.StringIO()):  # training reads it again, and says what it is
        pairs = read_split(args.data_dir, "train", True, columns, skip_empty=skip)
    recipe = Recipe(math.ceil(len(pairs) * (1 - held_out_share(args))))
    found: dict[str, object] = {"bsz": recipe.batch_size}
    if not any(word.split("=")[0] in _LENGTHS for word in words):
        found |= {"max_steps": recipe.steps, "warmup_steps": recipe.warmup_steps}
    if args.tuning_mode == "prefixtune":
        found["learning_rate"] = LEARNING_RATE
    return found
