"""The layers of adapters (Houlsby et al. 2019; Lin et al. 2020).

The model's own code is left alone: an adapter is a submodule of a block, under the original's name,
and a forward hook that lets the block's output pass through it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from transformers import PreTrainedModel

from gpt2.tuning.blocks import blocks
from prefix_tuning.errors import UserError

NAME = "adapter_block"
"""What the names of all parameters of adapters contain."""
ATTENTIONS = ("attn", "self_attn", "attention")
"""What decoders call the attention of a block."""


class Adapter(nn.Module):
    """``x + Up(ReLU(Down(LN(x))))``; it starts near the identity.

    Args:
        width: ``D`` of the hidden states ``[..., D]``.
        bottleneck: ``b``.
        layer_norm: whether there is an ``LN``.
    """

    def __init__(self, width: int, bottleneck: int, layer_norm: bool) -> None:
        super().__init__()
        if layer_norm:
            self.ln = nn.LayerNorm(width, eps=1e-5)
        self.project_down = nn.Linear(width, bottleneck)
        self.project_up = nn.Linear(bottleneck, width)
        for linear in (self.project_down, self.project_up):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        inner = self.ln(hidden) if hasattr(self, "ln") else hidden
        return hidden + self.project_up(relu(self.project_down(inner)))


def attach_adapters(model: PreTrainedModel, design: int, bottleneck: int) -> None:
    """Put adapters into every block of ``model``, and freeze everything else.

    Args:
        design: 1 has one adapter with layer norm behind the block (Lin et al. 2020); 2 has one
            each on the output of attention and of the MLP, before the residual is added, without
            layer norm (Houlsby et al. 2019).
        bottleneck: ``b``; a block gets ``2Db + b + 3D`` or ``2 (2Db + b + D)`` parameters.

    Raises:
        UserError: the blocks have no attention and MLP under the usual names.
    """
    model.requires_grad_(False)
    width = model.config.get_text_config().hidden_size
    block: Any
    for block in blocks(model):
        if design == 1:
            _attach(block, NAME, block, Adapter(width, bottleneck, layer_norm=True), model)
            continue
        names = [name for name in ATTENTIONS if hasattr(block, name)]
        if not names or not hasattr(block, "mlp"):
            raise UserError(
                f"--adapter_design 2: the blocks of {type(model).__name__} have no attention and "
                "mlp to put adapters on; use design 1"
            )
        for name, module in ((NAME, getattr(block, names[0])), (f"{NAME}2", block.mlp)):
            _attach(block, name, module, Adapter(width, bottleneck, layer_norm=False), model)


def _attach(
    block: nn.Module, name: str, module: nn.Module, adapter: Adapter, model: PreTrainedModel
) -> None:
    """Register ``adapter`` in ``block`` and let the output of ``module`` pass through it."""
    adapter = adapter.to(model.device, model.dtype)

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # attention also returns its weights
            return (adapter(output[0]), *output[1:])
        return adapter(output)

    block.add_module(name, adapter)
    module.register_forward_hook(hook)


def adapter_options(state: Mapping[str, Tensor]) -> dict[str, int]:
    """``design`` and ``bottleneck`` of the adapters whose parameters ``state`` has."""
    downs = [tensor for key, tensor in state.items() if key.endswith("project_down.weight")]
    design = 2 if any(f".{NAME}2." in key for key in state) else 1
    return {"design": design, "bottleneck": downs[0].shape[0]}


def load_adapters(model: PreTrainedModel, state: Mapping[str, Tensor], where: str) -> None:
    """Attach adapters with the parameters that ``state`` has, whatever else it has.

    Raises:
        UserError: they do not fit the model; ``where`` says in the message whose they are.
    """
    found = {key: tensor for key, tensor in state.items() if NAME in key}
    if not any(re.search(rf"{NAME}\.project_down\.weight$", key) for key in found):
        raise UserError(f"{where} holds no adapters")
    attach_adapters(model, **adapter_options(found))
    wanted = {key: tensor for key, tensor in model.state_dict().items() if NAME in key}
    for key in sorted(wanted.keys() | found.keys()):
        shapes = [[*t[key].shape] if key in t else None for t in (found, wanted)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{where}: {key} has shape {shapes[0]}, adapters of this model {shapes[1]}: give "
                "the base model it was trained on with --model_name_or_path"
            )
    with torch.no_grad():
        model.load_state_dict(found, strict=False)
