"""Optimiser and schedule of the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import (
    Adafactor,
    get_cosine_schedule_with_warmup,
    get_cosine_with_hard_restarts_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_polynomial_decay_schedule_with_warmup,
)

from seq2seq.flag_groups import OptimizationArguments

SCHEDULES: dict[str, Callable[..., LRScheduler]] = {
    "linear": get_linear_schedule_with_warmup,
    "cosine": get_cosine_schedule_with_warmup,
    "cosine_w_restarts": get_cosine_with_hard_restarts_schedule_with_warmup,
    "polynomial": get_polynomial_decay_schedule_with_warmup,
}


def make_optimizer(
    args: OptimizationArguments, parameters: Iterable[tuple[str, nn.Parameter]]
) -> Optimizer:
    """AdamW, or Adafactor where the flags ask for it.

    Args:
        parameters: what is trained, by name. Biases and layer norms have no weight decay.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in parameters:
        # The original's names, of which BART's own layer norms have neither.
        is_spared = "bias" in name or "LayerNorm.weight" in name
        (spared if is_spared else decayed).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": chosen, "weight_decay": decay}
        for chosen, decay in ((decayed, args.weight_decay), (spared, 0.0))
        if chosen
    ]
    if args.adafactor:
        return Adafactor(groups, lr=args.learning_rate, scale_parameter=False, relative_step=False)
    on_gpu = all(parameter.is_cuda for parameter in (*decayed, *spared))
    fused = True if on_gpu else None  # None: as torch chooses
    return AdamW(groups, lr=args.learning_rate, eps=args.adam_epsilon, fused=fused)


def make_schedule(args: OptimizationArguments, optimizer: Optimizer, n_step: float) -> LRScheduler:
    """The schedule that the flags name, over ``n_step`` steps of the optimiser."""
    return SCHEDULES[args.lr_scheduler](
        optimizer, num_warmup_steps=args.warmup_steps, num_training_steps=n_step
    )
