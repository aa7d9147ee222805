"""What a prefix can start from: keys and values of real words (section 7.4 of the paper).

:func:`activations` reads them off the frozen model; :meth:`Prefix.start` takes them, for which
:func:`fit` trains the MLPs of a prefix that has some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from tqdm import tqdm
from transformers import PreTrainedModel

from prefix_tuning.attention import run
from prefix_tuning.names import SITES
from prefix_tuning.observer import Observer, observe
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
        return {"self": observe(model, input_ids=input_ids).slots("self", shape)}
    both, observer = cast(Any, model), Observer()
    encoded = run(model, observer, {"input_ids": input_ids}, both.get_encoder())
    shifted = both.prepare_decoder_input_ids_from_labels(labels=input_ids)
    # Every word is a row of its own, of one token: [1, P] -> [P, 1].
    hidden = encoded.last_hidden_state.expand(input_ids.shape[1], -1, -1)  # [P, P, D]
    alone = {"input_ids": shifted.T, "encoder_hidden_states": hidden, "use_cache": False}
    run(model, observer, alone, both.get_decoder())
    for layer in range(shape.n_layer):
        pair = observer.pairs["self", layer]  # [2, P, H, 1, d] -> [2, 1, H, P, d]
        observer.pairs["self", layer] = pair.permute(0, 3, 2, 1, 4)
    return {site: observer.slots(site, shape) for site in SITES}


def resize(slots: Mapping[str, Tensor], length: int) -> dict[str, Tensor]:
    """The first ``length`` slots of every site, from the first again where there are fewer."""
    return {site: table[torch.arange(length) % len(table)] for site, table in slots.items()}


def bar(steps: range) -> Iterable[int]:
    """``steps``, with a bar on a terminal."""
    return tqdm(steps, "fitting the prefix", leave=False, disable=None)


class HasSlots(Protocol):
    """A prefix of ``prefix.py``, which calls :func:`fit`."""

    sites: tuple[str, ...]

    def slots(self, site: str) -> Tensor: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def zero_grad(self) -> None: ...


def fit(
    prefix: HasSlots,
    slots: Mapping[str, Tensor],
    steps: int = 500,
    learning_rate: float = 1e-4,
    train_embedding: bool = False,
    progress: Callable[[range], Iterable[int]] = bar,
) -> list[float]:
    """Train the MLPs of ``prefix`` until it generates ``slots``.

    Adam on the mean squared error, summed over sites. The defaults are the original's for GPT-2;
    for BART it is 200 steps at 3e-5 with the embeddings.

    Args:
        slots: per site ``[P, 2LHd]``.
        train_embedding: train ``wte`` too.
        progress: what shows the steps on their way.

    Returns:
        the loss before every step.
    """
    names = ("control_trans", "wte") if train_embedding else ("control_trans",)
    parameters = [p for name, p in prefix.named_parameters() if name.startswith(names)]
    # Fused: half the time on a CPU, where the MLP of GPT-2 medium takes minutes.
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    losses = []
    for _ in progress(range(steps)):
        errors = [mse_loss(prefix.slots(site), slots[site]) for site in prefix.sites]
        loss = torch.stack(errors).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    prefix.zero_grad()
    return losses
