"""Prefixes on disk: round trips, the original's files, damaged files, the wrong base model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import load_vectors, part, tiny_model
from safetensors.torch import load_file, save_file

from prefix_tuning import checkpoint
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.errors import UserError
from prefix_tuning.fingerprint import fingerprint
from prefix_tuning.parametrizations import FlatPrefix, MLPPrefix
from prefix_tuning.shape import PrefixShape


def make(model: Any, length: int = 5) -> MLPPrefix:
    torch.manual_seed(1)
    return MLPPrefix(PrefixShape.from_config(model.config), length, mid_dim=16, dropout=0.1)


def save(folder: Path, model: Any) -> MLPPrefix:
    prefix = make(model)
    meta = checkpoint.metadata(prefix, model, "tiny", task={"task_mode": "data2text"})
    checkpoint.save(folder, prefix, model.config.to_dict(), meta)
    checkpoint.export(folder / "export", prefix, meta)
    return prefix


def test_round_trip_of_checkpoint_and_export(tmp_path: Path) -> None:
    model = enable_prefix(tiny_model("llama"))
    prefix = save(tmp_path, model).eval()
    ids = torch.randint(3, 50, (2, 6))
    expected = model(ids, prefix=KeyValues(prefix.key_values())).logits
    for folder, kind in ((tmp_path, MLPPrefix), (tmp_path / "export", FlatPrefix)):
        loaded, meta = checkpoint.load(folder, model)
        assert isinstance(loaded, kind)
        assert not loaded.training
        assert meta["task"] == {"task_mode": "data2text"}
        assert meta["base_model"]["name_or_path"] == "tiny"
        found = model(ids, prefix=KeyValues(loaded.key_values())).logits
        assert torch.equal(found, expected)


def test_the_export_is_a_plain_array(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    prefix = save(tmp_path, model).eval()
    table = load_file(tmp_path / "export" / "prefix.safetensors")["past_key_values"]
    assert table.shape == (3, 2, 4, 5, 8)
    for layer, pair in enumerate(prefix.key_values()):
        assert torch.equal(table[layer], pair[:, 0])


def test_size_of_the_export_for_gpt2_medium(tmp_path: Path) -> None:
    prefix = FlatPrefix(PrefixShape(24, 16, 64, 1024), 5)
    size = checkpoint.export(tmp_path, prefix, {"base_model": {}})
    assert 983_040 <= size <= 984_000


def test_original_folders_load(tmp_path: Path) -> None:
    case, tensors = load_vectors("gpt2_mlp_p1")
    config = {k: v for k, v in case["config"].items() if k != "activation_function"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", **config}))
    torch.save(part(tensors, "prefix."), tmp_path / "pytorch_model.bin")
    prefix, meta = checkpoint.load(tmp_path)
    assert meta["base_model"]["name_or_path"] is None
    found = torch.stack(prefix.key_values()).expand(-1, -1, 2, -1, -1, -1)
    assert torch.allclose(found, tensors["out.past"], atol=1e-5)


def test_another_base_model_is_refused(tmp_path: Path) -> None:
    save(tmp_path, tiny_model("gpt2"))
    checkpoint.load(tmp_path, tiny_model("gpt2"))
    with pytest.raises(UserError, match=r"weights differ.*--model_name_or_path"):
        checkpoint.load(tmp_path, tiny_model("gpt2", seed=5))
    with pytest.raises(UserError, match="belongs to tiny"):
        checkpoint.load(tmp_path / "export", tiny_model("llama"))


@pytest.mark.parametrize(("dtype", "change"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
def test_a_fine_tuned_base_model_is_refused(
    tmp_path: Path, dtype: torch.dtype, change: float
) -> None:
    save(tmp_path, tiny_model("gpt2").to(dtype))
    other = tiny_model("gpt2").to(dtype)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(change)
    with pytest.raises(UserError, match="weights differ"):
        checkpoint.load(tmp_path, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_same_base_model_in_another_precision_is_accepted(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    save(tmp_path, tiny_model("gpt2"))
    checkpoint.load(tmp_path, tiny_model("gpt2").to(dtype))


def test_a_padding_row_does_not_make_another_model(tmp_path: Path) -> None:
    save(tmp_path, tiny_model("gpt2"))
    padded = tiny_model("gpt2")
    padded.resize_token_embeddings(51)
    checkpoint.load(tmp_path, padded)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "holds no prefix"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 50), "is damaged"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "holds no JSON object"),
        (lambda f: (f / "config.json").write_text("{}"), "holds no prefix"),
    ],
)
def test_damaged_folders(tmp_path: Path, damage: Any, message: str) -> None:
    save(tmp_path, tiny_model("gpt2"))
    (tmp_path / "export" / "prefix.json").unlink()
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        checkpoint.load(tmp_path)


def test_a_length_that_does_not_fit_the_tensors(tmp_path: Path) -> None:
    save(tmp_path, tiny_model("gpt2"))
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["prefix_tuning"]["options"]["length"] = 7
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"wte\.weight has shape"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_numbers_of_a_kind_that_no_parameter_has(tmp_path: Path, dtype: torch.dtype) -> None:
    save(tmp_path, tiny_model("gpt2"))
    for folder, name in ((tmp_path, "model"), (tmp_path / "export", "prefix")):
        path = folder / f"{name}.safetensors"
        save_file({k: v.to(dtype) for k, v in load_file(path).items()}, path)
        with pytest.raises(UserError, match=f"{name}.safetensors: .* is of {str(dtype)[6:]}"):
            checkpoint.load(folder)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        checkpoint.load(tmp_path / "nowhere")


def test_pickles_that_run_code_are_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "owned",))

    config = {"model_type": "gpt2", "preseqlen": 2, "n_embd": 32, "n_head": 4, "n_layer": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"wte.weight": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_folders_are_made_and_written_again(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    for _ in range(2):
        prefix = FlatPrefix(PrefixShape.from_config(model.config), 3)
        meta = checkpoint.metadata(prefix, model, "")
        checkpoint.save(tmp_path / "a" / "b", prefix, model.config.to_dict(), meta)
        checkpoint.export(tmp_path / "c" / "d", prefix, meta)
        for folder in ("a/b", "c/d"):
            found = checkpoint.load(tmp_path / folder, model)[0].slots()
            assert torch.equal(found, prefix.slots())


@pytest.mark.parametrize("change", ["shape", "name"])
def test_an_export_whose_tables_are_not_what_it_says(tmp_path: Path, change: str) -> None:
    model = tiny_model("gpt2")
    prefix = FlatPrefix(PrefixShape.from_config(model.config), 4)
    checkpoint.export(tmp_path, prefix, checkpoint.metadata(prefix, model, ""))
    path = tmp_path / "prefix.safetensors"
    table = load_file(path)["past_key_values"]
    # As many numbers, in another order: only the shape tells.
    changed = {"shape": {"past_key_values": table.mT}, "name": {"past": table}}
    checkpoint.write_tensors(path, changed[change])
    with pytest.raises(
        UserError, match=r"past_key_values .*, but prefix\.json says \[3, 2, 4, 4, 8"
    ):
        checkpoint.load(tmp_path)


def test_a_fingerprint_is_of_matrices_of_the_layers() -> None:
    """By hand: first and last number of each; no embedding, no norm, no bias."""
    model = tiny_model("gpt2")
    found = fingerprint(model)
    assert 0 < len(found) <= 8
    for name, numbers in found.items():
        assert name.startswith("h.")
        matrix = model.transformer.get_parameter(name)
        assert matrix.ndim == 2
        assert len(numbers) == 8
        assert numbers[0] == matrix[0, 0].item()
        assert numbers[-1] == matrix[-1, -1].item()
