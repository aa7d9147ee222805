"""Prefixes that start from what the model computes for real words (section 7.4 of the paper).

:func:`activations` reads the words' keys and values off the frozen model; a :class:`FlatPrefix` can
take them as they are, an :class:`MLPPrefix` is fitted to them by :func:`fit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from tqdm import trange
from transformers import PreTrainedModel

from prefix_tuning.attention import KeyValues, site_of
from prefix_tuning.prefix import MLPPrefix, PrefixShape


class _Recorder(KeyValues):
    """Adds nothing to any attention, and keeps the keys and values that pass through it."""

    def __init__(self) -> None:
        self.offset = 0
        self.pairs: dict[tuple[str, int], Tensor] = {}

    def attend(
        self,
        backend: Any,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **kwargs: Any,
    ) -> Any:
        self.pairs[site_of(module), module.layer_idx] = torch.stack([key, value]).float()
        return backend(module, query, key, value, mask, **kwargs)

    def table(self, site: str, shape: PrefixShape) -> Tensor:
        """Slots ``[P, 2LHd]`` of a site. Layers that its stack lacks are 0 (BART's encoder may
        have fewer than the decoder, whose shape a prefix has)."""
        first = self.pairs[site, 0]
        pairs = [self.pairs.get((site, i), torch.zeros_like(first)) for i in range(shape.n_layer)]
        return torch.stack(pairs)[:, :, 0].permute(3, 0, 1, 2, 4).flatten(1)


@torch.no_grad()
def activations(model: PreTrainedModel, input_ids: Tensor) -> dict[str, Tensor]:
    """Keys and values that a frozen model computes for words, for every site it has.

    In an encoder-decoder the words are read by the encoder, and shifted right by the decoder. As in
    the original, every word of the decoder is then alone with the encoder: it does not see those
    before it, and stands at position 0.

    Args:
        model: after ``enable_prefix``, in eval mode.
        input_ids: ``[1, P]`` int64.

    Returns:
        site -> fp32 slots ``[P, 2 * L * H * d]``, the layout of :meth:`Prefix.slots`.
    """
    recorder, shape = _Recorder(), PrefixShape.from_config(model.config)
    if not model.config.is_encoder_decoder:
        model.base_model(input_ids=input_ids, **_recording(model, recorder, input_ids))
        return {"self": recorder.table("self", shape)}
    both: Any = model
    encoded = both.get_encoder()(input_ids, prefix=recorder)
    shifted = both.prepare_decoder_input_ids_from_labels(labels=input_ids)
    hidden = encoded.last_hidden_state.expand(input_ids.shape[1], -1, -1)
    both.get_decoder()(
        input_ids=shifted.T, encoder_hidden_states=hidden, use_cache=False, prefix=recorder
    )
    for layer in range(shape.n_layer):  # rows of the batch -> positions
        pair = recorder.pairs["self", layer]
        recorder.pairs["self", layer] = pair.permute(0, 3, 2, 1, 4)
    return {site: recorder.table(site, shape) for site in ("self", "encoder", "encoder_decoder")}


def _recording(model: PreTrainedModel, recorder: _Recorder, input_ids: Tensor) -> dict[str, Any]:
    positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
    return {"position_ids": positions, "prefix": recorder, "use_cache": False}


def fit(
    prefix: MLPPrefix,
    targets: Mapping[str, Tensor],
    steps: int = 500,
    learning_rate: float = 1e-4,
    train_embedding: bool = False,
) -> list[float]:
    """Train the MLPs of ``prefix`` until it generates ``targets``.

    Adam on the mean squared error, summed over sites. The defaults are the original's for GPT-2;
    for BART it is 200 steps at 3e-5 with the embeddings.

    Args:
        targets: per site slots ``[P, 2LHd]``, as :func:`activations` returns them.
        train_embedding: train ``wte`` too.

    Returns:
        the loss before every step.
    """
    names = ("control_trans", "wte") if train_embedding else ("control_trans",)
    parameters = [p for name, p in prefix.named_parameters() if name.startswith(names)]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    losses = []
    for _ in trange(steps, desc="fitting the prefix to words", unit="step", leave=False):
        errors = [mse_loss(prefix.slots(site), targets[site]) for site in prefix.sites]
        loss = torch.stack(errors).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    prefix.zero_grad()
    return losses
