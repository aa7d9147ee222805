"""Loading the frozen model and its tokenizer: from the hub, a folder or a GGUF file."""

from __future__ import annotations

import pickle
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from huggingface_hub import constants
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from prefix_tuning.errors import UserError, lacks_memory

Loaded = TypeVar("Loaded")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _source(name: str) -> dict[str, Any]:
    """The ``from_pretrained`` arguments of a hub name, a local folder or a GGUF file."""
    if name.endswith(".gguf"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"--model_name_or_path {name}: there is no such GGUF file")
        file = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        return {**file, "trust_remote_code": False}
    return {"pretrained_model_name_or_path": name, "trust_remote_code": False}


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
    if not sys.stderr.isatty():  # a log would get every state of a bar
        logging.disable_progress_bar()
    # What libraries say to damaged files has no class in common: tokenizers raises bare exceptions.
    try:
        return load(local_files_only=True)
    except Exception as error:
        if lacks_memory(error):
            raise
        if Path(name).is_dir() or name.endswith(".gguf") or not hub_answers():
            raise _explain(name, error) from error
    try:
        return load()
    except Exception as error:
        raise _explain(name, error) from error


def _explain(name: str, error: Exception) -> UserError:
    if "trust_remote_code" in str(error):
        return UserError(
            f"--model_name_or_path {name}: it comes with code of its own, which is never run here; "
            "give a model of an architecture that transformers knows"
        )
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
        return UserError(
            f"--model_name_or_path {name}: its weights are a pickle that is damaged or holds more "
            "than tensors, which is never loaded since it could run code; give safetensors"
        )
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, ImportError):
        return UserError(f"--model_name_or_path {name}: {reason}")
    if Path(name).exists():
        kind = "folder" if Path(name).is_dir() else "file"
        return UserError(f"--model_name_or_path {name}: this {kind} cannot be loaded ({reason})")
    return UserError(
        f"--model_name_or_path {name}: neither a local folder nor in the cache, and the model hub "
        "did not give it; give the path of a downloaded model folder or a GGUF file"
    )


def load_tokenizer(name: str, cache_dir: str | None = None, **more: Any) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base model; ``more`` goes to ``from_pretrained``.

    Raises:
        UserError: it cannot be had, is empty, or has neither an end token nor a separator.
    """

    def load(**options: bool) -> tuple[Any, list[int]]:
        options |= {**_source(name), **more}
        tokenizer = AutoTokenizer.from_pretrained(cache_dir=cache_dir, **options)
        return tokenizer, tokenizer("a b", add_special_tokens=False).input_ids

    tokenizer, ids = _load(name, load)
    # Given the wrong file names, transformers builds a tokenizer without a vocabulary, silently.
    if len(tokenizer) < 10 or not ids:
        raise UserError(f"--model_name_or_path {name}: its tokenizer is empty (vocabulary missing)")
    if tokenizer.eos_token_id is None and tokenizer.sep_token_id is None:
        raise UserError(f"--model_name_or_path {name}: its tokenizer has no end-of-text token")
    return tokenizer


def tokenizer_name(given: str | None, base: str) -> str:
    """Whose tokenizer is meant: the base model's where a folder is named that has none.

    The original's commands name the folder of the run.
    """
    if given is None:
        return base
    folder = Path(given)
    is_run = folder.is_dir() and not any(folder.glob("*token*")) and not any(folder.glob("vocab*"))
    return base if is_run else given


def tokenizer_for(
    base: str, given: str | None = None, cache_dir: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a base model, or what ``--tokenizer_name`` gives instead.

    Raises:
        UserError: it cannot be had, or its tokens have other numbers than those of the model.
    """
    name = tokenizer_name(given or None, base)
    tokenizer = load_tokenizer(name, cache_dir)
    if name == base:
        return tokenizer
    numbers = tokenizer.get_vocab()
    try:
        own = load_tokenizer(base, cache_dir).get_vocab()
        fits = sum(own.get(token) == number for token, number in numbers.items())
    except UserError:  # a model without a tokenizer, which is why one is given
        n_row = load_config(base, cache_dir).get_text_config().vocab_size
        fits = sum(number < n_row for number in numbers.values())
    if fits < 0.9 * len(numbers):
        raise UserError(
            f"--tokenizer_name {given}: {len(numbers) - fits:,} of its {len(numbers):,} tokens "
            f"have other numbers in {base}: leave the flag out, or give a tokenizer of its family"
        )
    return tokenizer


SPECIAL = ("bos", "eos", "cls", "sep", "pad", "unk")


def token_ids(tokenizer: Any, names: Sequence[str] = SPECIAL) -> dict[str, int | None]:
    """The numbers of a tokenizer's special tokens, by the names that configurations use."""
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}


def check_rows(name: str, config: PretrainedConfig, settings: Mapping[str, Any]) -> None:
    """Hold token numbers, the settings called ``..._token_id``, to the rows of the embeddings.

    Raises:
        UserError: there is no such row; torch would say "index out of range". Or ``pad_token_id``
            is None.
    """
    if settings.get("pad_token_id", 0) is None:
        raise UserError(
            f"--model_name_or_path {name}: its tokenizer has no padding token: copy it again"
        )
    n_row = config.get_text_config().vocab_size
    for key, value in settings.items():
        for number in value if isinstance(value, list) else [value]:
            is_row = number is None or (isinstance(number, int) and 0 <= number < n_row)
            if key.endswith("_token_id") and not is_row:
                raise UserError(
                    f"--model_name_or_path {name}: {key} is {number}, its embeddings have {n_row} "
                    "rows: take tokenizer and model of one folder"
                )


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
        UserError: the model cannot be had, or its weights are not all there, as in the folder of a
            prefix, whose configuration is the base model's.
    """
    model, missing = load_partly(name, auto_class, dtype, cache_dir, **more)
    if missing:
        raise _incomplete(name, min(missing), model)
    return model


def load_partly(
    name: str,
    auto_class: Any,
    dtype: str = "float32",
    cache_dir: str | None = None,
    **more: Any,
) -> tuple[PreTrainedModel, list[str]]:
    """:func:`load_model` for weights that may lack some parameters, such as a new head.

    Returns:
        the model, and the names of the parameters that the weights lack, which are random.

    Raises:
        UserError: the model cannot be had, or a parameter has another shape in its weights.
    """
    # The library fills with random numbers what is missing, and says so only in its log.
    load = partial(
        auto_class.from_pretrained,
        **_source(name),
        **_dense(name),
        dtype=DTYPES[dtype],
        cache_dir=cache_dir,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **more,
    )
    loaded: Any = _load(name, load)
    model, info = loaded
    mismatched = [key for key, *_ in info["mismatched_keys"]]
    if mismatched:
        raise _incomplete(name, min(mismatched), model)
    if name.endswith(".gguf"):
        _forget_quantization(model)
    return model.eval(), list(info["missing_keys"])


def _incomplete(name: str, key: str, model: PreTrainedModel) -> UserError:
    return UserError(
        f"--model_name_or_path {name}: its weights lack {key}, or have another shape of "
        f"it than its configuration: they are not those of a {type(model).__name__}"
    )


def load_causal_lm(
    name: str, dtype: str = "float32", cache_dir: str | None = None
) -> PreTrainedModel:
    """:func:`load_model` for a decoder-only model with its head."""
    return load_model(name, AutoModelForCausalLM, dtype, cache_dir)
