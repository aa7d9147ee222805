"""A prefix bound to a model: the default of the argument ``prefix``, for libraries that call it.

``Trainer``, TRL, ``pipeline`` and lm_eval call a model themselves and know no ``prefix=``.
:func:`attach` makes one prefix the default of that argument, and the prefix a part of the model
that is trained, moved and saved with it; a call's own argument wins. How is in
:mod:`prefix_tuning.bound`.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from prefix_tuning import guard, saving
from prefix_tuning.attention import enable_prefix
from prefix_tuning.bound import (
    NAME,
    AttachedModel,
    Attachment,
    attached_class,
    bound_class,
    is_pooler,
)
from prefix_tuning.errors import UserError
from prefix_tuning.names import SITES
from prefix_tuning.parametrizations import PARAMETRIZATIONS
from prefix_tuning.prefix import Prefix


def is_attached(model: nn.Module) -> bool:
    """Whether :func:`attach` has bound a prefix to ``model``."""
    return isinstance(model, AttachedModel)


def attach(
    model: PreTrainedModel,
    length: int = 10,
    parametrization: str = "mlp",
    *,
    prefix: Prefix | None = None,
    offset: int | None = None,
    **options: Any,
) -> AttachedModel:
    """Freeze a model and bind a prefix to it, which every call uses from then on.

    Decoders, encoder-decoders (all three attentions) and encoders. The head of a classifier or
    tagger stays trainable and is saved with the prefix; that of a language model is frozen.

    Args:
        model: of transformers, frozen and enabled (:func:`enable_prefix`) here.
        length: ``P``, trained slots in front of every attention.
        parametrization: a name in :data:`prefix_tuning.parametrizations.PARAMETRIZATIONS`.
        prefix: taken as it is, instead of a new one.
        offset: where real tokens are numbered from; ``P`` when not given
            (:class:`prefix_tuning.KeyValues`).
        options: of the parametrisation (``mid_dim=512``, ``dropout=0.1``).

    Returns:
        the same model, with the methods of :class:`AttachedModel`. Its parameters that require a
        gradient are the prefix, in fp32, and the head.

    Raises:
        UserError: the model cannot carry a prefix or has one, or the prefix is not for it.
    """
    if is_attached(model):
        raise UserError(
            f"{type(model).__name__} has a prefix attached: call prefix_tuning.detach(model) first"
        )
    if hasattr(model, NAME):
        raise UserError(f"{type(model).__name__} has an attribute {NAME!r} of its own")
    enable_prefix(model)
    prefix = prefix or _new_prefix(model, length, parametrization, options)
    if prefix.reads_source:
        raise UserError(
            f"a prefix of the kind {prefix.parametrization!r} stands behind the source of each "
            "call and cannot be attached: pass prefix.prompt(model, source=...) to the calls"
        )
    _bind(model, prefix.to(model.device), offset)
    return cast(AttachedModel, model)


def _new_prefix(
    model: PreTrainedModel, length: int, parametrization: str, options: dict[str, Any]
) -> Prefix:
    cls = PARAMETRIZATIONS.get(parametrization)
    if cls is None:
        names = ", ".join(PARAMETRIZATIONS)
        raise UserError(f"parametrization {parametrization!r} is unknown: choose among {names}")
    known = [*inspect.signature(cls).parameters][2:]
    unknown = sorted(options.keys() - {*known})
    if unknown:
        raise UserError(
            f"a prefix of the kind {parametrization!r} has no option {unknown[0]!r}: it has "
            f"{', '.join(known)}"
        )
    if model.config.is_encoder_decoder:
        if "sites" not in known:
            raise UserError(f"a prefix of the kind {parametrization!r} is for decoders only")
        options = {"sites": SITES, **options}
    return cls(model.config, length, **options)


def _bind(model: Any, prefix: Prefix, offset: int | None) -> None:
    attached = Attachment(model, offset)
    model.requires_grad_(False)
    for name in attached.head & dict(model.named_parameters()).keys():
        if not is_pooler(name):
            model.get_parameter(name).requires_grad_(True)
    model.add_module(NAME, prefix.requires_grad_(True))
    for part in (model, *_bodies(model)):
        # Past nn.Module, which would take the model for a part of its own body.
        vars(part)["_attachment"] = attached
        made: Any = attached_class if part is model else bound_class
        part.__class__ = made(type(part))
        guard.rebind(part)
    try:
        _prove(model, attached)
    except Exception:
        detach(model)
        raise


def _bodies(model: Any) -> list[nn.Module]:
    """What a library might call instead of the model."""
    parts = [model.base_model]
    if model.config.is_encoder_decoder:
        parts += [model.get_encoder(), model.get_decoder()]
    return [part for part in parts if part is not model]


@torch.no_grad()
def _prove(model: Any, attached: Attachment) -> None:
    """Run one token and check that the model and its body asked for the prefix."""
    was_training = model.training
    model.eval()
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    inputs = {"input_ids": token}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = token
    try:
        for part in (model, model.base_model):
            attached.is_asked = False
            part(**inputs)
            if not attached.is_asked:
                raise UserError(
                    f"the prefix of {type(model).__name__} would be ignored: another library has "
                    "replaced its forward; attach the prefix before that library gets the model"
                )
    finally:
        model.train(was_training)


def detach(model: PreTrainedModel) -> Prefix:
    """Take the prefix off a model and return it.

    The model stays enabled (:func:`enable_prefix`), its weights are what they were, and so is
    which of them require a gradient.

    Raises:
        UserError: no prefix is attached.
    """
    if not is_attached(model):
        raise UserError(f"{type(model).__name__} has no prefix attached: there is none to detach")
    attached, prefix = cast(AttachedModel, model)._attachment, cast(AttachedModel, model).prefix
    for part in (model, *_bodies(model)):
        del vars(part)["_attachment"]
        part.__class__ = type(part).__mro__[2 if part is model else 1]
        guard.rebind(part)
    delattr(model, NAME)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in attached.was_trainable)
    return prefix


def load(model: PreTrainedModel, folder: Path | str) -> AttachedModel:
    """Attach a saved prefix: of this project, of the original or of PEFT.

    Args:
        model: the base model that it was trained on. A prefix attached to it gives way.
        folder: what ``save_prefix``, ``save_pretrained``, ``Trainer`` or a run wrote, or PEFT.

    Returns:
        the same model, attached; the prefix is in eval mode.

    Raises:
        UserError: as :func:`prefix_tuning.load_prefix`, or the head is of another model.
    """
    if is_attached(model):
        detach(model)
    saved = saving.read(folder, model)
    attached = attach(model, prefix=saved.prefix, offset=saved.offset)
    wanted, state = attached._prefix_head(), saved.head
    missing = sorted(wanted.keys() - state.keys())
    wrong = [n for n in wanted.keys() & state.keys() if wanted[n].shape != state[n].shape]
    if missing or wrong or state.keys() - wanted.keys():
        names = ", ".join(sorted({*missing, *wrong, *(state.keys() - wanted.keys())}))
        detach(model)
        raise UserError(
            f"{folder} and {type(model).__name__} disagree about the trained head ({names}): load "
            "the base with the class and the number of labels that the prefix was trained with"
        )
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(state[name])
    return attached
