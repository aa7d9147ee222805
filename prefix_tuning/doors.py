"""How what stands in front reaches the attentions of one kind of model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from prefix_tuning.errors import UserError
from prefix_tuning.key_values import Front


class Door(ABC):
    """A way from a model's ``forward`` down to its attentions.

    Most families share one, :class:`prefix_tuning.backends.InterfaceDoor`. A family whose attention
    goes another way is a row in :data:`prefix_tuning.attention.DOORS`.
    """

    @abstractmethod
    def open(self, model: PreTrainedModel, backend: str) -> None:
        """Let every attention of ``model`` take a front; weights and names stay.

        Args:
            backend: the attention implementation the model was loaded with.

        Raises:
            UserError: it cannot.
        """

    @abstractmethod
    def is_open(self, model: PreTrainedModel) -> bool:
        """Whether a front given now would reach the attentions, and not be ignored."""

    @abstractmethod
    def enter(self, forward: Callable[..., Any], front: Front, inputs: dict[str, Any]) -> Any:
        """Call ``forward(**inputs)`` with ``front`` in front of every attention inside.

        Layers recomputed during backward (gradient checkpointing) have to meet it again.
        """


def not_through_the_interface(model_class: type, detail: str) -> UserError:
    """The refusal of a model whose attention ``AttentionInterface`` does not reach."""
    return UserError(
        f"{model_class.__name__} cannot carry a prefix: its attention does not go through "
        f"transformers' AttentionInterface ({detail})"
    )
