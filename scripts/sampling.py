"""Random parts of a data set: the paper's low-data setting, and smaller test sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.ranges import COUNT, SEED
from prefix_tuning.errors import UserError
from seq2seq.files import Record


def _random(seed: int) -> np.random.RandomState:
    SEED.check("seed", seed)
    return np.random.RandomState(seed)


def sample_low_data(
    train: Sequence[Record], val: Sequence[Record], size: int, seed: int
) -> tuple[list[Record], list[Record]]:
    """The paper's low-data setting (section 6.3): a few random examples, 30 % as many to validate.

    Args:
        train: all training examples, of which ``size`` are drawn without replacement.
        val: all validation examples, of which ``int(0.3 * size)`` are drawn.
        seed: of NumPy's ``RandomState``, so that draws equal those of ``numpy.random.seed``.

    Raises:
        UserError: fewer examples than would be drawn, ``size`` below 4, or no such seed.
    """
    samples: list[list[Record]] = []
    random = _random(seed)
    for what, records, count in (("train", train, size), ("val", val, int(0.3 * size))):
        if not 0 < count <= len(records):
            raise UserError(
                f"a sample of size {size} takes {count} of {len(records)} {what} examples; "
                "choose another --size"
            )
        samples.append([records[i] for i in random.choice(len(records), count, replace=False)])
    return samples[0], samples[1]


def random_subset(records: Sequence[Record], count: int, seed: int) -> list[Record]:
    """At most ``count`` of the records, drawn without replacement and kept in their order.

    Raises:
        UserError: ``count`` is below 1, or no such seed.
    """
    COUNT.check("max_test", count)
    kept = _random(seed).choice(len(records), min(count, len(records)), replace=False)
    return [records[i] for i in sorted(kept)]
