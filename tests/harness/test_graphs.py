"""Recorded steps, with a recorder that repeats the computation itself: no GPU is tested here."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness import graphs
from harness.graphs import GraphedStep, obstacle, use


def compute(module: nn.Linear, batch: dict[str, Tensor]) -> Tensor:
    return (module(batch["x"]).squeeze(-1) - batch["y"]).square().mean()


def batches(n: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(2, 4, 2, 6)[i % 4] for i in range(n)]
    return [
        {"x": torch.randn(size, 3, generator=generator), "y": torch.ones(size)} for size in sizes
    ]


def trained(step: Callable[[nn.Linear, dict[str, Tensor]], Any], n: int = 100) -> Tensor:
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    losses = []
    for batch in batches(n):
        losses.append(step(module, batch))
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return torch.cat([torch.stack(losses), module.weight.detach().flatten(), module.bias.detach()])


def eager(module: nn.Linear, batch: dict[str, Tensor]) -> Tensor:
    loss = compute(module, batch)
    loss.backward()
    return loss.detach()


def test_a_hundred_replayed_steps_are_a_hundred_eager_ones() -> None:
    recorded: list[object] = []
    made: list[GraphedStep] = []

    def record(step: Callable[[], None]) -> Callable[[], None]:
        recorded.append(step)
        step()  # what warms up must leave no trace
        return step

    def replayed(module: nn.Linear, batch: dict[str, Tensor]) -> Tensor | None:
        if not made:
            parameters = [*module.parameters()]
            made.append(GraphedStep(lambda inputs: compute(module, inputs), parameters, record))
        return made[0](batch)

    assert torch.allclose(trained(replayed), trained(eager), rtol=1e-6, atol=1e-7)
    assert len(recorded) == 3  # a recording for each width


def test_a_replay_reads_and_writes_where_it_was_recorded() -> None:
    module = nn.Linear(3, 1)
    step = GraphedStep(lambda inputs: compute(module, inputs), [*module.parameters()], lambda s: s)
    seen, grads = [], []
    for batch in batches(3)[::2]:  # of one shape
        seen.append(step(batch))
        grads.append(module.weight.grad)
    assert grads[0] is grads[1]
    assert seen[0] is not seen[1]
    assert len(step._recorded) == 1


def test_what_cannot_be_recorded_stays_eager_and_says_so_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = nn.Linear(3, 1)

    def record(step: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    step = GraphedStep(lambda inputs: compute(module, inputs), [*module.parameters()], record)
    assert [step(batch) for batch in batches(4)] == [None] * 4
    assert module.weight.grad is None
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert said[0].startswith("no CUDA graph for x [2, 3], y [2]: steps of this shape stay eager")


def test_no_more_shapes_than_memory_is_meant_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_SHAPES", 1)
    module = nn.Linear(3, 1)
    step = GraphedStep(lambda inputs: compute(module, inputs), [*module.parameters()], lambda s: s)
    found = [step(batch) is None for batch in batches(4)]
    assert found == [False, True, False, True]


def arguments(**changes: Any) -> Any:
    plain = {
        "device": torch.device("cuda"),
        "world_size": 1,
        "n_gpu": 1,
        "fp16": False,
        "bf16": False,
        "gradient_accumulation_steps": 1,
        "torch_compile": False,
    }
    return SimpleNamespace(**{**plain, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"device": torch.device("cpu")}, "no GPU"),
        ({"world_size": 2}, "several GPUs"),
        ({"gradient_accumulation_steps": 2}, "accumulated"),
        ({"bf16": True}, "--bf16"),
        ({"torch_compile": True}, "--torch_compile"),
    ],
)
def test_obstacles(changes: dict[str, Any], reason: str | None) -> None:
    found = obstacle(SimpleNamespace(args=arguments(**changes), graphable=True))
    assert found is None if reason is None else reason in str(found)


def test_a_loss_that_looks_at_numbers_is_not_recorded() -> None:
    assert "none" in str(obstacle(SimpleNamespace(args=arguments(), graphable=False)))


def test_a_trainer_steps_eagerly_where_nothing_is_recorded() -> None:
    module, calls = nn.Linear(3, 1), []

    def refuse(step: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError

    def forward_backward(model: Any, inputs: Any, n: Any = None) -> Tensor:
        calls.append("eager")
        return eager(model, inputs)

    for record in (refuse, lambda step: step):
        trainer = SimpleNamespace(
            model=module,
            forward_backward=forward_backward,
            compute_loss=compute,
            _prepare_inputs=lambda inputs: inputs,
        )
        trainer.args = arguments()
        assert use(trainer, record) is None
        assert torch.isfinite(trainer.forward_backward(module, batches(1)[0]))
    assert calls == ["eager"]
