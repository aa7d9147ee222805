"""The head in parts computes what PyTorch's loss computes, and is used where it may be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from prefix_tuning import head as heads
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.head import Head
from prefix_tuning.objectives import target_nll
from prefix_tuning.parametrizations import FlatPrefix


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 40),
    st.integers(1, 17),
    st.booleans(),
    st.sampled_from([0.1, 1.0, 60.0]),
    st.integers(0, 99),
)
def test_loss_and_gradient_are_pytorchs(
    n: int, n_token: int, part: int, has_bias: bool, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n_token, 6, generator=generator, dtype=torch.float64) * scale
    bias = torch.randn(n_token, generator=generator, dtype=torch.float64) if has_bias else None
    hidden = torch.randn(n, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, n_token, (n,), generator=generator)
    upstream = torch.rand(n, generator=generator, dtype=torch.float64)
    logits = torch.nn.functional.linear(hidden, weight, bias)
    expected = cross_entropy(logits, targets, reduction="none")
    (of_hidden,) = torch.autograd.grad(expected, hidden, upstream)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "PART", part)
        found = Head(weight, bias).nll(hidden, targets)
        parts = torch.cat([*Head(weight, bias).parts(hidden)], dim=1)
    assert torch.allclose(parts, logits, atol=1e-10)
    assert torch.allclose(found, expected, atol=1e-10)
    assert torch.allclose(torch.autograd.grad(found, hidden, upstream)[0], of_hidden, atol=1e-10)


def _train_head(model: torch.nn.Module) -> None:
    model.lm_head.weight.requires_grad_()


def _watch(model: torch.nn.Module) -> None:
    model.lm_head.register_forward_hook(lambda module, args, output: output + 1)


def _replace_forward(model: torch.nn.Module) -> None:
    forward = model.lm_head.forward
    model.lm_head.forward = lambda hidden: forward(hidden) + 1


@pytest.mark.parametrize("change", [_train_head, _watch, _replace_forward])
def test_a_head_that_is_more_than_its_weight_is_called(
    change: Callable[[torch.nn.Module], None],
) -> None:
    model = enable_prefix(tiny_model("gpt2").requires_grad_(False))
    assert Head.of(model) is not None
    change(model)
    assert Head.of(model) is None
    ids = torch.arange(3, 15).view(2, 6)
    prefix = KeyValues(FlatPrefix(model.config, 2).key_values())
    logits = model(ids, prefix=prefix).logits[:, :-1]
    expected = cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    nll = target_nll(model, prefix, ids, ids)
    assert torch.allclose(nll, expected, atol=1e-5)
    if change is _train_head:
        (grad,) = torch.autograd.grad(nll.sum(), model.lm_head.weight)
        assert grad.abs().sum() > 0


def test_no_loss_and_no_gradient_where_a_label_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "PART", 7)
    model = enable_prefix(tiny_model("gpt2").requires_grad_(False))
    prefix = FlatPrefix(model.config, 2)
    ids = torch.arange(3, 15).view(2, 6)
    labels = ids.masked_fill(torch.arange(6) < 3, -100)
    logits = model(ids, prefix=prefix.prompt()).logits[:, :-1].transpose(1, 2)
    expected = cross_entropy(logits, labels[:, 1:], reduction="none")
    (of_prefix,) = torch.autograd.grad(expected.sum(), prefix.control_trans)
    padded = torch.tensor([2, 3, 4, 8, 9, 10, 11, 11])  # the last has no next token: no loss
    for at in (padded, None):
        nll = target_nll(model, prefix.prompt(), ids, labels, at=at)
        assert torch.allclose(nll, expected, atol=1e-5)
        (found,) = torch.autograd.grad(nll.sum(), prefix.control_trans)
        assert torch.allclose(found, of_prefix, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_other_precisions_are_computed_whole(autocast: bool) -> None:
    model = enable_prefix(tiny_model("gpt2").requires_grad_(False))
    model = model if autocast else model.bfloat16()
    ids = torch.arange(3, 15).view(2, 6)
    prefix = KeyValues(FlatPrefix(model.config, 2).key_values())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(ids, prefix=prefix).logits[:, :-1].float()
        found = target_nll(model, prefix, ids, ids)
    expected = cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    assert found.dtype is torch.float32
    assert torch.allclose(found, expected, atol=1e-6)
