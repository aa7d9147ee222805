"""Parts of a decoder by what they are, whatever its architecture calls them."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from prefix_tuning.errors import UserError

LAST_NORMS = ("ln_f", "norm", "final_layer_norm", "norm_f", "final_layernorm")
"""What decoders call the norm behind their blocks."""


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of a decoder, lowest first."""
    count = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():  # in OPT not among the children
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise UserError(f"{type(model).__name__} has no list of {count} blocks: use prefixtune")


def last_norm(model: PreTrainedModel) -> nn.Module:
    """The norm behind the blocks.

    Raises:
        UserError: it has none of the usual names.
    """
    layers = blocks(model)
    for parent in model.base_model.modules():
        children = dict(parent.named_children())
        if layers in children.values():
            for name in LAST_NORMS:
                if name in children:
                    return children[name]
    raise UserError(
        f"--tuning_mode finetune-top: {type(model).__name__} has no last norm under one of the "
        f"names {', '.join(LAST_NORMS)}; use adaptertune or lora"
    )


def set_residual_dropout(model: PreTrainedModel, rate: float) -> None:
    """Change GPT-2's dropout on what attention and MLP add to the residual stream."""
    if not hasattr(model.config, "resid_pdrop"):
        raise UserError(f"--teacher_dropout: {type(model).__name__} has no residual dropout")
    model.config.resid_pdrop = rate
    block: Any
    for block in blocks(model):
        block.attn.resid_dropout.p = block.mlp.dropout.p = rate
