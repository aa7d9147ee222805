"""How a prefix enters a frozen transformer: :func:`enable_prefix` once, :func:`run` for each call.

What stands in front travels with one forward call, from the model down to the attention: no state
outlives the call, and a layer recomputed during backward (gradient checkpointing) gets the same
prefix again. The key/value cache holds real tokens only. How it travels is the business of a door:
``backends.py`` for nearly every family, ``deberta.py`` for one whose attention goes another way.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefix_tuning import guard
from prefix_tuning.backends import BACKENDS, InterfaceDoor, WouldIgnore
from prefix_tuning.deberta import DisentangledDoor
from prefix_tuning.doors import Door, not_through_the_interface
from prefix_tuning.errors import UserError
from prefix_tuning.key_values import Attended, Attention, Front, KeyValues, name_sites
from prefix_tuning.positions import position_inputs
from prefix_tuning.shape import PrefixShape

__all__ = [
    "DOORS",
    "Front",
    "KeyValues",
    "enable_prefix",
    "has_plain_head",
    "prefixed_class",
    "run",
]

DOORS: dict[str, Door] = {"deberta": DisentangledDoor(), "deberta-v2": DisentangledDoor()}
"""``model_type`` -> the door of a family whose attention bypasses ``AttentionInterface``."""
_INTERFACE = InterfaceDoor()


def _door_of(model: PreTrainedModel) -> Door:
    return DOORS.get(model.config.model_type, _INTERFACE)


def run(
    model: PreTrainedModel,
    front: Front,
    inputs: dict[str, Any],
    part: Callable[..., Any] | None = None,
) -> Any:
    """Run a frozen model behind what stands in front: the one way in.

    Args:
        model: after :func:`enable_prefix`.
        front: for every attention that is run.
        inputs: keyword arguments of ``forward``. ``position_ids``, if given, count real tokens
            from 0; they are shifted here.
        part: of the model, what is run alone: its ``base_model`` (no head), its encoder or its
            decoder. The whole model when not given.

    Returns:
        what ``part`` returns.

    Raises:
        UserError: prefix and tokens do not fit into the model's position table.
        RuntimeError: the model was changed since ``enable_prefix`` so that the prefix would be
            ignored, or get no gradient.
    """
    if part is None:
        return model(prefix=front, **inputs)
    _check_usable(model)
    front = front.made_for(model)
    shifted = {**inputs, **position_inputs(model, front.offset, inputs)}
    return _door_of(model).enter(part, front, shifted)


def _check_usable(model: PreTrainedModel) -> None:
    """Raise RuntimeError where a prefix would be ignored, or get no gradient."""
    if not _door_of(model).is_open(model):
        raise RuntimeError(
            f"the attention of {type(model).__name__} is {model.config._attn_implementation!r}, "
            "not the one that enable_prefix() sets: the prefix would be ignored; call "
            "enable_prefix()"
        )
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        for module in _checkpointing(model):
            checkpoint = getattr(module, "_gradient_checkpointing_func", None)
            if getattr(checkpoint, "keywords", {}).get("use_reentrant"):
                raise RuntimeError(
                    "reentrant gradient checkpointing gives a prefix no gradient: call "
                    "gradient_checkpointing_enable({'use_reentrant': False})"
                )


def _checkpointing(model: Any) -> tuple[nn.Module, ...]:
    """The modules that can be recomputed during backward: a walk for each model, not each step."""
    found = vars(model).get("_prefix_checkpointing")
    if found is None:
        found = tuple(m for m in model.modules() if hasattr(m, "gradient_checkpointing"))
        vars(model)["_prefix_checkpointing"] = found
    return found


@functools.cache
def prefixed_class(base: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """A subclass of ``base`` whose ``forward`` takes one parameter more, ``prefix``."""
    signature = inspect.signature(base.forward)
    names = [n for n, p in signature.parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]

    def forward(self: Any, *args: Any, prefix: Any = None, **kwargs: Any) -> Any:
        if prefix is None:
            return base.forward(self, *args, **kwargs)
        inputs = {**dict(zip(names, args, strict=False)), **kwargs}
        front = guard.as_front(self, prefix, inputs)
        return run(self, front, inputs, functools.partial(base.forward, self))

    def generate(self: Any, *args: Any, prefix: Any = None, **kwargs: Any) -> Any:
        if prefix is not None:  # computed once, and not for every token
            with torch.no_grad():
                kwargs["prefix"] = guard.as_front(self, prefix, {})
        return base.generate(self, *args, **kwargs)  # type: ignore[attr-defined]

    # generate() reads the signature to decide what to pass: with (*args, **kwargs) it would drop
    # position_ids, and left-padded rows would be decoded differently, silently.
    extra = inspect.Parameter("prefix", inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters = list(signature.parameters.values())
    at = next((i for i, p in enumerate(parameters) if p.kind is p.VAR_KEYWORD), len(parameters))
    parameters.insert(at, extra)
    forward.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]

    # Same name and module as the base: save_pretrained writes the class name into config.json.
    names_of_base = {k: getattr(base, k) for k in ("__module__", "__qualname__", "__doc__")}
    methods: dict[str, Any] = {"forward": forward}
    if hasattr(base, "generate"):
        methods["generate"] = functools.wraps(base.generate)(generate)
    return type(base.__name__, (base,), {**methods, "_prefix_base": base, **names_of_base})


def enable_prefix(model: PreTrainedModel) -> PreTrainedModel:
    """Let a model take ``prefix=`` in ``forward`` and ``generate``: KeyValues, or a Prefix.

    Decoders (GPT-2, Llama), encoders (BERT, RoBERTa, DeBERTa) and encoder-decoders (BART, T5)
    alike. The model keeps its weights and its behaviour without a prefix; its class becomes a
    subclass that names the parameter, and its attention implementation one registered here. A
    forward pass of one token proves that every layer reads its prefix.

    Returns:
        the same model.

    Raises:
        UserError: the attention implementation or the architecture cannot carry a prefix.
    """
    base: Any = getattr(model, "_prefix_base", type(model))
    backend: str = getattr(model, "_prefix_backend", model.config._attn_implementation)
    # A model made from the configuration of an enabled one has the name of our implementation.
    backend = next((name for name, ours in BACKENDS.items() if ours.name == backend), backend)
    if backend not in BACKENDS:
        raise UserError(
            f"attention implementation {backend!r} cannot carry a prefix: load the model with "
            f"attn_implementation set to one of {', '.join(BACKENDS)}"
        )
    config = model.config.get_text_config(decoder=True)
    if backend == "flash_attention_2" and getattr(config, "sliding_window", None):
        raise UserError(
            f"{base.__name__} slides its window over the prefix in flash attention: load it with "
            "attn_implementation='sdpa'"
        )
    if config.is_encoder_decoder:
        name_sites(model)
    elif "position_ids" not in inspect.signature(base.forward).parameters:
        raise UserError(f"{base.__name__} cannot carry a prefix: it takes no position_ids to shift")
    before = type(model)
    if not issubclass(before, prefixed_class(base)):  # a subclass has a prefix attached
        guard.check_forward(model)
        model.__class__ = prefixed_class(base)
        guard.rebind(model)
    vars(model).pop("_prefix_checkpointing", None)  # its modules may be others by now
    model._prefix_backend = backend  # type: ignore[assignment]
    model._prefix_shape = PrefixShape.from_config(model.config)  # type: ignore[assignment]
    try:
        _door_of(model).open(model, backend)
        _prove(model)
    except Exception as error:
        model.__class__ = before
        guard.rebind(model)
        model.set_attn_implementation(backend)
        if isinstance(error, UserError) and not isinstance(error, WouldIgnore):
            raise
        raise not_through_the_interface(base, str(error)) from error
    return model


def has_plain_head(model: Any) -> bool:
    """Whether the logits are the head's output on the last hidden state, and nothing else.

    Then a loss may run the body alone and the head on target positions only.
    """
    return model._has_plain_head


class _Probe(Front):
    """What every attention asks for during a pass: the proof that a model reads its prefix.

    Each gets one slot of zeros.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[tuple[str, int], tuple[int, int]] = {}
        """(site, layer) -> key/value heads and their size."""

    def compute(self, attention: Attention) -> Attended:
        n_row, n_head, _, size = attention.key.shape
        self.seen[attention.site, attention.layer] = (n_head, size)
        slot = attention.key.new_zeros(n_row, n_head, 1, size)
        return attention.run_behind((slot, slot))

    def check(self, model: PreTrainedModel) -> None:
        """Refuse a model whose layers did not all ask for the prefix that its configuration says.

        Raises:
            UserError: layers did not ask, or have keys of another shape.
        """
        name, shape = type(model).__name__, PrefixShape.from_config(model.config)
        wanted = {("self", layer) for layer in range(shape.n_layer)}
        if model.config.is_encoder_decoder:
            wanted |= {("encoder_decoder", layer) for layer in range(shape.n_layer)}
            n_encoder_layer = model.config.num_hidden_layers
            wanted |= {("encoder", layer) for layer in range(n_encoder_layer)}
            if n_encoder_layer > shape.n_layer:
                raise UserError(
                    f"{name} cannot carry a prefix: it has {n_encoder_layer} encoder "
                    f"layers, more than the {shape.n_layer} decoder layers whose shape a prefix has"
                )
        missing = sorted(wanted - self.seen.keys())
        if missing:
            layers = ", ".join(f"{site} {layer}" for site, layer in missing)
            raise not_through_the_interface(type(model), f"layers {layers}")
        wrong = {i: s for i, s in self.seen.items() if s != (shape.n_head, shape.head_dim)}
        if wrong:
            layers = ", ".join(f"{site} {layer}" for site, layer in sorted(wrong))
            raise UserError(
                f"{name} cannot carry a prefix: layers {layers} have other "
                f"key/value heads than the {shape.n_head} of size {shape.head_dim} in its config"
            )


@torch.no_grad()
def _prove(model: Any) -> None:
    """Run one token and check that every layer asked for its prefix, in the expected shape."""
    probe, was_training = _Probe(), model.training
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    inputs = {"input_ids": token}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = token
    model.eval()
    try:
        if model.get_output_embeddings() is None or model.base_model is model:
            run(model, probe, inputs)
            model._has_plain_head = False
        else:
            model._has_plain_head = _head_is_plain(model, probe, inputs)
    finally:
        model.train(was_training)
    probe.check(model)


def _head_is_plain(model: Any, probe: _Probe, inputs: dict[str, Any]) -> bool:
    """Whether the head gets the last hidden state as it is, and its output is the logits.

    Some models scale what enters the head, or cap what leaves it, or keep head and body in one
    (T5): their losses need all of it.
    """
    at_head: list[Tensor] = []

    def replace(_module: nn.Module, hidden: tuple[Tensor, ...], output: Tensor) -> Tensor:
        large = torch.linspace(-100, 100, output.numel(), device=output.device)
        at_head.extend([hidden[0], large.view_as(output).to(output.dtype)])
        return at_head[1]

    inputs = {**inputs, "use_cache": False}
    hook = model.get_output_embeddings().register_forward_hook(replace)
    try:
        logits = run(model, probe, inputs).logits
        body = run(model, probe, inputs, model.base_model)
    finally:
        hook.remove()
    return torch.equal(at_head[0], body.last_hidden_state) and torch.equal(
        at_head[1], logits.to(at_head[1].dtype)
    )
