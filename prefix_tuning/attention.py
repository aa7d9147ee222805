"""How a prefix reaches the attention of a frozen transformer.

Only this file touches transformers' internals, and ``deberta.py`` for the one family whose
attention goes another way. It registers attention functions of its own (``AttentionInterface``)
that put the prefix in front of the keys and values they are given, and mask functions of the same
name (``AttentionMaskInterface``), without which transformers would pass no mask at all. The prefix
travels as the keyword argument ``prefix`` of one forward call, from the model down to the
attention: no state outlives the call, and a layer recomputed during backward (gradient
checkpointing) gets the same prefix again. The key/value cache holds real tokens only.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import (
    AttentionMaskInterface,
    eager_mask,
    flash_attention_mask,
    sdpa_mask,
)
from transformers.modeling_flash_attention_utils import _flash_attention_forward

from prefix_tuning import deberta
from prefix_tuning.errors import UserError
from prefix_tuning.positions import position_inputs
from prefix_tuning.prefix import PrefixShape

_CROSS_ATTENTIONS = ("encoder_attn", "EncDecAttention")
"""What the families of BART and T5 call the decoder's attention to the encoder."""


class KeyValues:
    """Keys and values for one forward call.

    Args:
        layers: per layer a tensor ``[2, rows, H, P, d]``, or such a sequence for each site of an
            encoder-decoder (:func:`site_of`). One row is shared by the whole batch; ``B`` rows
            serve a batch of ``B``, or of ``B * k`` when each row has ``k`` beams.
        offset: how far the positions of real tokens are shifted; ``P`` when not given, as in the
            original, where real tokens are numbered from the end of the prefix. Encoder-decoders
            number them from 0 in any case.

    Not a tensor on purpose: ``generate`` repeats every tensor it is given for its beams.
    """

    def __init__(
        self, layers: Iterable[Tensor] | Mapping[str, Iterable[Tensor]], offset: int | None = None
    ) -> None:
        sites = layers if isinstance(layers, Mapping) else {"self": layers}
        self.sites = {site: tuple(pairs) for site, pairs in sites.items()}
        first = next(iter(self.sites.values()))
        self.offset = first[0].shape[3] if offset is None else offset

    def lookup(self, module: Any, key: Tensor) -> tuple[Tensor, Tensor] | None:
        """The keys and values of one attention for the batch of ``key``, in its dtype.

        Args:
            module: the attention module, which names its layer in ``layer_idx``.
            key: that attention's own keys ``[B, H, T, d]``.

        Returns:
            two tensors ``[B, H, P, d]``, views of the shared row where there is only one; None
            where this prefix does not stand in front of this attention.
        """
        layers = self.sites.get(site_of(module))
        if layers is None:
            return None
        pair = layers[module.layer_idx].to(device=key.device, dtype=key.dtype)
        rows, batch_size = pair.shape[1], key.shape[0]
        if rows == 1:
            pair = pair.expand(-1, batch_size, -1, -1, -1)
        elif rows != batch_size:
            if batch_size % rows:
                raise ValueError(f"a prefix of {rows} rows cannot serve a batch of {batch_size}")
            pair = pair.repeat_interleave(batch_size // rows, dim=1)
        return pair[0], pair[1]

    def attend(
        self,
        backend: Callable[..., Any],
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Run ``backend`` with the prefix in front of ``key [B, H, T, d]`` and ``value``."""
        pair = self.lookup(module, key)
        if pair is None:
            return backend(module, query, key, value, mask, **kwargs)
        prefix_key, prefix_value = pair
        key = torch.cat([prefix_key, key], dim=2)
        value = torch.cat([prefix_value, value], dim=2)
        if mask is not None:
            # A boolean or 0/1 mask says what is visible, a float mask is added to the scores.
            visible = 0.0 if mask.is_floating_point() else True
            mask = _widen(mask, prefix_key.shape[2], visible)
        if kwargs.get("position_bias") is not None:  # T5: a slot is at no distance from a token
            kwargs["position_bias"] = _widen(kwargs["position_bias"], prefix_key.shape[2], 0.0)
        return backend(module, query, key, value, mask, **kwargs)


def site_of(module: Any) -> str:
    """Which attention a module is: ``self``, ``encoder`` or ``encoder_decoder``.

    The names are the original's; ``self`` is the only one of a decoder or an encoder, and the
    decoder's own in BART.
    """
    return getattr(module, "_prefix_site", "self")


def _widen(mask: Tensor, length: int, visible: bool | float) -> Tensor:
    """Put ``length`` columns that every query sees in front of a mask ``[..., keys]``."""
    return torch.cat([mask.new_full((*mask.shape[:-1], length), visible), mask], dim=-1)


def _eager(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    # The model's own function: it knows about soft caps, sinks and fp32 softmax.
    forward = sys.modules[type(module).__module__].eager_attention_forward
    return forward(module, query, key, value, mask, **kwargs)


def _flash(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if kwargs.get("position_bias") is not None:
        raise UserError("flash attention knows no position bias: use attn_implementation='sdpa'")
    # A causal mask of flash attention is aligned at the last key, so all queries see the prefix.
    output = _flash_attention_forward(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        mask,
        query_length=query.shape[2],
        is_causal=getattr(module, "is_causal", True),
        dropout=dropout,
        softmax_scale=scaling,
        softcap=kwargs.get("softcap"),
        attn_implementation="flash_attention_2",
    )
    return output, None


def _with_prefix(backend: Callable[..., tuple[Tensor, Tensor | None]]) -> Callable[..., Any]:
    """The attention function that a backend becomes when a prefix may stand in front."""

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        prefix: KeyValues | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if prefix is None:
            return backend(module, query, key, value, attention_mask, **kwargs)
        return prefix.attend(backend, module, query, key, value, attention_mask, **kwargs)

    return attention


def _explicit_sdpa_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    # Without a mask, causal attention with more keys than queries would keep the first keys only.
    kwargs.update(allow_is_causal_skip=False, allow_is_bidirectional_skip=False)
    return sdpa_mask(*args, **kwargs)


# None of our names may contain "flash": transformers would take it for a kernel to download.
_BACKENDS = {
    "sdpa": ("prefix_tuning_sdpa", _with_prefix(sdpa_attention_forward), _explicit_sdpa_mask),
    "eager": ("prefix_tuning_eager", _with_prefix(_eager), eager_mask),
    "flash_attention_2": ("prefix_tuning_fa2", _with_prefix(_flash), flash_attention_mask),
}
for _name, _attention, _mask in _BACKENDS.values():
    AttentionInterface.register(_name, _attention)
    AttentionMaskInterface.register(_name, _mask)
_FUNCTIONS = {name: attention for name, attention, _ in _BACKENDS.values()}


def prefixed_inputs(
    model: PreTrainedModel, prefix: KeyValues, inputs: dict[str, Any]
) -> dict[str, Any]:
    """The keyword arguments of a forward call with the prefix and the shifted positions added.

    Raises:
        UserError: prefix and tokens do not fit into the model's position table.
        RuntimeError: the model was changed since ``enable_prefix`` so that the prefix would be
            ignored, or get no gradient.
    """
    _check_usable(model)
    return {**inputs, **position_inputs(model, prefix.offset, inputs), "prefix": prefix}


def _check_usable(model: PreTrainedModel) -> None:
    name = model.config._attn_implementation
    registered = AttentionInterface._global_mapping.get(name)
    is_ours = registered is not None and registered is _FUNCTIONS.get(name)
    if not is_ours and not deberta.is_disentangled(model):
        raise RuntimeError(
            f"the attention of {type(model).__name__} was switched to {name!r} after "
            "enable_prefix(): the prefix would be ignored; call enable_prefix() again"
        )
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        for module in model.modules():
            checkpoint = getattr(module, "_gradient_checkpointing_func", None)
            if getattr(checkpoint, "keywords", {}).get("use_reentrant"):
                raise RuntimeError(
                    "reentrant gradient checkpointing gives a prefix no gradient: call "
                    "gradient_checkpointing_enable({'use_reentrant': False})"
                )


@functools.cache
def _prefixed_class(base: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """A subclass of ``base`` whose ``forward`` takes one parameter more, ``prefix``."""
    signature = inspect.signature(base.forward)
    names = [n for n, p in signature.parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]

    def forward(self: Any, *args: Any, prefix: KeyValues | None = None, **kwargs: Any) -> Any:
        if prefix is None:
            return base.forward(self, *args, **kwargs)
        inputs = {**dict(zip(names, args, strict=False)), **kwargs}
        inputs = prefixed_inputs(self, prefix, inputs)
        if deberta.is_disentangled(self):
            with deberta.handing_down(inputs.pop("prefix")):
                return base.forward(self, **inputs)
        return base.forward(self, **inputs)

    # generate() reads the signature to decide what to pass: with (*args, **kwargs) it would drop
    # position_ids, and left-padded rows would be decoded differently, silently.
    extra = inspect.Parameter("prefix", inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters = list(signature.parameters.values())
    at = next((i for i, p in enumerate(parameters) if p.kind is p.VAR_KEYWORD), len(parameters))
    parameters.insert(at, extra)
    forward.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]

    # Same name and module as the base: save_pretrained writes the class name into config.json.
    names_of_base = {k: getattr(base, k) for k in ("__module__", "__qualname__", "__doc__")}
    return type(base.__name__, (base,), {"forward": forward, "_prefix_base": base, **names_of_base})


class _Probe(KeyValues):
    """Records which attentions ask for a prefix, and the shape of their keys."""

    def __init__(self) -> None:
        self.offset = 0
        self.seen: dict[tuple[str, int], tuple[int, int]] = {}

    def lookup(self, module: Any, key: Tensor) -> tuple[Tensor, Tensor]:
        self.seen[site_of(module), module.layer_idx] = (key.shape[1], key.shape[3])
        slot = key.new_zeros(key.shape[0], key.shape[1], 1, key.shape[3])
        return slot, slot


def enable_prefix(model: PreTrainedModel) -> PreTrainedModel:
    """Let a model take ``prefix=KeyValues(...)`` in ``forward`` and ``generate``.

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
    if backend not in _BACKENDS:
        raise UserError(
            f"attention implementation {backend!r} cannot carry a prefix: load the model with "
            f"attn_implementation set to one of {', '.join(_BACKENDS)}"
        )
    config = model.config.get_text_config(decoder=True)
    if backend == "flash_attention_2" and getattr(config, "sliding_window", None):
        raise UserError(
            f"{base.__name__} slides its window over the prefix in flash attention: load it with "
            "attn_implementation='sdpa'"
        )
    if config.is_encoder_decoder:
        _name_sites(model)
    elif "position_ids" not in inspect.signature(base.forward).parameters:
        raise UserError(f"{base.__name__} cannot carry a prefix: it takes no position_ids to shift")
    model.__class__ = _prefixed_class(base)
    model._prefix_backend = backend  # type: ignore[assignment]
    try:
        if deberta.is_disentangled(model):
            deberta.adapt(model)
        else:
            _set_implementation(model, _BACKENDS[backend][0])
        _prove(model)
    except Exception as error:
        model.__class__ = base
        model.set_attn_implementation(backend)
        if isinstance(error, UserError):
            raise
        raise _not_through_the_interface(base, str(error)) from error
    return model


def _set_implementation(model: PreTrainedModel, name: str) -> None:
    model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
        raise _not_through_the_interface(type(model), "its implementation cannot be set")


def _not_through_the_interface(base: type, detail: str) -> UserError:
    return UserError(
        f"{base.__name__} cannot carry a prefix: its attention does not go through transformers' "
        f"AttentionInterface ({detail})"
    )


def _name_sites(model: Any) -> None:
    """Label the attentions of an encoder-decoder, whose layers alone do not tell them apart."""
    for module in model.get_encoder().modules():
        if hasattr(module, "layer_idx"):
            module._prefix_site = "encoder"
    for name, module in model.get_decoder().named_modules():
        if name.rpartition(".")[2] in _CROSS_ATTENTIONS:
            module._prefix_site = "encoder_decoder"


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
            model(prefix=probe, **inputs)
            model._has_plain_head = False
        else:
            model._has_plain_head = _has_plain_head(model, probe, inputs)
    finally:
        model.train(was_training)
    _check_probe(model, probe)


def _check_probe(model: Any, probe: _Probe) -> None:
    shape = PrefixShape.from_config(model.config)
    wanted = {("self", layer) for layer in range(shape.n_layer)}
    if model.config.is_encoder_decoder:
        wanted |= {("encoder_decoder", layer) for layer in range(shape.n_layer)}
        n_encoder_layer = model.config.num_hidden_layers
        wanted |= {("encoder", layer) for layer in range(n_encoder_layer)}
        if n_encoder_layer > shape.n_layer:
            raise UserError(
                f"{type(model).__name__} cannot carry a prefix: it has {n_encoder_layer} encoder "
                f"layers, more than the {shape.n_layer} decoder layers whose shape a prefix has"
            )
    missing = sorted(wanted - probe.seen.keys())
    if missing:
        layers = ", ".join(f"{site} {layer}" for site, layer in missing)
        raise _not_through_the_interface(type(model), f"layers {layers}")
    wrong = {i: s for i, s in probe.seen.items() if s != (shape.n_head, shape.head_dim)}
    if wrong:
        layers = ", ".join(f"{site} {layer}" for site, layer in sorted(wrong))
        raise UserError(
            f"{type(model).__name__} cannot carry a prefix: layers {layers} have other "
            f"key/value heads than the {shape.n_head} of size {shape.head_dim} in its config"
        )


def _has_plain_head(model: Any, probe: _Probe, inputs: dict[str, Tensor]) -> bool:
    """Whether the head gets the last hidden state as it is, and its output is the logits.

    Some models scale what enters the head, or cap what leaves it, or keep head and body in one
    (T5): their losses need all of it.
    """
    at_head: list[Tensor] = []

    def replace(_module: nn.Module, hidden: tuple[Tensor, ...], output: Tensor) -> Tensor:
        large = torch.linspace(-100, 100, output.numel(), device=output.device)
        at_head.extend([hidden[0], large.view_as(output).to(output.dtype)])
        return at_head[1]

    hook = model.get_output_embeddings().register_forward_hook(replace)
    try:
        logits = model(prefix=probe, use_cache=False, **inputs).logits
        body = model.base_model(**prefixed_inputs(model, probe, inputs), use_cache=False)
    finally:
        hook.remove()
    return torch.equal(at_head[0], body.last_hidden_state) and torch.equal(
        at_head[1], logits.to(at_head[1].dtype)
    )
