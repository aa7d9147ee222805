"""The classes of a model that has a prefix bound to it (:mod:`prefix_tuning.attached`).

The classes of the model and of its body become subclasses that fill in the argument ``prefix``, and
everything behind is :func:`prefix_tuning.attention.run`. The body is bound too, since some
libraries call it without the model around it (TRL's fused head does).

Nothing is kept between calls. Which models go without their prefix for a while
(:meth:`AttachedModel.without_prefix`) is a context variable, of which every thread has its own; a
layer that is recomputed during backward has got its prefix as an argument and asks nobody.
"""

from __future__ import annotations

import functools
import inspect
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefix_tuning import hub, saving
from prefix_tuning.attention import prefixed_class, run
from prefix_tuning.guard import n_row
from prefix_tuning.key_values import KeyValues
from prefix_tuning.model_card import Facts
from prefix_tuning.prefix import Prefix

_suspended: ContextVar[tuple[int, ...]] = ContextVar("models without their prefix", default=())
NAME = "prefix"
"""The submodule of an attached model that is its prefix."""


class Attachment:
    """What an attached model knows beside its prefix. No module: its parts refer back to it."""

    def __init__(self, model: PreTrainedModel, offset: int | None) -> None:
        self.model = model
        self.offset = offset
        self.was_trainable = {n for n, p in model.named_parameters() if p.requires_grad}
        self.head = head_names(model)
        """Entries of the state that are trained and saved with the prefix."""
        self.is_asked = False

    def front(self, inputs: Mapping[str, Any]) -> KeyValues:
        """The default of ``prefix`` for a call with these arguments."""
        self.is_asked = True
        front = cast(AttachedModel, self.model).prefix.prompt(self.model, n_row(inputs))
        if self.offset is not None:
            front.offset = self.offset
        return front

    @property
    def is_suspended(self) -> bool:
        """Whether the model goes without its prefix in this thread at the moment."""
        return id(self.model) in _suspended.get()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Let the model go without its prefix inside the ``with`` block."""
        token = _suspended.set((*_suspended.get(), id(self.model)))
        try:
            yield
        finally:
            _suspended.reset(token)


def head_names(model: Any) -> set[str]:
    """What :func:`attach` has to save of a classifier: its head, and its body's pooler.

    The pooler is frozen, but pretrained files often lack it: it may be random, and needed again.
    """
    if model.get_output_embeddings() is not None:
        return set()
    state = model.state_dict(keep_vars=True)
    inside = {id(tensor) for tensor in model.base_model.state_dict(keep_vars=True).values()}
    return {n for n, tensor in state.items() if id(tensor) not in inside or is_pooler(n)}


def is_pooler(name: str) -> bool:
    return "pooler" in name.split(".")


class AttachedModel(PreTrainedModel):
    """What :func:`attach` adds to the class of a model."""

    prefix: Prefix
    _attachment: Attachment

    @contextmanager
    def without_prefix(self) -> Iterator[None]:
        """Let the model be its bare base inside the ``with`` block, in this thread."""
        with self._attachment.suspended():
            yield

    def save_prefix(
        self,
        folder: Path | str,
        *,
        task: str | None = None,
        metrics: Mapping[str, float] | None = None,
        command: str | None = None,
        license: str | None = None,
    ) -> int:
        """Write the keys and values (and the head) alone, with a card that says what is given.

        Args:
            folder: made if need be.
            task, metrics, command, license: for the card (:class:`prefix_tuning.Facts`).

        Returns:
            the size of the keys and values in bytes.
        """
        return self._write_prefix(Path(folder), Facts(task, metrics or {}, command, license))

    def _write_prefix(self, folder: Path, facts: Facts) -> int:
        attached = self._attachment
        return saving.save_prefix(
            folder, self.prefix, self, head=self._prefix_head(), facts=facts, offset=attached.offset
        )

    def _prefix_head(self, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        state = self.state_dict() if state is None else state
        return {name: state[name] for name in sorted(self._attachment.head)}

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: Path | str,
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write the prefix as it is trained, from which training can go on; never the base.

        Args:
            state_dict: taken instead of the model's own, where a wrapper has gathered it.
            push_to_hub: upload the folder too, to ``repo_id`` or one of the folder's name;
                further arguments are those of :meth:`push_to_hub`.
        """
        if not is_main_process:
            return
        state = self.state_dict() if state_dict is None else state_dict
        start = NAME + "."
        saving.save_parameters(
            save_directory,
            self.prefix,
            self,
            state={k.removeprefix(start): v for k, v in state.items() if k.startswith(start)},
            head=self._prefix_head(state),
            offset=self._attachment.offset,
        )
        if push_to_hub:
            known = {k: kwargs[k] for k in ("private", "token", "commit_message") if k in kwargs}
            hub.push(Path(save_directory), kwargs.get("repo_id"), **known)

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        task: str | None = None,
        metrics: Mapping[str, float] | None = None,
        command: str | None = None,
        license: str | None = None,
        **kwargs: Any,
    ) -> str:
        """Upload what :meth:`save_prefix` writes, card and all; return the commit's address.

        Args:
            repo_id: ``name`` or ``owner/name``, made if need be.
            kwargs: ``private``, ``token``, ``commit_message`` (:func:`prefix_tuning.hub.push`).
        """
        with tempfile.TemporaryDirectory() as folder:
            self._write_prefix(Path(folder), Facts(task, metrics or {}, command, license, repo_id))
            return hub.push(Path(folder), repo_id, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The prefix (``prefix.*``) and the head alone; arguments as of every module."""
        state = super().state_dict(*args, **kwargs)
        start = kwargs.get("prefix", args[1] if len(args) > 1 else "")
        for name in [n for n in state if n.startswith(start)]:
            own = name.removeprefix(start)
            if not own.startswith(NAME + ".") and own not in self._attachment.head:
                del state[name]
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load what :meth:`state_dict` gave, or a saved checkpoint, where the prefix's names have
        nothing in front."""
        wanted = self.state_dict().keys()
        start = NAME + "."
        state = {start + k if start + k in wanted else k: v for k, v in state_dict.items()}
        result = super().load_state_dict(state, strict=False, assign=assign)
        result.missing_keys[:] = sorted(wanted - state.keys())
        if strict and (result.missing_keys or result.unexpected_keys):
            raise RuntimeError(
                f"this is no state of the prefix of {type(self).__name__}: missing "
                f"{result.missing_keys}, unexpected {result.unexpected_keys}"
            )
        return result

    @torch.no_grad()
    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As the base class's, with the prefix computed once and not for every token."""
        attached = self._attachment
        if "prefix" not in kwargs and not attached.is_suspended:
            if kwargs.get("assistant_model") is not None:  # it would be given the prefix, too
                return super().generate(*args, **kwargs)  # type: ignore[misc]
            kwargs["prefix"] = attached.front({})
        with attached.suspended():  # what is given now is given to every step
            return super().generate(*args, **kwargs)  # type: ignore[misc]

    def __reduce__(self) -> tuple[Any, ...]:
        # The classes are made on the fly, so that pickle would not find them by their names.
        return _rebuild, (self._prefix_base,), vars(self)


def _rebuild(base: Any) -> Any:
    """An empty model of the attached class over ``base``, which gets its state from pickle."""
    prefixed: Any = prefixed_class(base)
    cls = attached_class(prefixed)
    return cls.__new__(cls)


@functools.cache
def attached_class(base: Any) -> Any:
    """The class of an attached model, over that of a model after ``enable_prefix``."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        attached = vars(self).get("_attachment")
        if attached is None:  # detached since a library has taken hold of this method
            return base.forward(self, *args, **kwargs)
        if "prefix" not in kwargs and not attached.is_suspended:
            inputs = _by_name(base, args, kwargs)
            kwargs, args = {**inputs, "prefix": attached.front(inputs)}, ()
        with attached.suspended():  # a call's own argument wins, None too: the body adds nothing
            return base.forward(self, *args, **kwargs)

    return _subclass(base, forward, (AttachedModel,))


@functools.cache
def bound_class(base: Any) -> Any:
    """The class of an attached model's body, over its own."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        attached = vars(self).get("_attachment")
        if attached is None or "prefix" in kwargs or attached.is_suspended:
            return base.forward(self, *args, **kwargs)
        inputs = _by_name(base, args, kwargs)
        front = attached.front(inputs)
        return run(attached.model, front, inputs, functools.partial(base.forward, self))

    def reduce(self: Any) -> tuple[Any, ...]:
        return _rebuild_body, (base,), vars(self)

    return _subclass(base, forward, (), __reduce__=reduce)


def _rebuild_body(base: Any) -> Any:
    cls = bound_class(base)
    return cls.__new__(cls)


def _subclass(base: Any, forward: Any, mixins: tuple[type, ...], **more: Any) -> Any:
    # The signature is read by generate, Trainer and pipelines, the name by pipelines and Trainer.
    forward.__signature__ = inspect.signature(base.forward)
    names = {k: getattr(base, k) for k in ("__module__", "__qualname__", "__doc__")}
    return type(base.__name__, (*mixins, base), {"forward": forward, **names, **more})


def _by_name(base: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    parameters = list(inspect.signature(base.forward).parameters)[1:]
    return {**dict(zip(parameters, args, strict=False)), **kwargs}
