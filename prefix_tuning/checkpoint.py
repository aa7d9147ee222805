"""Prefixes on disk.

Three kinds of folder are read:

====================  ==========================================  ============================
folder                files                                       parameters
====================  ==========================================  ============================
checkpoint            ``model.safetensors``, ``config.json``      as trained (MLP and all)
export                ``prefix.safetensors``, ``prefix.json``     keys and values only
the original's        ``pytorch_model.bin``, ``config.json``      MLP, names as here
====================  ==========================================  ============================

The export is what people keep: one fp32 tensor ``past_key_values [L, 2, H, P, d]``, 0.98 MB for
GPT-2 medium at ``P = 5``, where a checkpoint takes 103 MB. An encoder-decoder has two more, for its
other attentions: ``past_key_values.encoder`` and ``past_key_values.encoder_decoder``. Nothing is
unpickled but an original ``pytorch_model.bin``, and that with ``weights_only=True``.
"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedModel

from prefix_tuning import base_model
from prefix_tuning.errors import UserError
from prefix_tuning.prefix import PARAMETRIZATIONS, SUFFIXES, FlatPrefix, Prefix, PrefixShape

CHECKPOINT = ("model.safetensors", "config.json")
EXPORT = ("prefix.safetensors", "prefix.json")
ORIGINAL = ("pytorch_model.bin", "config.json")
META = "prefix_tuning"
"""Key of our part of ``config.json``, whose rest is the base model's configuration."""


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` so that a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write ``tensors`` on the same condition."""
    temporary = path.with_name(path.name + ".tmp")
    save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, {"format": "pt"})
    os.replace(temporary, path)


def metadata(prefix: Prefix, model: PreTrainedModel, name: str, **more: Any) -> dict[str, Any]:
    """What a checkpoint says about its prefix; ``more`` is the task's own part (JSON values)."""
    return {
        "parametrization": prefix.parametrization,
        "options": prefix.options(),
        # Real tokens are numbered from here.
        "position_offset": 0 if model.config.is_encoder_decoder else prefix.length,
        "base_model": base_model.describe(model, name),
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


def export(folder: Path, prefix: Prefix, meta: dict[str, Any]) -> int:
    """Write the keys and values alone; return the size of the tensor file in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    was_training = prefix.training
    with torch.no_grad():
        tables = {
            _export_name(site): torch.stack(layers)[:, :, 0].float()
            for site, layers in prefix.eval().all_key_values().items()
        }
    prefix.train(was_training)
    write_tensors(folder / EXPORT[0], tables)
    options = {"length": prefix.length, "dropout": 0.0, "sites": [*prefix.sites]}
    write_json(folder / EXPORT[1], {**meta, "parametrization": "flat", "options": options})
    return (folder / EXPORT[0]).stat().st_size


def _export_name(site: str) -> str:
    return "past_key_values" if site == "self" else f"past_key_values.{site}"


def last_complete_checkpoint(run: Path) -> Path | None:
    """The newest ``checkpoint-<step>`` of a training run that was written to its end.

    Trainer writes ``trainer_state.json`` last: where it is whole, everything before it is.
    """
    found = []
    for folder in run.glob("checkpoint-*"):
        try:
            state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
            found.append((state["global_step"], folder))
        except (OSError, ValueError, KeyError):
            continue
    return max(found)[1] if found else None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or raise :class:`UserError` saying what is wrong with the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable JSON ({error}): copy the folder again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object: copy the folder again")
    return value


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors, or raise :class:`UserError` saying what is wrong with it."""
    try:
        if path.suffix == ".bin":
            return torch.load(path, map_location="cpu", weights_only=True)
        return load_file(path)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} is damaged ({error}): copy the folder again") from error


def is_prefix_folder(folder: Path) -> bool:
    """Whether ``folder`` is of one of the three kinds (a fine-tuned model is not)."""
    if all((folder / name).is_file() for name in EXPORT):
        return True
    if not (folder / CHECKPOINT[1]).is_file():
        return False
    config = read_json(folder / CHECKPOINT[1])
    if META in config:
        return (folder / CHECKPOINT[0]).is_file()
    return "preseqlen" in config and (folder / ORIGINAL[0]).is_file()


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
        return read_json(folder / EXPORT[1])
    config = read_json(folder / CHECKPOINT[1])
    return config[META] if META in config else _original_metadata(config, folder)


def _original_metadata(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    kind = config.get("model_type", "gpt2")
    if kind not in CONFIG_MAPPING:
        raise UserError(f"{folder / 'config.json'}: unknown model_type {kind!r}")
    base_config = CONFIG_MAPPING[kind].from_dict(config)
    shape = PrefixShape.from_config(base_config)
    options = {
        "sites": [*SUFFIXES] if base_config.is_encoder_decoder else ["self"],
        "deep": config.get("use_deep") in ("yes", True),
        "length": config["preseqlen"],
        "dropout": config.get("prefix_dropout", 0.0),
        "mid_dim": config.get("mid_dim", 512),
    }
    base = {"name_or_path": None, "model_type": kind, "shape": vars(shape).copy()}
    return {"parametrization": "mlp", "options": options, "base_model": base, "original": True}


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
    if model is not None and "fingerprint" in base:
        base_model.check_same(base, model, str(folder))
    shape = PrefixShape(**base["shape"])
    if model is not None and shape != PrefixShape.from_config(model.config):
        raise UserError(
            f"{folder} was trained on a model of {shape}, the model given has "
            f"{PrefixShape.from_config(model.config)}: give the right --model_name_or_path"
        )
    if (folder / EXPORT[0]).is_file():
        return _load_export(folder, shape, meta).eval(), meta
    weights = folder / (ORIGINAL[0] if meta.get("original") else CHECKPOINT[0])
    prefix = PARAMETRIZATIONS[meta["parametrization"]](shape, **meta["options"])
    _load_state(prefix, read_tensors(weights), weights)
    return prefix.eval(), meta


def _load_state(prefix: Prefix, state: dict[str, Tensor], path: Path) -> None:
    wanted = prefix.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}: it is no {type(prefix).__name__}")
    for name, tensor in wanted.items():
        if state[name].shape != tensor.shape:
            raise UserError(
                f"{path}: {name} has shape {[*state[name].shape]}, its config.json says "
                f"{[*tensor.shape]}"
            )
    prefix.load_state_dict({name: state[name] for name in wanted})


def _load_export(folder: Path, shape: PrefixShape, meta: dict[str, Any]) -> FlatPrefix:
    path = folder / EXPORT[0]
    tensors, values = read_tensors(path), {}
    length, sites = meta["options"]["length"], meta["options"].get("sites", ["self"])
    wanted = [shape.n_layer, 2, shape.n_head, length, shape.head_dim]
    for site in sites:
        table = tensors.get(_export_name(site))
        if table is None or [*table.shape] != wanted:
            found = None if table is None else [*table.shape]
            raise UserError(f"{path}: {_export_name(site)} {found}, but {EXPORT[1]} says {wanted}")
        values[site] = table.permute(3, 0, 1, 2, 4)
    return FlatPrefix(shape, length, sites=sites, values=values)
