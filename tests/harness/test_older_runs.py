"""Runs that an earlier version left go on and decode, as its own uninterrupted runs did."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import transformers
from conftest import ROOT
from packaging.version import Version
from safetensors.torch import load_file

from gpt2 import gen, train_e2e
from ptuning_v2 import run as ptuning_run
from seq2seq import finetune

OLDER = ROOT / "tests" / "fixtures" / "older_runs"
Main = Callable[[Sequence[str]], object]
SYSTEMS: dict[str, tuple[Main, str]] = {
    "gpt2": (train_e2e.main, "model.safetensors"),
    "seq2seq": (finetune.main, "checkpoint-curr_best/model.safetensors"),
    "ptuning_v2": (ptuning_run.main, "best/model.safetensors"),
}


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of the runs of one system, which is where the test is."""
    shutil.copytree(OLDER / request.param, tmp_path / "older")
    monkeypatch.chdir(tmp_path / "older")
    return request.param


def command(output: str) -> list[str]:
    return [*json.loads(Path("command.json").read_text(encoding="utf-8")), "--output_dir", output]


def test_an_interrupted_run_goes_on(system: str, capsys: pytest.CaptureFixture[str]) -> None:
    main, weights = SYSTEMS[system]
    main(command("interrupted"))
    assert "going on from interrupted" in capsys.readouterr().out
    if system == "seq2seq" and Version(transformers.__version__) < Version("5.23"):
        pytest.skip("BART drew a random number for each layer, so that its dropout is another")
    one, other = load_file(f"finished/{weights}"), load_file(f"interrupted/{weights}")
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5)


def test_a_finished_run_is_not_trained_again(
    system: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main, weights = SYSTEMS[system]
    before = Path("finished", weights).stat().st_mtime_ns
    main(command("finished"))
    assert "finished is trained already; to train it again" in capsys.readouterr().out
    assert Path("finished", weights).stat().st_mtime_ns == before


@pytest.mark.parametrize("system", ["gpt2"], indirect=True)
def test_a_finished_prefix_decodes_the_same_texts(system: str) -> None:
    flags = "--data_file data/valid.txt --no_score --length 12 --no_cuda --results_dir decoded"
    gen.main(["data2text", "yes", "valid", "finished", "no", *flags.split()])
    texts = Path("decoded/e2e_results_conv2/finished_valid_beam").read_bytes()
    assert texts == Path("decoded.txt").read_bytes()


@pytest.mark.parametrize("system", ["seq2seq"], indirect=True)
def test_a_finished_run_decodes_the_same_summaries(system: str) -> None:
    finetune.main(command("finished"))
    texts = Path("finished/checkpoint-curr_best/test_beam_0.8").read_bytes()
    assert texts == Path("decoded.txt").read_bytes()


@pytest.mark.parametrize("system", ["ptuning_v2"], indirect=True)
def test_a_finished_run_predicts_and_scores_the_same(system: str) -> None:
    predictions, scores = Path("finished/SST-2.tsv"), Path("finished/eval_results.json")
    texts, wanted = predictions.read_bytes(), json.loads(scores.read_text(encoding="utf-8"))
    predictions.unlink()
    scores.unlink()
    ptuning_run.main(command("finished"))
    assert predictions.read_bytes() == texts
    found = json.loads(scores.read_text(encoding="utf-8"))
    for name in ("eval_accuracy", "eval_loss"):  # the predictions are all one class
        assert found[name] == pytest.approx(wanted[name], rel=1e-6)
