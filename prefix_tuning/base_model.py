"""Loading the frozen model, and recognising it again."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from huggingface_hub import constants
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from prefix_tuning.errors import UserError
from prefix_tuning.shape import PrefixShape

Loaded = TypeVar("Loaded")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _source(name: str) -> dict[str, Any]:
    """The ``from_pretrained`` arguments of a hub name, a local folder or a GGUF file."""
    if name.endswith(".gguf"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"--model_name_or_path {name}: there is no such GGUF file")
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    return {"pretrained_model_name_or_path": name}


def _dense(name: str) -> dict[str, Any]:
    """What makes newer versions of transformers unpack a GGUF file, as older ones always do."""
    if name.endswith(".gguf") and hasattr(transformers, "GgufConfig"):
        return {"quantization_config": transformers.GgufConfig(dequantize=True)}
    return {}


def _forget_quantization(model: PreTrainedModel) -> None:
    """Unpacked GGUF weights are plain numbers; ``save_pretrained`` refuses while these remain."""
    owners = [(model.config, "quantization_config"), (model, "hf_quantizer")]
    owners += [(model, "is_quantized"), (model, "quantization_method")]
    for owner, attribute in owners:
        if hasattr(owner, attribute):
            delattr(owner, attribute)


def hub_answers(seconds: float = 3.0) -> bool:
    """Whether the model hub can be reached, without the minutes of retries that loading takes."""
    if constants.HF_HUB_OFFLINE:
        return False
    request = urllib.request.Request(f"{constants.ENDPOINT}/gpt2/raw/main/config.json")
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _load(name: str, load: Callable[..., Loaded]) -> Loaded:
    """Load from the folder or the cache, and only then from the hub."""
    failures = (OSError, ValueError, ImportError, KeyError, SafetensorError)
    try:
        return load(local_files_only=True)
    except failures as error:
        if Path(name).is_dir() or name.endswith(".gguf") or not hub_answers():
            raise _explain(name, error) from error
    try:
        return load()
    except failures as error:
        raise _explain(name, error) from error


def _explain(name: str, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, ImportError):
        return UserError(f"--model_name_or_path {name}: {reason}")
    if Path(name).is_dir():
        return UserError(f"--model_name_or_path {name}: this folder cannot be loaded ({reason})")
    return UserError(
        f"--model_name_or_path {name}: neither a local folder nor in the cache, and the model hub "
        "did not give it; give the path of a downloaded model folder or a GGUF file"
    )


def load_tokenizer(name: str, cache_dir: str | None = None, **more: Any) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base model; ``more`` goes to ``from_pretrained``.

    Raises:
        UserError: it cannot be had, is empty, or has neither an end token nor a separator.
    """
    load = partial(AutoTokenizer.from_pretrained, **_source(name), cache_dir=cache_dir, **more)
    tokenizer: Any = _load(name, load)
    # Given the wrong file names, transformers builds a tokenizer without a vocabulary, silently.
    if len(tokenizer) < 10 or not tokenizer("a b", add_special_tokens=False).input_ids:
        raise UserError(f"--model_name_or_path {name}: its tokenizer is empty (vocabulary missing)")
    if tokenizer.eos_token_id is None and tokenizer.sep_token_id is None:
        raise UserError(f"--model_name_or_path {name}: its tokenizer has no end-of-text token")
    return tokenizer


def load_config(name: str, cache_dir: str | None = None, **more: Any) -> PretrainedConfig:
    """Load the configuration of a base model; ``more`` goes to ``from_pretrained``.

    Raises:
        UserError: it cannot be had.
    """
    load = partial(AutoConfig.from_pretrained, **_source(name), cache_dir=cache_dir, **more)
    return _load(name, load)


def load_model(
    name: str,
    auto_class: Any,
    dtype: str = "float32",
    cache_dir: str | None = None,
    **more: Any,
) -> PreTrainedModel:
    """Load a model, in eval mode.

    Args:
        name: a hub name (``gpt2-medium``), a local folder, or the path of a ``.gguf`` file.
        auto_class: transformers' class for its kind, which names its head.
        dtype: one of :data:`DTYPES`.
        more: goes to ``from_pretrained`` (``config``, ``revision``, ...).

    Raises:
        UserError: the model cannot be had.
    """
    load = partial(
        auto_class.from_pretrained,
        **_source(name),
        **_dense(name),
        dtype=DTYPES[dtype],
        cache_dir=cache_dir,
        **more,
    )
    model: Any = _load(name, load)
    if name.endswith(".gguf"):
        _forget_quantization(model)
    return model.eval()


def load_causal_lm(
    name: str, dtype: str = "float32", cache_dir: str | None = None
) -> PreTrainedModel:
    """:func:`load_model` for a decoder-only model with its head."""
    return load_model(name, AutoModelForCausalLM, dtype, cache_dir)


def fingerprint(model: PreTrainedModel) -> dict[str, list[float]]:
    """Eight numbers from each of eight matrices of the layers.

    Embeddings are left out: a padding row may be added to them. The numbers survive a change of
    dtype up to its rounding, which a hash would not.
    """
    body = model.base_model if hasattr(model, "base_model") else model
    matrices = {n: p for n, p in body.named_parameters() if p.ndim == 2 and ".weight" in n}
    names = sorted(n for n in matrices if any(part.isdigit() for part in n.split(".")))
    picked = names[:: max(1, len(names) // 8)][:8]
    return {n: _sample(matrices[n]) for n in picked}


def _sample(matrix: torch.Tensor, count: int = 8) -> list[float]:
    flat = matrix.detach().reshape(-1)
    at = torch.linspace(0, flat.numel() - 1, count, dtype=torch.float64).long()
    return flat[at.to(flat.device)].float().tolist()


def describe(model: PreTrainedModel, name: str) -> dict[str, Any]:
    """What a checkpoint keeps of its base model, as JSON values."""
    shape = PrefixShape.from_config(model.config)
    return {
        "name_or_path": name,
        "model_type": model.config.model_type,
        "shape": vars(shape).copy(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "fingerprint": fingerprint(model),
    }


def check_same(described: dict[str, Any], model: PreTrainedModel, where: str) -> None:
    """Raise :class:`UserError` if ``model`` is not the base model a checkpoint was trained on.

    Args:
        described: the value of :func:`describe` at that time.
        where: the checkpoint, for the message.
    """
    now = describe(model, "")
    wanted = f"{where} belongs to {described['name_or_path']} ({described['model_type']}"
    advice = "give the model it was trained on with --model_name_or_path"
    for key in ("model_type", "shape"):
        if described[key] != now[key]:
            raise UserError(
                f"{wanted}, {described['shape']}), not to a {now['model_type']} model of "
                f"{now['shape']}: {advice}"
            )
    step = max(torch.finfo(DTYPES[d["dtype"]]).eps for d in (described, now))
    for name, values in described["fingerprint"].items():
        found = now["fingerprint"].get(name)
        if found is None:
            continue  # the library renamed the parameter since
        for value, other in zip(values, found, strict=True):
            if abs(value - other) > 2 * step * max(abs(value), 1e-3):
                raise UserError(
                    f"{wanted}), whose weights differ from those of the model given "
                    f"({name}: {value:.6g}, not {other:.6g}): {advice}"
                )
