"""Modes, precision, masks, files in the middle of a write: what a wrong one of would not show."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_model
from safetensors.torch import load_file
from torch import nn

from prefix_tuning import attach, checkpoint, detach, saving
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.objectives import IGNORE, objective, scatter_nll
from prefix_tuning.observer import observe
from prefix_tuning.parametrizations import PARAMETRIZATIONS, EmbeddingPrefix, FlatPrefix, MLPPrefix
from prefix_tuning.serve.sampling import draw
from prefix_tuning.shape import PrefixShape

SHAPE = PrefixShape.from_config(tiny_model("gpt2").config)


def modes(*modules: nn.Module) -> list[bool]:
    return [module.training for each in modules for module in each.modules()]


@pytest.mark.parametrize("n_row", [1, 3])
def test_losses_of_half_precision_are_computed_and_added_up_in_fp32(n_row: int) -> None:
    """bf16 has 8 bits: a sum of hundreds of token losses would be off by whole nats."""
    torch.manual_seed(0)
    logits = (torch.randn(n_row, 301, 40) * 3).bfloat16()
    labels = torch.randint(0, 40, (n_row, 301))
    exact = -logits[:, :-1].double().log_softmax(-1).gather(2, labels[:, 1:, None])[..., 0]
    nll = scatter_nll(logits[:, :-1].reshape(-1, 40), labels)
    assert nll.dtype == torch.float32
    assert torch.allclose(nll.double(), exact, atol=1e-5)
    sums = objective(1, nll, labels, labels, 0)
    assert sums.dtype == torch.float32
    assert torch.allclose(sums.double(), exact.sum(1), rtol=1e-6)


def test_ignored_positions_have_no_loss_in_any_row() -> None:
    labels = torch.tensor([[IGNORE, 1, IGNORE], [IGNORE, IGNORE, 2], [3, IGNORE, IGNORE]])
    nll = scatter_nll(torch.zeros(2, 4), labels)
    even = math.log(4)
    assert torch.allclose(nll, torch.tensor([[even, 0.0], [0.0, even], [0.0, 0.0]]))


@pytest.mark.parametrize("kind", ["mlp", "flat", "embedding"])
def test_what_is_exported_has_no_dropout_and_leaves_all_modes(tmp_path: Path, kind: str) -> None:
    model = tiny_model("gpt2")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    enable_prefix(model)
    prefix = PARAMETRIZATIONS[kind](SHAPE, 3, dropout=0.5).eval()
    expected = prefix.prompt(model).sites["self"]
    prefix.train()
    model.train()
    model.base_model.h[0].eval()  # a part that somebody left in another mode
    before = modes(prefix, model)
    checkpoint.export(tmp_path, prefix, checkpoint.metadata(prefix, model, ""), model)
    assert modes(prefix, model) == before
    table = load_file(tmp_path / "prefix.safetensors")["past_key_values"]
    for pair, layer in zip(expected, table, strict=True):
        assert torch.equal(pair[:, 0], layer)


@pytest.mark.parametrize("form", ["checkpoint", "export", "parameters", "kept"])
def test_whatever_is_loaded_is_in_eval_mode(tmp_path: Path, form: str) -> None:
    model = enable_prefix(tiny_model("gpt2"))
    prefix = MLPPrefix(SHAPE, 3, mid_dim=4, dropout=0.5).train()
    meta = checkpoint.metadata(prefix, model, "")
    if form == "checkpoint":
        checkpoint.save(tmp_path, prefix, model.config.to_dict(), meta)
    elif form == "export":
        checkpoint.export(tmp_path, prefix, meta)
    elif form == "parameters":
        saving.save_parameters(tmp_path, prefix, model)
    else:
        saving.save_prefix(tmp_path, prefix, model)
    loaded = saving.read(tmp_path, model).prefix
    assert not any(modes(loaded))
    for one, other in zip(prefix.eval().key_values(), loaded.key_values(2), strict=True):
        assert torch.equal(one, other)


def test_dropout_is_drawn_again_for_every_row_and_every_call() -> None:
    prefix = FlatPrefix(SHAPE, 4, dropout=0.5).train()
    masks = [prefix.key_values(2)[0] == 0 for _ in range(2)]
    rows = [mask[:, row] for mask in masks for row in range(2)]
    for i, one in enumerate(rows):
        assert 0.3 < one.float().mean() < 0.7
        assert not any(torch.equal(one, other) for other in rows[i + 1 :])
    kept = prefix.key_values(1)[0]
    plain = prefix.eval().key_values(5)[0]
    assert plain.shape[1] == 1
    assert torch.equal(kept[kept != 0], 2 * plain[kept != 0])


def test_keys_and_values_of_a_half_precision_model_are_read_as_fp32() -> None:
    model = enable_prefix(tiny_model("gpt2").bfloat16())
    observer = observe(model, input_ids=torch.tensor([[5, 6, 7]]))
    assert {pair.dtype for pair in observer.layers()} == {torch.float32}
    prefix = EmbeddingPrefix(SHAPE, 3, mid_dim=4)
    assert {value.dtype for value in prefix.flatten(model).parameters()} == {torch.float32}


def test_tables_on_disk_are_fp32_whatever_the_parameters_are(tmp_path: Path) -> None:
    prefix = FlatPrefix(SHAPE, 2).bfloat16()
    checkpoint.export(tmp_path, prefix, {"base_model": {}})
    assert load_file(tmp_path / "prefix.safetensors")["past_key_values"].dtype == torch.float32


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_slot_hidden_from_one_row_is_seen_by_the_others(attention: str, beams: int) -> None:
    """Hidden from the second row is as if that row's prefix were shorter."""
    model = enable_prefix(tiny_model("gpt2", attention))
    torch.manual_seed(1)
    layers = [torch.randn(2, 2, SHAPE.n_head, 3, SHAPE.head_dim) for _ in range(SHAPE.n_layer)]
    ids = torch.randint(3, 50, (2 * beams, 5))
    mask = torch.ones_like(ids)
    visible = torch.tensor([[True, True, True], [True, False, True]])
    front = KeyValues(layers, offset=3, visible=visible)
    found = model(ids, attention_mask=mask, prefix=front).logits
    for row in range(2):
        here = slice(row * beams, (row + 1) * beams)
        own = KeyValues([pair[:, row : row + 1, :, visible[row]] for pair in layers], offset=3)
        alone = model(ids[here], attention_mask=mask[here], prefix=own).logits
        assert torch.allclose(found[here], alone, atol=1e-5)


def test_tokens_are_drawn_by_each_rows_own_number_temperature_and_nucleus() -> None:
    """Against numpy in fp64, one row at a time."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(40, 500)) * 3
    uniform = generator.uniform(size=40)
    temperature = generator.choice([0.5, 1.0, 2.0], size=40)
    top_p = generator.choice([0.3, 0.9, 1.0], size=40)
    found = draw(*(torch.tensor(x) for x in (logits, uniform, temperature, top_p)))
    for row in range(40):
        weights = np.exp(logits[row] / temperature[row])
        weights /= weights.sum()
        order = np.argsort(-weights)
        n_kept = int(np.searchsorted(np.cumsum(weights[order]), top_p[row])) + 1
        weights[order[n_kept:]] = 0
        cumulative = np.cumsum(weights) / weights.sum()
        assert found[row] == np.searchsorted(cumulative, uniform[row], side="right")


@pytest.mark.parametrize("uniform", [0.0, 1 - 1e-16])
def test_tokens_of_probability_0_are_never_drawn(uniform: float) -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    one = torch.ones(1, dtype=torch.float64)
    assert draw(logits, uniform * one, one, one).item() == (1 if uniform == 0 else 2)
    assert draw(logits, uniform * one, one, one / 2).item() == 1, "it has the half alone"


class Killed(BaseException):
    pass


def test_a_tensor_file_killed_while_it_is_written_is_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    checkpoint.write_tensors(path, {"a": torch.ones(2, 3).T})  # not contiguous
    before = path.read_bytes()

    def killed(tensors: Any, target: Any, *more: Any) -> None:
        Path(target).write_bytes(b"half")
        raise Killed

    monkeypatch.setattr(checkpoint, "save_file", killed)
    with pytest.raises(Killed):
        checkpoint.write_tensors(path, {"a": torch.zeros(2)})
    assert path.read_bytes() == before
    assert torch.equal(load_file(path)["a"], torch.ones(3, 2))


@pytest.mark.parametrize("mode", [True, False])
def test_enabling_and_attaching_leave_the_mode(mode: bool) -> None:
    model = tiny_model("gpt2").train(mode)
    assert {*modes(enable_prefix(model))} == {mode}
    assert {*modes(attach(model, 2, "flat").base_model)} == {mode}
    detach(model)
    assert {*modes(model)} == {mode}
