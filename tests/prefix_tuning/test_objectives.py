"""The losses, against the definitions written out as loops."""

from __future__ import annotations

import pytest
import torch
from conftest import CAPPED, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.objectives import IGNORE, objective, target_nll
from prefix_tuning.parametrizations import MLPPrefix
from prefix_tuning.shape import PrefixShape

END = 1


def batch(lengths: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids and labels of (source, target) lengths; padding is id 2."""
    width = max(s + t for s, t in lengths)
    generator = torch.Generator().manual_seed(sum(s * 7 + t for s, t in lengths))
    ids = torch.randint(3, 50, (len(lengths), width), generator=generator)
    labels = torch.full_like(ids, IGNORE)
    for row, (source, target) in enumerate(lengths):
        ids[row, source + target - 1] = END
        ids[row, source + target :] = 2
        labels[row, source : source + target] = ids[row, source : source + target]
    return ids, labels


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4),
    st.sampled_from(range(5)),
)
def test_modes_by_hand(lengths: list[tuple[int, int]], mode: int) -> None:
    ids, labels = batch(lengths)
    width = ids.shape[1]
    nll = torch.rand(len(lengths), width - 1)
    for row, (source, target) in enumerate(lengths):
        nll[row, : source - 1] = 0
        nll[row, source + target - 1 :] = 0
    sums = nll.sum(1).tolist()
    expected = {
        0: [sum(sums) / sum(t for _, t in lengths)],
        1: sums,
        2: [s / (width - 1) for s in sums],
        3: [s / max(t for _, t in lengths) for s in sums],
        4: [s / sum(i != END for i in row) for s, row in zip(sums, ids.tolist(), strict=True)],
    }[mode]
    found = objective(mode, nll, labels, ids, END).reshape(-1).tolist()
    assert found == pytest.approx(expected, rel=1e-5)


def test_head_on_targets_only_is_the_same_number_with_the_same_gradient() -> None:
    model = enable_prefix(tiny_model("gpt2")).requires_grad_(False)
    ids, labels = batch([(4, 5), (2, 3), (6, 1)])
    gradients = []
    for targets_only in (True, False):
        torch.manual_seed(0)
        prefix = MLPPrefix(PrefixShape.from_config(model.config), 4, mid_dim=8)
        key_values = KeyValues(prefix.key_values())
        if targets_only:
            nll = target_nll(model, key_values, ids, labels)
        else:
            log_probs = model(ids, prefix=key_values).logits.log_softmax(-1)
            nll = torch.zeros(3, ids.shape[1] - 1)
            for row, column in (labels[:, 1:] != IGNORE).nonzero().tolist():
                nll[row, column] = -log_probs[row, column, ids[row, column + 1]]
        nll.sum().backward()
        gradients.append((nll.detach(), prefix.wte.weight.grad))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_models_that_cap_their_logits_get_the_capped_loss() -> None:
    model = enable_prefix(tiny_model(CAPPED, "eager"))
    prefix = KeyValues(MLPPrefix(PrefixShape.from_config(model.config), 4).key_values())
    ids, labels = batch([(4, 5), (2, 3)])
    logits = model(ids, prefix=prefix).logits[:, :-1]
    assert logits.abs().max() <= 0.5
    expected = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), labels[:, 1:], reduction="none"
    )
    assert torch.allclose(target_nll(model, prefix, ids, labels), expected, atol=1e-5)


def test_unknown_mode() -> None:
    ids, labels = batch([(2, 2)])
    with pytest.raises(ValueError, match="objective mode 5"):
        objective(5, torch.zeros(1, 3), labels, ids, END)
