"""Prefixes as caches of other engines: the logits are ours, and those of a text the text's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FAMILIES, ROOT, tiny_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from prefix_tuning import cache_format, checkpoint, export
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.errors import UserError
from prefix_tuning.observer import observe
from prefix_tuning.parametrizations import FlatPrefix, MLPPrefix

P = 16
TEXT = list(range(5, 5 + P))
IDS = [7, 30, 12, 45, 9]


def of_text(model: Any) -> FlatPrefix:
    """The keys and values of a real text: in front of tokens they must act as the text does."""
    with torch.no_grad():
        layers = observe(enable_prefix(model), input_ids=torch.tensor([TEXT])).layers()
    prefix = FlatPrefix(model.config, P)
    table = prefix.shape.to_slots(torch.stack([*layers])[:, :, 0])
    return FlatPrefix(model.config, P, values={"self": table})


def write(folder: Path, model: Any, prefix: Any, form: str) -> Path:
    checkpoint.export(folder, prefix, checkpoint.metadata(prefix, model, "tiny"))
    export.main([str(folder), "--to", form])
    return folder / form


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_dynamic_cache_gives_our_logits_and_those_of_a_text(tmp_path: Path, family: str) -> None:
    model, ids = tiny_model(family), torch.tensor([IDS, IDS[::-1]])
    mask = torch.ones(2, P + ids.shape[1], dtype=torch.long)

    def through_cache(folder: Path) -> torch.Tensor:
        cache = cache_format.read_cache(folder / "cache.safetensors", model, rows=2)
        return tiny_model(family)(ids, past_key_values=cache, attention_mask=mask).logits

    random = MLPPrefix(model.config, P, mid_dim=8).eval()
    found = through_cache(write(tmp_path / "random", model, random, "cache"))
    expected = enable_prefix(model)(ids, prefix=KeyValues(random.key_values())).logits
    assert torch.allclose(found, expected, atol=1e-5)
    assert (model(ids).logits - expected).abs().max() > 0.1

    found = through_cache(write(tmp_path / "text", model, of_text(model), "cache"))
    whole = torch.cat([torch.tensor([TEXT, TEXT]), ids], dim=1)
    assert torch.allclose(found, tiny_model(family)(whole).logits[:, P:], atol=1e-5)


def test_prompt_cache_layout(tmp_path: Path) -> None:
    model = tiny_model("llama")
    folder = write(tmp_path, model, MLPPrefix(model.config, P, mid_dim=8), "mlx")
    arrays = load_file(folder / "prompt_cache.safetensors")
    assert {name: [*array.shape] for name, array in arrays.items()} == {
        f"{layer}.{part}": [] if part == 2 else [1, 2, P, 8]
        for layer in range(3)
        for part in range(3)
    }
    assert "mlx_lm.generate" in (folder / "README.md").read_text(encoding="utf-8")
    file = folder / "prompt_cache.safetensors"
    for given, name in (([], "tiny"), (["--model_name_or_path", "there"], "there")):
        export.main([str(tmp_path), "--format", "mlx", *given])
        with safe_open(file, "pt") as found:
            assert found.metadata()["0.model"] == name


def test_a_dynamic_cache_is_in_the_precision_of_the_model(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    folder = write(tmp_path, model, MLPPrefix(model.config, P, mid_dim=8), "cache")
    cache = cache_format.read_cache(folder / "cache.safetensors", model.bfloat16())
    assert {layer.keys.dtype for layer in cache.layers} == {torch.bfloat16}


def save_as_of_old(model: Any, folder: Path) -> None:
    """A model's folder with the older names that mlx-lm looks for."""
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"n_ctx": 64, **config.get("rope_parameters", {})}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    arrays = load_file(folder / "model.safetensors")
    arrays = {name.removeprefix("transformer."): array for name, array in arrays.items()}
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})


def mlx_model(folder: Path, family: str) -> tuple[Any, Any]:
    """The same weights in mlx-lm, and here."""
    utils = pytest.importorskip("mlx_lm.utils")
    model = tiny_model(family)
    save_as_of_old(model, folder)
    return utils.load_model(folder)[0], model


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "qwen3"])
@torch.no_grad()
def test_mlx_gives_our_logits_and_those_of_a_text(tmp_path: Path, family: str) -> None:
    mx = pytest.importorskip("mlx.core")
    load_prompt_cache = pytest.importorskip("mlx_lm.models.cache").load_prompt_cache
    theirs, model = mlx_model(tmp_path / "base", family)

    def through_mlx(folder: Path) -> torch.Tensor:
        cache = load_prompt_cache(str(folder / "prompt_cache.safetensors"))
        return torch.tensor(theirs(mx.array([IDS]), cache=cache).tolist())

    random = MLPPrefix(model.config, P, mid_dim=8).eval()
    found = through_mlx(write(tmp_path / "random", model, random, "mlx"))
    text = through_mlx(write(tmp_path / "text", model, of_text(model), "mlx"))
    whole = torch.tensor([TEXT + IDS])
    assert torch.allclose(text, tiny_model(family)(whole).logits[:, P:], atol=1e-4)
    ids = torch.tensor([IDS])
    expected = enable_prefix(model)(ids, prefix=KeyValues(random.key_values())).logits
    assert torch.allclose(found, expected, atol=1e-4)
    assert (model(ids).logits - expected).abs().max() > 0.1


def test_the_stock_command_of_mlx_takes_the_file(tmp_path: Path, tokenizer: Any) -> None:
    pytest.importorskip("mlx_lm")
    config = FAMILIES["llama"].to_dict() | {"vocab_size": len(tokenizer)}
    model = tiny_model(FAMILIES["llama"].from_dict(config))
    save_as_of_old(model, tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    prefix = MLPPrefix(model.config, P, mid_dim=8)
    meta = checkpoint.metadata(prefix, model, str(tmp_path / "base"))
    checkpoint.export(tmp_path, prefix, meta)
    export.main([str(tmp_path), "--format", "mlx"])
    file = str(tmp_path / "mlx" / "prompt_cache.safetensors")
    flags = ["--prompt-cache-file", file, "--prompt", "name", "--max-tokens", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "mlx_lm", "generate", *flags],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Generation: 3 tokens" in done.stdout


@pytest.mark.parametrize(("form", "reader"), [("cache", "transformers"), ("mlx", "mlx")])
def test_what_a_cache_cannot_hold_is_refused(tmp_path: Path, form: str, reader: str) -> None:
    model = tiny_model("gpt2")
    prefix = MLPPrefix(model.config, P, mid_dim=8)
    meta = checkpoint.metadata(prefix, model, "tiny")
    checkpoint.export(tmp_path, prefix, {**meta, "position_offset": 0})
    with pytest.raises(UserError, match=r"numbered from 0 .* always from its end \(16\)"):
        export.main([str(tmp_path), "--format", form])
    checkpoint.export(tmp_path, prefix, meta)
    save_file({"score.weight": torch.ones(2)}, tmp_path / "head.safetensors")
    with pytest.raises(
        UserError, match=rf"head \(score.weight\), which {reader} .*--format native"
    ):
        export.main([str(tmp_path), "--format", form])
    with pytest.raises(UserError, match="is the folder that is read"):
        export.main([str(tmp_path), "--output", str(tmp_path / "a" / "..")])
