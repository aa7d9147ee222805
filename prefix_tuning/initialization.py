"""Prefixes that start from what the model computes for real words (section 7.4 of the paper).

:func:`activations` reads the words' keys and values off the frozen model; :func:`start_from` lets a
:class:`FlatPrefix` take them as they are, and fits an :class:`MLPPrefix` to them (:func:`fit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from tqdm import trange
from transformers import PreTrainedModel

from prefix_tuning.prefix import SUFFIXES, FlatPrefix, MLPPrefix, Prefix
from prefix_tuning.recorder import Recorder, record
from prefix_tuning.shape import PrefixShape


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
    shape = PrefixShape.from_config(model.config)
    if not model.config.is_encoder_decoder:
        return {"self": record(model, input_ids=input_ids).table("self", shape)}
    both, recorder = cast(Any, model), Recorder()
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
    # Fused: half the time on a CPU, where the MLP of GPT-2 medium takes minutes.
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
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


def resize(targets: Mapping[str, Tensor], length: int) -> dict[str, Tensor]:
    """The first ``length`` slots of every site, from the first again where there are fewer."""
    return {site: slots[torch.arange(length) % len(slots)] for site, slots in targets.items()}


def start_from(prefix: Prefix, targets: Mapping[str, Tensor]) -> None:
    """Let a prefix start from ``targets``, per site slots ``[P, 2LHd]``.

    Raises:
        ValueError: its keys and values are computed by the frozen model.
    """
    if isinstance(prefix, FlatPrefix):
        with torch.no_grad():
            for site in prefix.sites:
                prefix.slots(site).copy_(targets[site])
    elif isinstance(prefix, MLPPrefix) and not prefix.reads_source:
        fit(prefix, targets)
    else:
        raise ValueError(f"{type(prefix).__name__} cannot start from keys and values")


@torch.no_grad()
def zero(prefix: MLPPrefix | FlatPrefix) -> None:
    """Let all keys and values start at 0; of an MLP, through its last layer.

    That is not no prefix: the score of a zero key is 0, so every slot takes a share of the
    attention away from the tokens, and gives nothing for it.
    """
    for site in prefix.sites:
        name = "control_trans" + SUFFIXES[site]
        if isinstance(prefix, FlatPrefix):
            prefix.get_parameter(name).zero_()
        else:
            for parameter in cast(nn.Sequential, prefix.get_submodule(name))[-1].parameters():
                parameter.zero_()
