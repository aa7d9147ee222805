"""Prefixes in the folders of PEFT, which need not be installed.

PEFT stores a prefix flat, whether it was trained with a projection or not, and so it stores a
prefix that is the KV cache of a text (its ``CARTRIDGE``): ``prompt_embeddings [P, 2 * L * H * d]``,
the layout of :meth:`prefix_tuning.prefix.Prefix.slots`. ``H`` are key/value heads.

What holds after an exchange: PEFT fills the model's cache, so real tokens are numbered from ``P``,
as here. It leaves the numbering of padding to the model: without ``position_ids`` most families
count padding on the left there, and never here. ``generate`` gives them.

Only decoders are exchanged. In an encoder-decoder, PEFT fills the decoder's own attention and
nothing else, layer ``i`` with the slots of layer ``2 * i``; here a prefix has three sites.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from prefix_tuning.cache_format import check_decoder
from prefix_tuning.checkpoint import read_tensors, write_tensors
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, write_json
from prefix_tuning.parametrizations import FlatPrefix
from prefix_tuning.prefix import Prefix
from prefix_tuning.shape import PrefixShape

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_TABLE = "prompt_embeddings"
_KINDS = ("PREFIX_TUNING", "CARTRIDGE")


def is_peft_folder(folder: Path) -> bool:
    """Whether ``folder`` holds an adapter of PEFT, of any kind."""
    return (folder / CONFIG).is_file()


def read(folder: Path, model: PreTrainedModel) -> tuple[FlatPrefix, dict[str, Any]]:
    """Read a prefix that PEFT wrote.

    Args:
        folder: with ``adapter_config.json`` and the weights.
        model: a decoder of the shape that the prefix was trained on. PEFT records no more of it
            than a name, layers and heads, so another model of the same shape is not noticed.

    Returns:
        the prefix in eval mode, and metadata as :func:`prefix_tuning.checkpoint.metadata` has it.

    Raises:
        UserError: another kind of adapter, damaged files, or another model's shape.
    """
    config = read_json_object(folder / CONFIG)
    _check_kind(config, model, folder)
    weights = folder / (WEIGHTS if (folder / WEIGHTS).is_file() else _PICKLED)
    tensors = read_tensors(weights)
    shape = PrefixShape.from_config(model.config)
    values = _table(tensors, config, shape, weights)
    prefix = FlatPrefix(shape, len(values), values={"self": values.float()}).eval()
    meta = {
        "parametrization": prefix.parametrization,
        "options": prefix.options(),
        "position_offset": prefix.length,
        "base_model": {
            "name_or_path": config.get("base_model_name_or_path"),
            "model_type": model.config.model_type,
            "shape": vars(shape).copy(),
        },
    }
    return prefix, meta


def _check_kind(config: Mapping[str, Any], model: PreTrainedModel, folder: Path) -> None:
    kind, task = config.get("peft_type"), config.get("task_type")
    if kind not in _KINDS:
        raise UserError(
            f"{folder} holds a {kind} adapter of PEFT: of its adapters, {' and '.join(_KINDS)} are "
            "prefixes; open this one with PeftModel.from_pretrained"
        )
    if model.config.is_encoder_decoder or task == "SEQ_2_SEQ_LM":
        raise UserError(
            f"{folder} holds a PEFT prefix of an encoder-decoder: PEFT fills only the decoder's "
            "own attention there, from every other layer's slots; train one here instead"
        )
    if task != "CAUSAL_LM":
        raise UserError(
            f"{folder} holds a PEFT prefix for the task {task}: only those for CAUSAL_LM are read"
        )


def _table(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], shape: PrefixShape, path: Path
) -> Tensor:
    """The slots ``[P, 2 * L * H * d]``, after checks."""
    if set(tensors) != {_TABLE}:
        raise UserError(
            f"{path} holds {', '.join(sorted(tensors)) or 'nothing'}: a prefix is one tensor, "
            f"{_TABLE}; adapters with further trained modules are not read"
        )
    table = tensors[_TABLE]
    wanted = [config.get("num_virtual_tokens"), shape.features]
    if [*table.shape] != wanted:
        raise UserError(
            f"{path}: {_TABLE} has shape {[*table.shape]}, but {CONFIG} and the model given "
            f"({shape.n_layer} layers, {shape.n_head} key/value heads of {shape.head_dim}) need "
            f"{wanted}: give the model it was trained on"
        )
    heads = {"num_layers": shape.n_layer, "num_attention_heads": shape.n_head}
    for name, number in heads.items():  # other heads may give a table of the same shape
        if config.get(name, number) not in (number, None):
            raise UserError(
                f"{path.with_name(CONFIG)}: {name} is {config[name]}, but the model given has "
                f"{number}: give the model it was trained on"
            )
    return table


def write(
    folder: Path, prefix: Prefix, meta: Mapping[str, Any], model: PreTrainedModel | None = None
) -> int:
    """Write a prefix that ``PeftModel.from_pretrained`` opens; return the tensor's size in bytes.

    Args:
        meta: the prefix's metadata (:func:`prefix_tuning.checkpoint.read_metadata`).
        model: as in :meth:`prefix_tuning.prefix.Prefix.prompt`.

    Raises:
        UserError: PEFT has no such prefix.
    """
    base, flat = meta["base_model"], prefix.flatten(model)
    check_decoder(flat, meta, "PEFT")
    shape = flat.shape
    folder.mkdir(parents=True, exist_ok=True)
    table = flat.slots().detach().float()  # [P, 2 * L * H * d]
    write_tensors(folder / WEIGHTS, {_TABLE: table})
    config = {
        "peft_type": "PREFIX_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.get("name_or_path"),
        "inference_mode": True,
        "num_virtual_tokens": flat.length,
        "num_layers": shape.n_layer,
        "num_attention_heads": shape.n_head,
        "token_dim": shape.n_head * shape.head_dim,
        "num_transformer_submodules": 1,
        "prefix_projection": False,
        "encoder_hidden_size": shape.n_head * shape.head_dim,
    }
    write_json(folder / CONFIG, config)
    return (folder / WEIGHTS).stat().st_size
