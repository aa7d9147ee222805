"""Base models: what cannot be had is said in a sentence; GGUF files are read as plain weights."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import harness.models as models_of_harness
from harness.models import (
    check_rows,
    load_causal_lm,
    load_config,
    load_model,
    load_tokenizer,
    tokenizer_for,
)
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.errors import UserError
from prefix_tuning.parametrizations import MLPPrefix
from prefix_tuning.shape import PrefixShape


def test_a_base_model_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such GGUF file"):
        load_causal_lm(str(tmp_path / "x.gguf"))
    (tmp_path / "y.gguf").write_text("GGUF")
    with pytest.raises(UserError, match=r"y\.gguf: this file cannot be loaded"):
        load_causal_lm(str(tmp_path / "y.gguf"))
    with pytest.raises(UserError, match=r"--model_name_or_path .*cannot be loaded"):
        load_causal_lm(str(tmp_path))
    with pytest.raises(UserError, match="model hub"):
        load_causal_lm("nobody/no-such-model")
    with pytest.raises(UserError, match="model hub"):
        load_tokenizer("nobody/no-such-model")


@pytest.mark.parametrize("kept", [20_000, 3])
def test_damaged_weights_are_a_sentence(tiny_folder: Path, tmp_path: Path, kept: int) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:kept])
    with pytest.raises(UserError, match=r"--model_name_or_path .*cannot be loaded"):
        load_causal_lm(str(folder))
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"--model_name_or_path .*pickle that is damaged"):
        load_causal_lm(str(folder))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", '{"version": "", "model": {}}'),
        ("tokenizer.json", '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": {}}}}'),
        ("tokenizer_config.json", '{"unk_token": 5}'),
        ("tokenizer_config.json", "["),
        ("config.json", '{"model_type": []}'),
        ("config.json", '{"model_type": "gpt2", "n_embd": "x"}'),
    ],
)
def test_damaged_files_beside_the_weights_are_a_sentence(
    tiny_folder: Path, tmp_path: Path, name: str, content: str
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    (folder / name).write_text(content, encoding="utf-8")
    load = load_causal_lm if name == "config.json" else load_tokenizer
    with pytest.raises(UserError, match=r"--model_name_or_path .*m: this folder cannot be loaded"):
        load(str(folder))


def test_token_numbers_have_rows() -> None:
    config = LlamaConfig(vocab_size=50)
    check_rows("m", config, {"eos_token_id": [0, 49], "bos_token_id": None, "max_length": 99})
    with pytest.raises(UserError, match="m: its tokenizer has no padding token"):
        check_rows("m", config, {"pad_token_id": None})
    for wrong in ({"pad_token_id": 50}, {"eos_token_id": [0, 10**12]}, {"bos_token_id": "a"}):
        with pytest.raises(UserError, match=r"m: \w+ is .*, its embeddings have 50 rows"):
            check_rows("m", config, wrong)


@pytest.mark.parametrize("key", ["n_embd", "n_layer"])
def test_weights_are_not_made_up(tiny_folder: Path, tmp_path: Path, key: str) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config[key] *= 2
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match=r"its weights lack transformer\.h"):
        load_causal_lm(str(folder))


def test_an_empty_tokenizer_is_an_error(tmp_path: Path) -> None:
    empty = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="</s>")
    empty.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="tokenizer is empty"):
        load_tokenizer(str(tmp_path))


def test_a_tokenizer_whose_tokens_have_other_numbers_is_refused(
    tiny_folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    numbers = tokenizer.get_vocab()
    reverse = {token: len(numbers) - 1 - number for token, number in numbers.items()}
    other = Tokenizer(models.WordLevel(reverse, unk_token="<|endoftext|>"))
    end = {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    for name, added in (("other", 0), ("longer", 3)):
        made = other if name == "other" else tokenizer.backend_tokenizer
        more = PreTrainedTokenizerFast(tokenizer_object=made, **end)
        more.add_tokens([f"<{number}>" for number in range(added)])
        more.save_pretrained(tmp_path / name)
    base = str(tiny_folder)
    message = r"--tokenizer_name .*other: 300 of its 300 tokens have other numbers in .*tiny-gpt2"
    with pytest.raises(UserError, match=message):
        tokenizer_for(base, str(tmp_path / "other"))
    assert len(tokenizer_for(base, str(tmp_path / "longer"))) == 303
    shutil.copytree(tiny_folder, tmp_path / "bare")  # a model without a tokenizer
    for path in (tmp_path / "bare").glob("token*"):
        path.unlink()
    assert len(tokenizer_for(str(tmp_path / "bare"), base)) == 300


def write_gguf(path: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """A Llama and its tokenizer as llama.cpp would store them, in fp32."""
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    content = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(content["vocab"], key=content["vocab"].get))
    writer.add_token_types([3] + [1] * (len(content["vocab"]) - 1))
    writer.add_token_merges([" ".join(merge) for merge in content["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        stem, suffix = name.rsplit(".", 1)
        array = value.numpy().astype(np.float32)
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", 2)):
            if part in name:  # llama.cpp interleaves the two halves of every rotary head
                halves = array.reshape(heads, 2, -1, array.shape[1])
                array = halves.swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(f"{names.get_name(stem)}.{suffix}", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_a_base_model(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Same logits as the model it was written from, with a prefix that gets its gradient."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    stock = LlamaForCausalLM(config).eval()
    path = tmp_path / "tiny.gguf"
    write_gguf(path, stock, tokenizer)
    model = load_causal_lm(str(path))
    text = "name : The Merry Barrel | area : old town"
    ids = torch.tensor([load_tokenizer(str(path))(text, add_special_tokens=False).input_ids])
    assert ids.tolist()[0] == tokenizer(text, add_special_tokens=False).input_ids
    assert torch.allclose(model(ids).logits, stock(ids).logits, atol=1e-4)
    model = enable_prefix(model).requires_grad_(False)
    prefix = MLPPrefix(PrefixShape.from_config(model.config), 3, mid_dim=8)
    model(ids, prefix=KeyValues(prefix.key_values())).logits.square().sum().backward()
    assert prefix.wte.weight.grad.abs().min() > 0
    model.save_pretrained(tmp_path / "plain")
    again = load_causal_lm(str(tmp_path / "plain"))
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_the_hub_is_asked_for_what_is_not_here_and_only_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, bool]] = []

    def load(has: bool, **options: bool) -> str:
        asked.append(options)
        if options == {"local_files_only": True} and not has:
            raise OSError("not in the cache")
        return "loaded"

    monkeypatch.setattr(models_of_harness, "hub_answers", lambda: True)
    assert models_of_harness._load("a/b", partial(load, True)) == "loaded"
    assert models_of_harness._load("a/b", partial(load, False)) == "loaded"
    assert asked == [{"local_files_only": True}, {"local_files_only": True}, {}]
    monkeypatch.setattr(models_of_harness, "hub_answers", lambda: False)
    with pytest.raises(UserError, match="model hub did not give it"):
        models_of_harness._load("a/b", partial(load, False))
    assert len(asked) == 4


def test_a_base_model_is_in_eval_mode_and_in_the_precision_asked_for(tiny_folder: Path) -> None:
    for name in ("float32", "bfloat16"):
        model = load_causal_lm(str(tiny_folder), name)
        assert not any(module.training for module in model.modules())
        assert {str(p.dtype) for p in model.parameters()} == {f"torch.{name}"}


def test_cache_and_revision_reach_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []
    names = ("cache_dir", "revision", "trust_remote_code", "local_files_only")

    def load(*_: object, **given: object) -> None:
        seen.append(tuple(given[name] for name in names))
        raise OSError("not here")

    for auto_class in (AutoConfig, AutoTokenizer, AutoModelForCausalLM):
        monkeypatch.setattr(auto_class, "from_pretrained", load)
    load_base = partial(load_model, auto_class=AutoModelForCausalLM)
    for call in (load_config, load_tokenizer, load_base):
        with pytest.raises(UserError, match="--model_name_or_path m"):
            call("m", cache_dir="c", revision="r")
    assert seen == [("c", "r", False, True)] * 3
