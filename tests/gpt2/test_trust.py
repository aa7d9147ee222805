"""A folder from somebody else: its code does not run, and it does not decide what is fetched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_model

from gpt2 import gen
from gpt2.decode_request import DecodeOptions
from harness import models
from prefix_tuning import checkpoint, hub
from prefix_tuning.errors import UserError
from prefix_tuning.parametrizations import MLPPrefix


def export(folder: Path, base: str) -> Path:
    model = tiny_model("gpt2")
    prefix = MLPPrefix(model.config, length=2, mid_dim=4)
    meta = checkpoint.metadata(prefix, model, base, task={"task_mode": "data2text"})
    checkpoint.export(folder, prefix, meta)
    return folder


def request(folder: Path, base: str | None = None) -> str:
    args = gen.GenArguments("data2text", "yes", "valid", str(folder), "no", base)
    return gen.request_of(args, DecodeOptions()).model_name_or_path


@pytest.mark.parametrize("base", ["somebody/model", "/of/another/machine/model"])
def test_a_base_model_that_would_be_fetched_is_asked_for(tmp_path: Path, base: str) -> None:
    folder = export(tmp_path / "export", base)
    with pytest.raises(UserError, match="does not decide") as error:
        request(folder)
    assert f"--model_name_or_path {base}" in str(error.value)
    assert request(folder, base) == base


def test_a_base_model_at_hand_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").mkdir()
    assert request(export(tmp_path / "export", str(tmp_path / "base"))) == str(tmp_path / "base")
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: "cache/config.json")
    assert request(export(tmp_path / "other", "somebody/model")) == "somebody/model"


def test_code_that_comes_with_a_model_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    auto = {name: f"evil.{name}" for name in ("AutoConfig", "AutoModelForCausalLM")}
    auto["AutoTokenizer"] = ["evil.T", "evil.T"]  # type: ignore[assignment]
    config = {"model_type": "of_nobody", "auto_map": auto}
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(json.dumps(config))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    for load in (models.load_causal_lm, models.load_tokenizer, models.load_config):
        with pytest.raises(UserError, match="--model_name_or_path"):
            load(str(tmp_path))
    assert not (tmp_path / "ran").exists()


class _Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("a pickle was run",))


def test_a_pickle_of_a_base_model_is_refused_in_our_words(tmp_path: Path) -> None:
    tiny_model("gpt2").save_pretrained(tmp_path / "m")
    shutil.copytree(tmp_path / "m", tmp_path / "bin")
    (tmp_path / "bin" / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": _Payload()}, tmp_path / "bin" / "pytorch_model.bin")
    with pytest.raises(UserError, match="never loaded") as error:
        models.load_causal_lm(str(tmp_path / "bin"))
    assert "weights_only" not in str(error.value)
