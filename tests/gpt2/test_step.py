"""A training step whose shapes are known beforehand, and that never waits for a GPU."""

from __future__ import annotations

from collections import Counter
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import tiny_model
from processes import shared
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from gpt2.data import Rounding, collate, collate_infix, with_targets
from gpt2.train_control import PrefixTuning
from gpt2.trainer_prefix import TableToTextTrainer, Trainer_Prefix
from harness.loop import Diverged, SafeTrainer
from prefix_tuning.activation import fuse_activations
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.objectives import IGNORE, target_positions
from prefix_tuning.parametrizations import PARAMETRIZATIONS

WAITING = ("nonzero", "_local_scalar_dense", "masked_select", "masked_scatter", "lift_fresh")
"""What makes the host wait for a GPU: counting, looking at a number, and copying one there."""


class Waits(TorchDispatchMode):
    """Counts the operations that would."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name.startswith("index") and isinstance(args[1], list) else []
        masked = any(i is not None and i.dtype is torch.bool for i in indices)
        if name in WAITING or masked:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def examples(*lengths: tuple[int, int]) -> list[dict[str, list[int]]]:
    """(source, target) lengths as token ids and labels."""
    rows = []
    for n, (source, target) in enumerate(lengths):
        ids = [3 + (7 * n + i) % 40 for i in range(source + target)]
        rows.append({"input_ids": ids, "labels": [IGNORE] * source + ids[source:]})
    return rows


ROWS = examples((5, 4), (3, 7), (6, 2))


def setting(mode: int = 1) -> tuple[Any, PrefixTuning]:
    """A frozen model and a prefix."""
    model = enable_prefix(fuse_activations(tiny_model("gpt2")).requires_grad_(False))
    torch.manual_seed(0)
    return model, PrefixTuning(model.config, preseqlen=3, mid_dim=8, objective_mode=mode)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mode", range(5))
def test_a_step_waits_for_nothing(mode: int, smoothing: float) -> None:
    model, prefix = setting(mode)
    optimizer = torch.optim.AdamW(prefix.parameters(), fused=True)
    batch = with_targets(partial(collate, pad_id=2))(ROWS)
    with Waits() as waits:
        given = {"targets_only": True, "smoothing": smoothing}
        prefix(**batch, gpt2_model=model, **given).loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(prefix.parameters(), 1.0)
        optimizer.step()
    assert waits.found == Counter()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("parametrization", list(PARAMETRIZATIONS))
def test_a_step_makes_nothing_on_another_device_than_its_model(
    monkeypatch: pytest.MonkeyPatch, family: str, parametrization: str
) -> None:
    """On "meta", where a tensor of the CPU does not fit, and where no number can be looked at."""
    model = enable_prefix(fuse_activations(tiny_model(family).requires_grad_(False)))
    prefix = PrefixTuning(
        model.config, preseqlen=3, parametrization=parametrization, prefix_dropout=0.1
    )
    arrange = collate_infix if parametrization == "infix" else collate
    batch = with_targets(partial(arrange, pad_id=2), Rounding(targets=8))(ROWS)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)  # unknown on "meta"
    batch = {name: tensor.to("meta") for name, tensor in batch.items()}
    prefix.to("meta")(
        **batch, gpt2_model=model.to("meta"), targets_only=True, smoothing=0.1
    ).loss.mean().backward()
    assert all(p.grad is not None and p.grad.is_meta for p in prefix.parameters())


def test_the_trainer_takes_the_mean_over_the_sentences() -> None:
    """By default each counts with the sum of its tokens."""
    model, prefix = setting()
    batch = collate(ROWS, pad_id=2)
    trainer: Any = SimpleNamespace(
        model_gpt2=model,
        prefix=prefix,
        share_of_batch=lambda *_: 1.0,
        smoothing_for=lambda _: 0.0,
        whole=None,
    )
    logits = model(batch["input_ids"], prefix=prefix).logits[:, :-1]
    nll = cross_entropy(logits.transpose(1, 2), batch["labels"][:, 1:], reduction="sum")
    assert torch.allclose(Trainer_Prefix.batch_loss(trainer, prefix, batch), nll / 3)


def test_without_the_collator_a_step_has_to_count() -> None:
    model, prefix = setting()
    batch = collate(ROWS, pad_id=2)
    with Waits() as waits:
        prefix(**batch, gpt2_model=model, targets_only=True)
    assert waits.found["nonzero"] == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mode", range(5))
@pytest.mark.parametrize("rounding", [Rounding(), Rounding(targets=8), Rounding(16, 64, 8)])
def test_loss_and_gradients_are_those_of_the_definition(
    mode: int, rounding: Rounding, smoothing: float
) -> None:
    """Smoothed: a part of the target's loss, and the rest of the mean over the vocabulary."""
    if mode in (2, 4) and rounding.width > 1:
        pytest.skip("divides by what padding adds to")
    model, prefix = setting(mode)
    prepared = with_targets(partial(collate, pad_id=2), rounding)(ROWS)
    given = {"targets_only": True, "smoothing": smoothing}
    loss = prefix(**prepared, gpt2_model=model, **given).loss.mean()
    found = torch.autograd.grad(loss, [*prefix.parameters()])

    ids, labels = collate(ROWS, pad_id=2).values()
    logits = model(ids, prefix=prefix).logits[:, :-1]
    each = -logits.log_softmax(-1)  # [B, T - 1, V]
    is_target = labels[:, 1:] != IGNORE
    of_target = each.gather(2, labels[:, 1:].clamp(min=0)[:, :, None])[:, :, 0]
    nll = ((1 - smoothing) * of_target + smoothing * each.mean(2)) * is_target
    divisor: Any = [
        sum(len(row["labels"]) - row["labels"].count(IGNORE) for row in ROWS) / len(ROWS),
        1,
        ids.shape[1] - 1,
        7,
        torch.full((3,), ids.shape[1]),
    ][mode]
    expected = (nll.sum(1) / divisor).mean()
    assert torch.allclose(loss, expected, rtol=1e-6)
    for one, other in zip(
        found, torch.autograd.grad(expected, [*prefix.parameters()]), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_labels_are_those_of_torch(smoothing: float) -> None:
    """Whose mean weighs the tokens of the batch alike, as objective mode 0 does."""
    model, prefix = setting(0)
    ids, labels = collate(ROWS, pad_id=2).values()
    logits = model(ids, prefix=prefix).logits[:, :-1].flatten(0, 1)
    expected = cross_entropy(logits, labels[:, 1:].flatten(), label_smoothing=smoothing)
    for targets_only in (True, False):
        given = {"targets_only": targets_only, "smoothing": smoothing}
        found = prefix(ids, model, labels, **given).loss
        assert torch.allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_smoothed_labels_of_a_model_that_is_tuned_itself(
    smoothing: float, dtype: torch.dtype
) -> None:
    """By hand, of the one position that has a loss; while it is evaluated nothing is smoothed."""
    logits = torch.tensor([[[2.0, 0.0, -1.0], [0.0, 1.0, 0.0], [3.0, 3.0, 3.0]]], dtype=dtype)
    batch = {"input_ids": torch.tensor([[0, 1, 2]]), "labels": torch.tensor([[0, 1, IGNORE]])}
    model: Any = torch.nn.Identity()
    model.forward = lambda input_ids: SimpleNamespace(logits=logits)
    trainer: Any = SimpleNamespace(label_smoothing=smoothing, share_of_batch=lambda *_: 1.0)
    trainer.smoothing_for = partial(TableToTextTrainer.smoothing_for, trainer)
    each = -logits[0, 0].float().log_softmax(0)
    expected = (1 - smoothing) * each[1] + smoothing * each.sum() / 3
    assert torch.allclose(TableToTextTrainer.batch_loss(trainer, model, batch), expected)
    assert trainer.smoothing_for(model.eval()) == 0


@pytest.mark.parametrize("mode", range(5))
def test_padding_is_rounded_up_unless_the_objective_counts_it(mode: int) -> None:
    trainer: Any = SimpleNamespace(prefix=SimpleNamespace(objective_mode=mode))
    arrange = Trainer_Prefix._arrange(trainer, partial(collate, pad_id=2), Rounding(8))
    batch = arrange([{"input_ids": [3] * 5, "labels": [IGNORE] + [3] * 4}])
    assert batch["input_ids"].shape[1] == (5 if mode in (2, 4) else 8)


@pytest.mark.parametrize("mode", range(4))
@pytest.mark.parametrize("rounding", [Rounding(), Rounding(targets=8)])
def test_processes_share_an_epochs_last_batch(mode: int, rounding: Rounding) -> None:
    """Rows that fill it up count once; here they are wider, and have more targets."""
    model, prefix = setting(mode)
    arrange = with_targets(partial(collate, pad_id=2), rounding)
    rows = examples((9, 8), (5, 4), (3, 7), (6, 2), (4, 3))

    def make() -> Any:
        trainer: Any = object.__new__(Trainer_Prefix)
        trainer.__dict__ |= {"prefix": prefix, "model_gpt2": model, "whole": None}
        trainer.label_smoothing = 0.0
        return trainer

    for n_row in (4, 3, 2, 1):
        last = [*rows[1 : n_row + 1], *rows[:1] * 4][:4]
        found = shared(make, prefix, [arrange(last[:2]), arrange(last[2:])], n_row)
        wanted = prefix(**arrange(rows[1 : n_row + 1]), gpt2_model=model, targets_only=True)
        assert torch.allclose(found, wanted.loss.mean(), rtol=1e-6)


def test_positions_are_padded_with_one_that_has_no_loss() -> None:
    labels = torch.tensor([[IGNORE, 5, 6, IGNORE], [IGNORE, IGNORE, IGNORE, 7]])
    at = target_positions(labels)
    assert at.tolist() == [0, 1, 6]
    assert target_positions(labels, 4).tolist() == [0, 1, 6, 7]
    assert target_positions(labels, 1).tolist() == at.tolist()


def test_widths_are_rounded_up_as_far_as_the_model_goes() -> None:
    widths = {
        collate(examples((n, 3)), 2, Rounding(16, 40))["input_ids"].shape[1] for n in range(1, 38)
    }
    assert widths == {16, 32, 40}
    infix = collate_infix(ROWS, 2, Rounding(16, 40))
    assert infix["src"].shape == infix["input_ids"].shape == infix["labels"].shape == (3, 16)
    assert infix["src_attn"].sum(1).tolist() == [4, 2, 5]


def test_the_modules_of_a_model_are_walked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prefix = setting()
    batch = with_targets(partial(collate, pad_id=2))(ROWS)
    prefix(**batch, gpt2_model=model, targets_only=True)
    walks = []
    monkeypatch.setattr(model, "modules", lambda: walks.append(1) or iter(()))
    prefix(**batch, gpt2_model=model, targets_only=True)
    assert walks == []
    monkeypatch.undo()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(RuntimeError, match="reentrant"):
        prefix(**batch, gpt2_model=model, targets_only=True)


def test_keys_and_values_are_cast_once() -> None:
    layers = [torch.randn(2, 1, 4, 3, 8, requires_grad=True) for _ in range(3)]
    front = KeyValues(layers)
    assert front.to(torch.float32) is front
    cast = front.to(torch.bfloat16)
    assert cast.offset == 3
    for pair, found in zip(layers, cast.sites["self"], strict=True):
        assert torch.equal(found, pair.to(torch.bfloat16))
    sum(pair.float().sum() for pair in cast.sites["self"]).backward()  # type: ignore[union-attr]
    assert all(torch.equal(pair.grad, torch.ones_like(pair)) for pair in layers)  # type: ignore


def test_a_mask_is_widened_once_a_call() -> None:
    model, prefix = setting()
    batch = with_targets(partial(collate, pad_id=2))(ROWS)

    class Fills(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            self.count += func.overloadpacket.__name__ == "new_full"
            return func(*args, **(kwargs or {}))

    with Fills() as fills:
        prefix(**batch, gpt2_model=model, targets_only=True)
    assert fills.count == 1 < model.config.n_layer


def test_a_loss_that_is_no_number_is_seen_when_it_is_logged() -> None:
    trainer = SafeTrainer.__new__(SafeTrainer)
    trainer.args = SimpleNamespace(output_dir="nowhere")  # type: ignore[assignment]
    trainer.state = SimpleNamespace(global_step=7)  # type: ignore[assignment]
    trainer.accelerator = None
    with pytest.raises(Diverged, match="loss up to step 7"):
        trainer.log({"loss": float("nan")})
