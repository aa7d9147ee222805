"""The certificate can fail: ten deviations, each caught by the name of a check."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from torch.nn.functional import layer_norm

import gpt2.training
import prefix_tuning.attention
from gpt2.trainer_prefix import Trainer_Prefix
from harness.graphs import GraphedStep
from prefix_tuning import key_values, objectives
from prefix_tuning.beam_search import Hypotheses
from prefix_tuning.errors import UserError
from prefix_tuning.key_values import KeyValues
from prefix_tuning.prefix import Prefix
from prefix_tuning.shape import PrefixShape
from scripts.verify import __main__ as verify
from scripts.verify import bart_trajectory, gpt2_numbers, gpt2_trajectory, gpu, numbers, report
from scripts.verify.cases import Case
from scripts.verify.checks import VECTORS, Check, Difference, LeftOut, Places, perform


def few_outputs() -> Iterator[Difference]:
    case = Case.read(VECTORS / "gpt2_beam_mlp.safetensors")
    few = {**case.about, "cases": case.about["cases"][:2]}
    return gpt2_numbers.outputs(replace(case, about=few))


CHECKS = {check.name: check for check in numbers.checks([VECTORS])}
CHECKS["gpt2_beam_mlp"] = Check("gpt2_beam_mlp", "", few_outputs)
for name, module in (("gpt2", gpt2_trajectory), ("bart", bart_trajectory)):
    CHECKS[f"trajectory_{name}"] = Check(f"trajectory_{name}", "", partial(module.compare, steps=1))


def epsilon(patch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, 1e-6)

    patch.setattr(torch.nn.LayerNorm, "forward", forward)


def positions_from_0(patch: pytest.MonkeyPatch) -> None:
    original = prefix_tuning.attention.position_inputs
    patch.setattr(
        prefix_tuning.attention,
        "position_inputs",
        lambda model, offset, inputs: original(model, 0, inputs),
    )


def no_pad_row(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gpt2.training, "_add_padding", lambda args, model, tokenizer, seed: 0)


def length_of_today(patch: pytest.MonkeyPatch) -> None:
    original = Hypotheses.add
    patch.setattr(
        Hypotheses,
        "add",
        lambda self, tokens, log_prob, length: original(self, tokens, log_prob, len(tokens)),
    )


def one_mask_for_all_rows(patch: pytest.MonkeyPatch) -> None:
    original = Prefix.key_values
    patch.setattr(Prefix, "key_values", lambda self, rows=1, site="self": original(self, 1, site))


def swapped(patch: pytest.MonkeyPatch) -> None:
    original = PrefixShape.to_layers
    patch.setattr(PrefixShape, "to_layers", lambda self, slots: original(self, slots).flip(1))


def without_layer_1(patch: pytest.MonkeyPatch) -> None:
    original = KeyValues.compute

    def compute(self: Any, attention: Any) -> Any:
        return attention.run() if attention.layer == 1 else original(self, attention)

    patch.setattr(KeyValues, "compute", compute)


def padding_is_seen(patch: pytest.MonkeyPatch) -> None:
    def widen(mask: torch.Tensor, length: int) -> torch.Tensor:
        shape = (*mask.shape[:-1], mask.shape[-1] + length)
        return mask.new_full(shape, 0.0 if mask.is_floating_point() else True)

    patch.setattr(key_values, "_widen_once", widen)


def sum_over_sentences(patch: pytest.MonkeyPatch) -> None:
    original = Trainer_Prefix.compute_loss
    patch.setattr(
        Trainer_Prefix,
        "compute_loss",
        lambda self, model, inputs, *args, **kwargs: (
            len(inputs["labels"]) * original(self, model, inputs, *args, **kwargs)
        ),
    )


def without_bias(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(objectives, "has_plain_head", lambda model: True)


DEVIATIONS: list[tuple[Callable[[pytest.MonkeyPatch], None], str, str]] = [
    (epsilon, "gpt2_mlp_p1", "loss"),
    (positions_from_0, "gpt2_mlp_p1", "loss"),
    (no_pad_row, "trajectory_gpt2", "losses"),
    (length_of_today, "gpt2_beam_mlp", "scores"),
    (one_mask_for_all_rows, "trajectory_gpt2", "losses"),
    (swapped, "gpt2_mlp_p1", "keys and values"),
    (without_layer_1, "gpt2_mlp_p1", "loss"),
    (padding_is_seen, "ptuning_roberta_token_mlp", "logits"),
    (sum_over_sentences, "trajectory_gpt2", "losses"),
    (without_bias, "trajectory_bart", "losses"),
]


@pytest.mark.parametrize("name", sorted({name for _, name, _ in DEVIATIONS}))
def test_the_checks_pass(name: str) -> None:
    outcome = perform(CHECKS[name])
    assert outcome.result == "passed", (outcome.reason, outcome.worst)


@pytest.mark.parametrize(
    ("plant", "name", "quantity"), DEVIATIONS, ids=[plant.__name__ for plant, _, _ in DEVIATIONS]
)
def test_each_deviation_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None],
    name: str,
    quantity: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    outcome = perform(CHECKS[name])
    assert outcome.result == "OFF"
    off = [difference.what for difference in outcome.differences if difference.share > 1]
    assert any(what.startswith(quantity) for what in off), (off, outcome.reason)


@pytest.mark.parametrize("check", gpu.checks("cpu")[:-1], ids=lambda check: check.name)
def test_the_checks_of_a_gpu_compare_what_they_say(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU stands for the GPU, so nothing differs but bf16."""
    monkeypatch.setattr(gpu, "STEPS", 4)
    outcome = perform(check)
    assert outcome.result == "passed", outcome.reason
    assert all(d.found == 0 for d in outcome.differences if "bfloat16" not in d.what)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU records")
def test_runs_that_recorded_nothing_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though they train and decode the same: --cuda_graphs auto was a second eager run."""
    monkeypatch.setattr(gpu, "STEPS", 4)
    found = {difference.what: difference.found for difference in gpu.runs("cuda")}
    assert found.pop("runs whose steps stayed eager") == 1
    assert [*found.values()] == [0, 0, 0]


def test_a_gpu_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    outcomes = [perform(check) for check in gpu.checks()]
    assert {(o.result, o.reason) for o in outcomes} == {("left out", "torch sees no GPU here")}


def test_a_recording_that_replays_something_else_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "STEPS", 4)
    replay = GraphedStep.__call__
    first: list[Any] = []

    def stale(self: Any, inputs: Any) -> Any:
        """The inputs of the first batch of a shape are never replaced."""
        first.append(inputs)
        shape = inputs["input_ids"].shape
        return replay(self, next(x for x in first if x["input_ids"].shape == shape))

    monkeypatch.setattr(GraphedStep, "__call__", stale)
    check = next(check for check in gpu.checks("cpu") if check.name == "gpu_graphs_gpt2")
    assert perform(check).result == "OFF"


def test_new_cases_are_taken_and_unknown_ones_named(tmp_path: Path) -> None:
    for ending in ("safetensors", "json"):
        content = (VECTORS / f"gpt2_mlp_p1.{ending}").read_bytes()
        for name in ("gpt2_another", "t5_strange"):
            (tmp_path / f"{name}.{ending}").write_bytes(content)
    found = {c.name: perform(c) for c in numbers.checks([VECTORS, tmp_path]) if c.name[0] in "t"}
    assert found["t5_strange"].result == "left out"
    assert "no known kind" in found["t5_strange"].reason
    another = next(c for c in numbers.checks([VECTORS, tmp_path]) if c.name == "gpt2_another")
    assert perform(another).result == "passed"


def test_what_is_no_number_what_fails_and_what_compares_nothing_is_off() -> None:
    def fails() -> Iterator[Difference]:
        raise RuntimeError("no kernel\nand more")

    assert perform(Check("a", "", lambda: [Difference("x", float("nan"), 1.0)])).result == "OFF"
    assert perform(Check("b", "", lambda: [])).result == "OFF"
    outcome = perform(Check("c", "", fails))
    assert (outcome.result, outcome.reason) == ("OFF", "RuntimeError: no kernel")
    assert perform(Check("d", "", lambda: [Difference("x", 0, 0)])).result == "passed"
    assert perform(Check("e", "", lambda: [Difference("x", 1, 0)])).result == "OFF"


def test_the_command_and_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent() -> Iterator[Difference]:
        raise LeftOut("no data here")

    rows = [
        Check("good", "a loop", lambda: [Difference("loss", 1e-7, 1e-5)]),
        Check("gone", "a set", absent),
    ]
    monkeypatch.setattr(verify, "checks", lambda groups, places: rows)
    files = ["--json", str(tmp_path / "f.json"), "--page", str(tmp_path / "f.md")]
    assert verify.main(files) == 0
    document = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    assert document["checks"][0]["differences"] == [{"what": "loss", "found": 1e-7, "bound": 1e-5}]
    page = (tmp_path / "f.md").read_text(encoding="utf-8")
    assert "| good | a loop | loss | 1.0e-07 | 1.0e-05 | passed |" in page
    assert "| gone | a set | no data here |  |  | left out |" in page
    assert "1 passed, 0 off, 1 left out" in capsys.readouterr().out
    rows.append(Check("bad", "a loop", lambda: [Difference("loss", 1.0, 1e-5)]))
    assert verify.main(files) == 1
    assert verify.main(["--only", "data"]) == 1  # and nothing is written


def test_bad_use_ends_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--only speed: choose from numbers, trajectories"):
        verify.main(["--only", "data,speed"])
    with pytest.raises(UserError, match="--only : choose from numbers"):
        verify.main(["--only", ""])
    with pytest.raises(UserError, match=r"--vectors .*: there is no such folder"):
        Places.of(tmp_path / "absent", None)


def test_the_committed_page_is_of_all_checks_and_of_no_machine() -> None:
    page = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    rows = {line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if "| " in line}
    names = {check.name for check in verify.checks(verify.GROUPS, Places())}
    assert names <= rows
    assert "| OFF |" not in page
    assert " 0 off, " in page
    assert str(ROOT) not in page
    assert report.summary([]) == "0 passed, 0 off, 0 left out"
