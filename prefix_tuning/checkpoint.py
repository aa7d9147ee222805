"""Prefixes on disk.

Three kinds of folder are read:

====================  ==========================================  ============================
folder                files                                       parameters
====================  ==========================================  ============================
checkpoint            ``model.safetensors``, ``config.json``      as trained (MLP and all)
export                ``prefix.safetensors``, ``prefix.json``     keys and values only
the original's        ``pytorch_model.bin``, ``config.json``      as trained, names as here
====================  ==========================================  ============================

The export is what people keep: one fp32 tensor ``past_key_values [L, 2, H, P, d]``, 0.98 MB for
GPT-2 medium at ``P = 5``, where a checkpoint takes 103 MB. An encoder-decoder has two more, for its
other attentions: ``past_key_values.encoder`` and ``past_key_values.encoder_decoder``. Nothing is
unpickled but an original ``pytorch_model.bin``, and that with ``weights_only=True``.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedModel

from prefix_tuning import fingerprint, schema
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, replacing, write_json
from prefix_tuning.names import SITES
from prefix_tuning.parametrizations import PARAMETRIZATIONS
from prefix_tuning.prefix import FlatPrefix, Prefix
from prefix_tuning.shape import PrefixShape

CHECKPOINT = ("model.safetensors", "config.json")
EXPORT = ("prefix.safetensors", "prefix.json")
ORIGINAL = ("pytorch_model.bin", "config.json")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
META = "prefix_tuning"
"""Key of our part of ``config.json``, whose rest is the base model's configuration."""


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all."""
    with replacing(path) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, {"format": "pt"})


def metadata(prefix: Prefix, model: PreTrainedModel, name: str, **more: Any) -> dict[str, Any]:
    """What a checkpoint says about its prefix; ``more`` is the task's own part (JSON values)."""
    return {
        "parametrization": prefix.parametrization,
        "options": prefix.options(),
        # Real tokens are numbered from here (behind an infix, the source's tokens come on top).
        "position_offset": 0 if model.config.is_encoder_decoder else prefix.length,
        "base_model": fingerprint.describe(model, name),
        **more,
    }


def save(folder: Path, prefix: Prefix, config: dict[str, Any], meta: dict[str, Any]) -> None:
    """Write a checkpoint: all parameters of ``prefix`` and what is needed to build it again.

    Args:
        config: the base model's configuration, with whatever the original kept there.
        meta: the value of :func:`metadata`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / CHECKPOINT[0], prefix.state_dict())
    write_json(folder / CHECKPOINT[1], {**config, META: meta})


def export(
    folder: Path, prefix: Prefix, meta: dict[str, Any], model: PreTrainedModel | None = None
) -> int:
    """Write the keys and values alone; return the size of the tensor file in bytes.

    ``model`` as in :meth:`Prefix.prompt`.
    """
    flat = prefix.flatten(model)
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        _export_name(site): flat.shape.to_layers(flat.slots(site)).detach().float()
        for site in flat.sites
    }
    write_tensors(folder / EXPORT[0], tables)
    described = {"parametrization": flat.parametrization, "options": flat.options()}
    write_json(folder / EXPORT[1], {**meta, **described})
    return (folder / EXPORT[0]).stat().st_size


def _export_name(site: str) -> str:
    return "past_key_values" if site == "self" else f"past_key_values.{site}"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a tensor file.

    Raises:
        UserError: it is damaged, or holds numbers of a kind that no parameter has.
    """
    if path.suffix == ".bin":
        return _read_pickle(path)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{path} is damaged ({error}): copy the folder again") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(f"{path}: {name} is of {kind}, and parameters are of float32 or so")
    return tensors


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """Only tensors by name: anything else that a pickle may hold could run code."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is damaged, or holds Python objects besides tensors, which are never loaded "
            "since they could run code: ask for the tensors alone"
        ) from error
    except Exception as error:  # whatever torch meets in a file that is cut or flipped
        reason = f"{type(error).__name__} in reading it"
        raise UserError(f"{path} is damaged ({reason}): copy the folder again") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise UserError(f"{path} holds something else than tensors by name: give a prefix folder")
    return state


def is_prefix_folder(folder: Path) -> bool:
    """Whether ``folder`` is of one of the three kinds (a fine-tuned model is not)."""
    if all((folder / name).is_file() for name in EXPORT):
        return True
    if not (folder / CHECKPOINT[1]).is_file():
        return False
    config = read_json_object(folder / CHECKPOINT[1])
    if META in config:
        return (folder / CHECKPOINT[0]).is_file()
    return "preseqlen" in config and (folder / ORIGINAL[0]).is_file()


def is_export(folder: Path) -> bool:
    """Whether a prefix folder holds keys and values alone."""
    return (folder / EXPORT[0]).is_file()


def read_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of a prefix folder; an original one gets what its configuration says.

    Raises:
        UserError: ``folder`` is no prefix folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give the folder of a trained prefix")
    if not is_prefix_folder(folder):
        kinds = ", or ".join(" and ".join(pair) for pair in (CHECKPOINT, EXPORT, ORIGINAL))
        raise UserError(f"{folder} holds no prefix: expected {kinds}")
    if (folder / EXPORT[1]).is_file():
        path = folder / EXPORT[1]
        return _validated(read_json_object(path), str(path))
    path = folder / CHECKPOINT[1]
    config = read_json_object(path)
    if META in config:
        return _validated(config[META], f"{path}: {META}")
    return _original_metadata(config, folder)


def _validated(meta: Any, where: str) -> dict[str, Any]:
    """Metadata whose types and sizes are those of :mod:`prefix_tuning.schema`."""
    schema.from_json(schema.PrefixMetadata, meta, where)
    if meta["parametrization"] in PARAMETRIZATIONS and "options" in meta:
        schema.slots_of(schema.Options, meta, where)
    return dict(meta)


def _original_metadata(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    kind, path = config.get("model_type", "gpt2"), folder / CHECKPOINT[1]
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise UserError(f"{path}: unknown model_type {kind!r}")
    try:
        base_config = CONFIG_MAPPING[kind].from_dict(config)
        shape = PrefixShape.from_config(base_config)
    except Exception as error:  # transformers checks some fields, and computes with all
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is no configuration of {kind} ({reason})") from error
    schema.from_json(PrefixShape, vars(shape), f"{path}: the shape of the base model")
    state = read_tensors(folder / ORIGINAL[0])
    name, options = _original_variant(state, shape, folder / ORIGINAL[0])
    options = {"dropout": config.get("prefix_dropout", 0.0), **options}
    if base_config.is_encoder_decoder:
        options["sites"] = [*SITES]
    base = {"name_or_path": None, "model_type": kind, "shape": vars(shape).copy()}
    meta = {"parametrization": name, "options": options, "base_model": base, "original": True}
    return _validated(meta, str(path))


def _original_variant(
    state: dict[str, Tensor], shape: PrefixShape, path: Path
) -> tuple[str, dict[str, Any]]:
    """Which variant the original's parameters are, and its options.

    Its configuration does not say: words replace ``preseqlen``, and depth is not recorded.
    """
    flat = state.get("control_trans")
    for key, tensor in state.items():
        if tensor.ndim < 1:
            raise UserError(f"{path}: {key} is a single number: it is no prefix of GPT-2 or BART")
    if flat is not None:
        if flat.ndim == 5:  # started from words, where the original applies no dropout
            return "flat", {"length": flat.shape[3], "dropout": 0.0}
        return "flat", {"length": flat.numel() // shape.features}
    if "wte.weight" not in state:
        raise UserError(f"{path} lacks wte.weight: it is no prefix of GPT-2 or BART")
    length, hidden = len(state["wte.weight"]), state.get("control_trans.0.weight")
    if hidden is None:
        return "embedding", {"length": length, "mlp": False}
    deep = "control_trans.4.weight" in state
    last = state.get("control_trans.4.bias" if deep else "control_trans.2.bias")
    if last is not None and len(last) == shape.width:
        return "embedding", {"length": length, "mid_dim": len(hidden)}
    name = "infix" if "wte2.weight" in state and "wte_enc.weight" not in state else "mlp"
    return name, {"length": length, "mid_dim": len(hidden), "deep": deep}


def load(folder: Path | str, model: PreTrainedModel | None = None) -> tuple[Prefix, dict[str, Any]]:
    """Read a prefix of any of the three kinds.

    Args:
        folder: where it is.
        model: the base model it shall steer; checked to be the one it was trained on.

    Returns:
        the prefix in eval mode, and its metadata.

    Raises:
        UserError: the folder is missing, damaged or incomplete, or belongs to another model.
    """
    folder = Path(folder)
    meta = read_metadata(folder)
    base = meta["base_model"]
    if model is not None and base.get("fingerprint") is not None:
        fingerprint.check_same(base, model, str(folder))
    shape = schema.from_json(PrefixShape, base["shape"], f"{folder}: shape")
    if model is not None and shape != PrefixShape.from_config(model.config):
        raise UserError(
            f"{folder} was trained on a model of {shape}, the model given has "
            f"{PrefixShape.from_config(model.config)}: give the right --model_name_or_path"
        )
    if is_export(folder):
        return _load_export(folder, shape, meta).eval(), meta
    if meta["parametrization"] not in PARAMETRIZATIONS or "options" not in meta:
        raise UserError(
            f"{folder} holds parameters of {meta['parametrization']!r}: give its export"
        )
    weights = folder / (ORIGINAL[0] if meta.get("original") else CHECKPOINT[0])
    state, build = read_tensors(weights), PARAMETRIZATIONS[meta["parametrization"]]
    try:
        with torch.device("meta"):  # shapes without memory: they may be far too large
            planned = build(shape, **meta["options"])
        state = _state_of(planned, state, weights)
        prefix = build(shape, **meta["options"])
    except UserError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder}: its options do not fit ({reason}): copy it again") from error
    prefix.load_state_dict(state)
    return prefix.eval(), meta


def _state_of(prefix: Prefix, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The parameters of ``prefix`` among those of a file, after comparing their shapes."""
    wanted, state = prefix.state_dict(), dict(prefix.from_original(state))
    missing = sorted(wanted.keys() - state.keys())
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}: it is no {type(prefix).__name__}")
    for name, tensor in wanted.items():
        if state[name].shape != tensor.shape:
            raise UserError(
                f"{path}: {name} has shape {[*state[name].shape]}, its config.json says "
                f"{[*tensor.shape]}"
            )
    return {name: state[name] for name in wanted}


def _load_export(folder: Path, shape: PrefixShape, meta: dict[str, Any]) -> FlatPrefix:
    path = folder / EXPORT[0]
    tensors, values = read_tensors(path), dict[str, Tensor]()
    slots = schema.slots_of(schema.Slots, meta, str(folder / EXPORT[1]))
    length, sites = slots.length, slots.sites
    wanted = [shape.n_layer, 2, shape.n_head, length, shape.head_dim]
    for site in sites:
        table = tensors.get(_export_name(site))
        if table is None or [*table.shape] != wanted:
            found = None if table is None else [*table.shape]
            raise UserError(f"{path}: {_export_name(site)} {found}, but {EXPORT[1]} says {wanted}")
        values[site] = shape.to_slots(table)
    return FlatPrefix(shape, length, sites=sites, values=values)
