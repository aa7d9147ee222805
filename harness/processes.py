"""Several processes that train together: which is the first, and what all learn from it."""

from __future__ import annotations

import os
import sys
from typing import Any, TypeVar

T = TypeVar("T")


def is_first() -> bool:
    """Whether this process is the first of those that train together, or the only one."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) == 0


def agreed(found: T) -> T:
    """What the first of several processes found; ``found`` itself where they do not talk yet."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not (
        torch.distributed.is_available() and torch.distributed.is_initialized()
    ):
        return found
    box = [found]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]
