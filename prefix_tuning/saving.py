"""A prefix in a folder, whatever wrote it: to keep, to share, to go on training.

One step above :mod:`prefix_tuning.checkpoint`: with the head of a classifier, the card that hubs
show, and the folders of PEFT.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from transformers import PreTrainedModel

from prefix_tuning import checkpoint, hub, model_card, peft_format
from prefix_tuning.checkpoint import CHECKPOINT, EXPORT, META
from prefix_tuning.errors import NOT_FINITE, UserError
from prefix_tuning.files import read_json_object, write_json
from prefix_tuning.model_card import Facts
from prefix_tuning.prefix import Prefix

HEAD = "head.safetensors"
"""The trained head of a classifier, beside an export."""


class Saved(NamedTuple):
    """What a folder holds."""

    prefix: Prefix
    """In eval mode."""
    meta: dict[str, Any]
    head: dict[str, Tensor]
    """Parameters of the model that were trained besides; empty for a language model."""

    @property
    def offset(self) -> int | None:
        """Where real tokens are numbered from, if not where this kind of model has them."""
        offset = self.meta.get("position_offset", self.prefix.length)
        is_usual = offset == self.prefix.length or self.prefix.sites != ("self",)
        return None if is_usual else offset


def save_prefix(
    folder: Path | str,
    prefix: Prefix,
    model: PreTrainedModel,
    *,
    head: Mapping[str, Tensor] | None = None,
    facts: Facts | None = None,
    offset: int | None = None,
) -> int:
    """Write what is kept of a prefix: its keys and values, safetensors and JSON, and a card.

    Args:
        folder: made if need be; what it holds of an older prefix is replaced.
        prefix: of any parametrisation.
        model: the base model, after ``enable_prefix``.
        head: trained parameters of the model besides, by name.
        facts: for the card.
        offset: where real tokens are numbered from, ``P`` or 0 by the kind of model when not given.

    Returns:
        the size of the keys and values in bytes.

    Raises:
        UserError: the prefix depends on each source and has no keys and values of its own.
    """
    folder, head = Path(folder), dict(head or {})
    meta = describe(prefix, model, head, offset)
    if facts is not None and facts.known():
        meta["facts"] = facts.known()
    size = checkpoint.export(folder, prefix, meta, model)
    if head:
        checkpoint.write_tensors(folder / HEAD, head)
    else:
        (folder / HEAD).unlink(missing_ok=True)
    model_card.write(folder, meta, facts, auto=_loader(model))
    return size


def save_parameters(
    folder: Path | str,
    prefix: Prefix,
    model: PreTrainedModel,
    *,
    state: Mapping[str, Tensor] | None = None,
    head: Mapping[str, Tensor] | None = None,
    facts: Facts | None = None,
    offset: int | None = None,
) -> None:
    """Write the prefix as it is trained, so that training can go on; arguments as above.

    ``state`` is taken instead of the prefix's own, where a wrapper has gathered it.

    Its ``config.json`` names no ``model_type``: the base's own loader refuses the folder, instead
    of drawing the base's weights at random.

    Raises:
        UserError: the folder holds a model, whose files have the same names.
    """
    folder, head = Path(folder), dict(head or {})
    config = folder / CHECKPOINT[1]
    if config.is_file() and META not in read_json_object(config):
        raise UserError(f"{folder} holds a model, which would be replaced: give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    meta = describe(prefix, model, head, offset)
    state = prefix.state_dict() if state is None else state
    checkpoint.write_tensors(folder / CHECKPOINT[0], {**state, **head})
    write_json(folder / CHECKPOINT[1], {META: meta})
    model_card.write(folder, meta, facts, auto=_loader(model))


def describe(
    prefix: Prefix,
    model: PreTrainedModel,
    head: Mapping[str, Tensor] | None = None,
    offset: int | None = None,
) -> dict[str, Any]:
    """The metadata of a prefix for ``model``, with the names of the trained head."""
    meta = checkpoint.metadata(prefix, model, model.name_or_path or "")
    if offset is not None:
        meta["position_offset"] = offset
    return {**meta, "head": sorted(head)} if head else meta


def load_prefix(folder: Path | str, model: PreTrainedModel | None = None) -> Prefix:
    """Read a prefix from a folder of this project, of the original or of PEFT.

    Args:
        folder: where it is, or ``owner/name`` on the hub.
        model: the base model, checked to be the one that the prefix was trained on. PEFT's folders
            need it.

    Returns:
        the prefix in eval mode; its :meth:`Prefix.prompt` is what a model takes as ``prefix=``.

    Raises:
        UserError: the folder is missing, damaged, of something else, or of another model.
    """
    saved = read(folder, model)
    if saved.offset is not None:
        raise UserError(
            f"behind the prefix of {folder} real tokens are numbered from {saved.offset}, which "
            "prefix.prompt() does not know: use prefix_tuning.load(model, folder)"
        )
    return saved.prefix


def read(folder: Path | str, model: PreTrainedModel | None = None) -> Saved:
    """:func:`load_prefix` with the metadata and the head."""
    folder = hub.local(folder)
    if peft_format.is_peft_folder(folder):
        if model is None:
            raise UserError(f"{folder} is a folder of PEFT, which needs the base model: give it")
        saved = Saved(*peft_format.read(folder, model), {})
    else:
        prefix, meta = checkpoint.load(folder, model)
        saved = Saved(prefix, meta, _read_head(folder, meta))
    for name, tensor in [*saved.prefix.named_parameters(), *saved.head.items()]:
        if not tensor.isfinite().all():
            raise UserError(f"{folder}: the numbers of {name} are {NOT_FINITE}")
    return saved


def load_headless(
    folder: Path | str, model: PreTrainedModel | None = None
) -> tuple[Prefix, dict[str, Any]]:
    """:func:`prefix_tuning.checkpoint.load` for whoever uses the model's own head.

    Raises:
        UserError: as there; or the prefix was trained together with a head.
    """
    prefix, meta = checkpoint.load(folder, model)
    if meta.get("head") or (Path(folder) / HEAD).is_file():
        raise UserError(
            f"{folder} was trained together with a head, which would be left out here: "
            "prefix_tuning.load(model, folder) puts both on a classifier"
        )
    return prefix, meta


def _read_head(folder: Path, meta: Mapping[str, Any]) -> dict[str, Tensor]:
    if (folder / HEAD).is_file():
        return checkpoint.read_tensors(folder / HEAD)
    names = meta.get("head", [])
    if not names:
        return {}
    path = folder / (HEAD if (folder / EXPORT[0]).is_file() else CHECKPOINT[0])
    if not path.is_file():
        raise UserError(f"{path} is missing: the prefix has a trained head; copy the folder again")
    tensors = checkpoint.read_tensors(path)
    missing = sorted(set(names) - tensors.keys())
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}: copy the folder again")
    return {name: tensors[name] for name in names}


def _loader(model: PreTrainedModel) -> str:
    """The class that loads the base: the automatic one of a language model, else its own."""
    if type(model).__name__.endswith("ForCausalLM") or type(model).__name__.endswith("LMHeadModel"):
        return "AutoModelForCausalLM"
    return type(model).__name__
