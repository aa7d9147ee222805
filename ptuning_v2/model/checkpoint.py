"""Trained prompts and heads on disk.

A run writes two kinds of folder, and a third is read as well:

====================  ======================================  ==================================
folder                files                                   parameters
====================  ======================================  ==================================
checkpoint            ``model.safetensors``, ``config.json``  everything that is trained
export                ``prefix.safetensors``,                 keys and values of a deep prompt,
                      ``head.safetensors``, ``prefix.json``   and the head
the original's        ``pytorch_model.bin``, ``config.json``  the whole model, of which the
                                                              trained part is read
====================  ======================================  ==================================

All names are the original's. Frozen weights are not stored, unless the pretrained ones lack them
(RoBERTa's pooler, random and needed again). A fine-tuned model is stored whole, and
``from_pretrained`` can load it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.only import given
from prefix_tuning import checkpoint, fingerprint, schema
from prefix_tuning.checkpoint import CHECKPOINT, EXPORT, META, ORIGINAL, read_tensors
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, write_json
from prefix_tuning.prefix import Prefix
from ptuning_v2.model.prompted_encoder import PromptedEncoder

if TYPE_CHECKING:
    from ptuning_v2.arguments import ModelArguments

HEAD = "head.safetensors"
_TUNING = (
    *("prefix", "prompt", "pre_seq_len", "prefix_projection", "prefix_hidden_size"),
    *("hidden_dropout_prob", "shift_positions", "freeze_backbone"),
    *("parametrization", "prefix_options", "convolve_padding"),
)
"""The flags that say what is trained; a checkpoint remembers them."""


def _base(model: nn.Module) -> PreTrainedModel:
    """The encoder of a model with prompts, or the library's own model."""
    return model.backbone if isinstance(model, PromptedEncoder) else cast(PreTrainedModel, model)


def kept_parameters(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint holds: trained parameters, and frozen ones the base model's file lacks."""
    new = set(cast(Any, model).new_names)
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad or n in new}


def metadata(model: nn.Module, model_args: ModelArguments, **task: Any) -> dict[str, Any]:
    """What a checkpoint says about itself, as JSON values; ``task`` is its task and its labels."""
    return {
        "parametrization": model_args.parametrization,
        "tuning": {name: getattr(model_args, name) for name in _TUNING},
        # Real tokens are numbered from here.
        "position_offset": model_args.occupied_positions,
        "base_model": fingerprint.describe(_base(model), model_args.model_name_or_path),
        "task": task,
    }


def save(folder: Path, model: nn.Module, meta: dict[str, Any]) -> None:
    """Write a checkpoint; ``meta`` is the value of :func:`metadata`."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_tensors(folder / CHECKPOINT[0], kept_parameters(model))
    config = {**cast(Any, model).config.to_dict(), **meta["tuning"], META: meta}
    write_json(folder / CHECKPOINT[1], config)


def export(folder: Path, model: nn.Module, meta: dict[str, Any]) -> bool:
    """Write keys, values and head alone; return whether there are any (deep prompts only)."""
    prefix = getattr(model, "prefix_encoder", None)
    if not isinstance(prefix, Prefix):
        return False
    checkpoint.export(folder, prefix, meta)
    head = kept_parameters(model).items()
    rest = {name: tensor for name, tensor in head if not name.startswith("prefix_encoder.")}
    checkpoint.write_tensors(folder / HEAD, rest)
    return True


def read_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of a folder of any kind.

    Raises:
        UserError: it holds no trained prompts or heads.
    """
    if (folder / EXPORT[1]).is_file() and (folder / HEAD).is_file():
        path = folder / EXPORT[1]
        return _validated(read_json_object(path), path)
    if (folder / CHECKPOINT[1]).is_file():
        path = folder / CHECKPOINT[1]
        config = read_json_object(path)
        ours = config.get(META, {})
        if not isinstance(ours, dict) or "tuning" in ours:
            return _validated(ours, path)
        if "pre_seq_len" in config and (folder / ORIGINAL[0]).is_file():
            return _validated({"tuning": _original_tuning(config), "original": True}, path)
    raise UserError(
        f"--prefix_checkpoint {folder} holds nothing trained here: name a run's best/, export/ or "
        "checkpoint-... folder"
    )


@dataclass(frozen=True)
class _Tuning:
    """The flags of :data:`_TUNING`, as a file has them."""

    prefix: bool
    prompt: bool
    pre_seq_len: int = schema.number(1, schema.LARGEST, 4)
    prefix_projection: bool = False
    prefix_hidden_size: int = schema.number(1, schema.LARGEST, 512)
    hidden_dropout_prob: float = schema.number(0, 1, 0.1)
    shift_positions: Literal["yes", "no"] = "yes"
    freeze_backbone: bool = False
    parametrization: str = "ptuning_v2"
    prefix_options: str | None = None
    convolve_padding: Literal["yes", "no"] = "yes"
    """What does not say so was trained when there was no other way, or by the original."""


@dataclass(frozen=True)
class _Metadata:
    """What a folder says of itself (:func:`metadata`)."""

    tuning: _Tuning
    base_model: schema.BaseModel | None = None
    task: schema.Task = field(default_factory=schema.Task)
    position_offset: int | None = schema.number(0, schema.LARGEST, None)


def _validated(meta: Any, path: Path) -> dict[str, Any]:
    """Metadata whose types and sizes are right; of the flags, those that are known."""
    tuning = schema.from_json(_Metadata, meta, str(path)).tuning
    said = {*meta["tuning"], "convolve_padding"}
    known = {name: getattr(tuning, name) for name in _TUNING if name in said}
    return {**meta, "tuning": known}


def _original_tuning(config: dict[str, Any]) -> dict[str, Any]:
    names = ("pre_seq_len", "prefix_projection", "prefix_hidden_size", "hidden_dropout_prob")
    tuning = {name: config[name] for name in names if name in config}
    deep = "prefix_projection" in config  # of shallow prompts it noted the length only
    return {**tuning, "prefix": deep, "prompt": not deep, "shift_positions": "yes"}


def adopted(model_args: ModelArguments) -> ModelArguments:
    """The flags that ``--prefix_checkpoint``, where given, was trained with.

    Where a flag says otherwise, that is said.

    Raises:
        UserError: the folder holds no trained prompts or heads.
    """
    folder = model_args.prefix_checkpoint
    if folder is None:
        return model_args
    tuning = read_metadata(Path(folder))["tuning"]
    for name, value in given(model_args).items():
        if value != tuning.get(name, value):
            print(f"note: {folder} has --{name} {tuning[name]}; {value} is not read")
    return replace(model_args, **tuning)


def load(folder: Path, model: nn.Module) -> None:
    """Fill ``model`` with a folder of any kind.

    Raises:
        UserError: the folder is damaged, or belongs to another base model or task.
    """
    meta = read_metadata(folder)
    described = meta.get("base_model")
    base = _base(model)
    if described and any(not p.requires_grad for p in base.parameters()):
        fingerprint.check_same(described, base, str(folder))
    wanted: Collection[str]
    if (folder / HEAD).is_file():
        model.prefix_encoder = checkpoint.load(folder, base)[0].to(base.device)
        path = folder / HEAD
        state = read_tensors(path)
        wanted = {n for n in kept_parameters(model) if not n.startswith("prefix_encoder.")}
    else:
        path = folder / (ORIGINAL[0] if meta.get("original") else CHECKPOINT[0])
        state, wanted = read_tensors(path), kept_parameters(model).keys()
    _fill(model, {name: state[name] for name in wanted if name in state}, wanted, path)


def _fill(model: nn.Module, state: dict[str, Tensor], wanted: Collection[str], path: Path) -> None:
    missing = sorted(set(wanted) - state.keys())
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}: it is of another model or task")
    for name, tensor in state.items():
        expected = model.get_parameter(name).shape
        if tensor.shape != expected:
            raise UserError(
                f"{path}: {name} has shape {[*tensor.shape]}, expected {[*expected]}: it is of "
                "another model or task"
            )
    model.load_state_dict(state, strict=False)
