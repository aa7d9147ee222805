"""What may be given to a model as its prefix, and what others may have put on its modules."""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from prefix_tuning.errors import UserError
from prefix_tuning.key_values import Front


def rebind(module: nn.Module) -> None:
    """After a change of class, let the hooks that accelerate puts around ``forward`` see it.

    A model that was loaded with a ``device_map`` keeps the forward of its old class as an
    attribute, which would go on being called.
    """
    if "_old_forward" in vars(module):
        own = MethodType(type(module).forward, module)
        module._old_forward = own  # type: ignore[assignment]
        module.forward.__wrapped__ = own  # type: ignore[attr-defined]


def check_forward(model: nn.Module) -> None:
    """Raise :class:`UserError` if another library has put its own function before ``forward``.

    It would go on calling the forward of the class that the model had then.
    """
    if {"forward", "_old_forward"} & vars(model).keys() == {"forward"}:
        raise UserError(
            f"{type(model).__name__} would ignore a prefix: another library has replaced its "
            "forward; enable the prefix before that library gets the model"
        )


def is_watched(module: nn.Module) -> bool:
    """Whether somebody hooked the module, or put another function before its forward."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return any(hooks) or bool(module._backward_pre_hooks) or "forward" in vars(module)


def as_front(model: PreTrainedModel, prefix: Any, inputs: Mapping[str, Any]) -> Front:
    """What ``prefix=`` means: a front as it is, or the module whose keys and values it shall be.

    Args:
        inputs: the arguments of the call.
    """
    if isinstance(prefix, Front):
        return prefix
    prompt = getattr(prefix, "prompt", None)
    if not isinstance(prefix, nn.Module) or not callable(prompt):
        raise UserError(
            f"prefix= takes KeyValues, or a prefix that makes them, not {type(prefix).__name__}"
        )
    return prompt(model, n_row(inputs))


def n_row(inputs: Mapping[str, Any]) -> int:
    """How many rows the batch of a call has; 1 where nothing tells."""
    names = ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds")
    given = (inputs[name] for name in names if inputs.get(name) is not None)
    return next((tokens.shape[0] for tokens in given), 1)
