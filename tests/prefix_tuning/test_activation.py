"""The activation as one kernel computes what the eight compute, and can be taken back."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import tiny_model
from torch import nn
from transformers.activations import NewGELUActivation

from prefix_tuning.activation import fuse_activations
from prefix_tuning.attention import enable_prefix
from prefix_tuning.objectives import target_nll
from prefix_tuning.parametrizations import MLPPrefix


def fused() -> nn.Module:
    return fuse_activations(tiny_model("gpt2")).transformer.h[0].mlp.act


def test_it_is_the_formula_and_its_derivative() -> None:
    x = torch.linspace(-6, 6, 201, dtype=torch.float64, requires_grad=True)
    c = math.sqrt(2 / math.pi)
    inner = torch.tanh(c * (x + 0.044715 * x**3))
    slope = 0.5 * (1 + inner) + 0.5 * x * (1 - inner**2) * c * (1 + 3 * 0.044715 * x**2)
    y = fused()(x)
    (found,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(y, 0.5 * x * (1 + inner), atol=1e-12)
    assert torch.allclose(found, slope, atol=1e-12)


def test_loss_and_gradients_are_those_of_the_stock_activation() -> None:
    found = []
    for prepare in (lambda model: model, fuse_activations):
        model = enable_prefix(prepare(tiny_model("gpt2")).requires_grad_(False))
        torch.manual_seed(0)
        prefix = MLPPrefix(model.config, 3, mid_dim=8)
        ids = torch.arange(24).view(2, 12)
        loss = target_nll(model, prefix.prompt(), ids, ids).sum()
        found.append((loss, *torch.autograd.grad(loss, [*prefix.parameters()])))
    for stock, fused in zip(*found, strict=True):
        assert torch.allclose(stock, fused, rtol=1e-5, atol=1e-6)


def test_fewer_tensors_are_kept_for_backward() -> None:
    kept: dict[str, int] = {}
    for name, activation in (("stock", NewGELUActivation()), ("fused", fused())):
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            activation(torch.randn(10, requires_grad=True))
        kept[name] = sum(sizes)
    assert kept["fused"] == 10 < kept["stock"]


def test_whoever_holds_the_activation_keeps_it() -> None:
    model = tiny_model("gpt2").train()
    held = model.transformer.h[0].mlp.act
    ids, state = torch.arange(6).view(1, 6), set(model.state_dict())
    before = model(ids).logits
    assert fuse_activations(model) is model
    assert type(held) is NewGELUActivation
    assert isinstance(model.transformer.h[0].mlp.act, nn.GELU)
    assert model.transformer.h[0].mlp.act.training
    assert set(model.state_dict()) == state
    for block in model.transformer.h:
        block.mlp.act = held
    assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize("watched", ["hook", "forward"])
def test_a_module_that_somebody_watches_stays(watched: str) -> None:
    model = tiny_model("gpt2")
    act = model.transformer.h[1].mlp.act
    if watched == "hook":
        act.register_forward_hook(lambda module, args, output: None)
    else:
        act.forward = act.forward
    fuse_activations(model)
    assert model.transformer.h[1].mlp.act is act
    assert isinstance(model.transformer.h[0].mlp.act, nn.GELU)


def test_other_activations_stay() -> None:
    model = tiny_model("llama")
    before = [*model.modules()]
    assert [*fuse_activations(model).modules()] == before
