"""Prefixes as the KV cache of other engines, as if a text had been read before.

====================  ===============================  =========================================
format                file                             who opens it
====================  ===============================  =========================================
``cache``             ``cache.safetensors``            transformers: a ``DynamicCache``
``mlx``               ``prompt_cache.safetensors``     ``mlx_lm.generate --prompt-cache-file``
====================  ===============================  =========================================

Only decoders have such a cache, and real tokens are numbered from its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from prefix_tuning.checkpoint import read_tensors
from prefix_tuning.errors import UserError
from prefix_tuning.files import replacing
from prefix_tuning.prefix import Prefix

CACHE = "cache.safetensors"
MLX = "prompt_cache.safetensors"


def check_decoder(prefix: Prefix, meta: Mapping[str, Any], reader: str) -> None:
    """Raise :class:`UserError` where ``reader``, which fills a decoder's cache, lacks something."""
    kind = meta["base_model"]["model_type"]
    if prefix.sites != ("self",):
        raise UserError(
            f"this prefix stands at {', '.join(prefix.sites)} of an encoder-decoder ({kind}), "
            f"{reader} fills only the decoder's own attention: keep --format native"
        )
    is_decoder = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not is_decoder or kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise UserError(
            f"{reader} fills the cache of a decoder, and {kind} has none: keep --format native"
        )
    offset = meta.get("position_offset", prefix.length)
    if offset != prefix.length:
        raise UserError(
            f"real tokens are numbered from {offset} behind this prefix, in {reader} always from "
            f"its end ({prefix.length}): keep --format native"
        )


def _pairs(prefix: Prefix, model: PreTrainedModel | None) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of every layer, fp32 ``[1, H, P, d]``."""
    layers = prefix.flatten(model).key_values()
    return [(pair[0].detach().float(), pair[1].detach().float()) for pair in layers]


def write_cache(
    folder: Path, prefix: Prefix, meta: Mapping[str, Any], model: PreTrainedModel | None = None
) -> int:
    """Write arrays ``keys.<layer>`` and ``values.<layer>``, fp32 ``[1, H, P, d]``.

    Args:
        meta: the prefix's metadata (:func:`prefix_tuning.checkpoint.read_metadata`).
        model: as in :meth:`prefix_tuning.prefix.Prefix.prompt`.

    Returns:
        the size of the file in bytes.

    Raises:
        UserError: the prefix is not a decoder's.
    """
    check_decoder(prefix, meta, "a DynamicCache")
    arrays: dict[str, Tensor] = {}
    for layer, (keys, values) in enumerate(_pairs(prefix, model)):
        arrays |= {f"keys.{layer}": keys, f"values.{layer}": values}
    return _write(folder / CACHE, arrays, {"format": "pt"})


def read_cache(path: Path, model: PreTrainedModel, rows: int = 1) -> DynamicCache:
    """A cache for ``past_key_values`` of a call or of ``generate``.

    Args:
        path: what :func:`write_cache` wrote.
        model: the base model, without ``enable_prefix``.
        rows: of the batch. The attention mask of a call must have ``P`` ones in front.
    """
    arrays = {
        name: array.to(device=model.device, dtype=model.dtype).repeat(rows, 1, 1, 1)
        for name, array in read_tensors(path).items()
    }
    layers = range(len(arrays) // 2)
    return DynamicCache([(arrays[f"keys.{i}"], arrays[f"values.{i}"]) for i in layers])


def write_mlx(
    folder: Path, prefix: Prefix, meta: Mapping[str, Any], model: PreTrainedModel | None = None
) -> int:
    """Write a prompt cache of mlx-lm (the layout of 0.32).

    Arrays ``<layer>.0`` and ``<layer>.1`` are keys and values ``[1, H, P, d]``, ``<layer>.2`` is
    the number of tokens read. The metadata is a tree by dotted names: ``0`` is free (``mlx_lm``
    looks for the model and its tokenizer's options there), ``1`` the class of every layer's cache,
    ``2`` the arrays that are numbers, behind an empty entry.

    Arguments, result and errors as in :func:`write_cache`.
    """
    check_decoder(prefix, meta, "mlx-lm")
    name = meta["base_model"].get("name_or_path") or ""
    about = {"0.model": name, "0.tokenizer_config": "{}", "2.0": ""}
    arrays: dict[str, Tensor] = {}
    for layer, (keys, values) in enumerate(_pairs(prefix, model)):
        n_token = torch.tensor(keys.shape[2], dtype=torch.int32)
        arrays |= {f"{layer}.0": keys, f"{layer}.1": values, f"{layer}.2": n_token}
        about[f"1.{layer}"] = "KVCache"
        about |= {f"2.{layer + 1}.0": f"{layer}.2", f"2.{layer + 1}.1": "scalar"}
    return _write(folder / MLX, arrays, about)


def _write(path: Path, arrays: dict[str, Tensor], about: dict[str, str]) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file({name: array.contiguous() for name, array in arrays.items()}, temporary, about)
    return path.stat().st_size
