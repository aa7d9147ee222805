"""A prefix bound to a model: the default of every call, and all that is saved."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import FAMILIES, tiny_model
from packaging.version import parse
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DebertaV2Config,
    DebertaV2ForTokenClassification,
    GPT2ForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

import prefix_tuning
from prefix_tuning import FlatPrefix, MLPPrefix
from prefix_tuning.attached import is_attached
from prefix_tuning.attention import enable_prefix
from prefix_tuning.bound import AttachedModel
from prefix_tuning.errors import UserError

P = 4
_ENCODER = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 2,
    "num_labels": 3,
}
_ENCODER_DECODER = {
    "vocab_size": 50,
    "d_model": 32,
    "pad_token_id": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 2,
}


def bart() -> Any:
    config = BartConfig(
        **_ENCODER_DECODER,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        forced_eos_token_id=None,
    )
    return BartForConditionalGeneration(config)


def t5() -> Any:
    config = T5Config(**_ENCODER_DECODER, d_kv=8, num_heads=4, num_layers=2, d_ff=48)
    return T5ForConditionalGeneration(config)


MODELS: dict[str, Any] = {
    **{name: lambda name=name: tiny_model(name) for name in FAMILIES},
    "bart": bart,
    "t5": t5,
    "bert": lambda: BertForSequenceClassification(BertConfig(**_ENCODER)),
    "bert body": lambda: BertModel(BertConfig(**_ENCODER)),
    "bert masked": lambda: BertForMaskedLM(BertConfig(**_ENCODER)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**_ENCODER)),
    "deberta-v2": lambda: DebertaV2ForTokenClassification(DebertaV2Config(**_ENCODER)),
    "gpt2 classifier": lambda: GPT2ForSequenceClassification(
        FAMILIES["gpt2"].__class__(**{**FAMILIES["gpt2"].to_dict(), "num_labels": 3})
    ),
}


def base(name: str) -> Any:
    if name == "t5" and parse(transformers.__version__) < parse("5.23"):
        pytest.skip("this version's T5 does not hand the prefix down; it is refused by name")
    torch.manual_seed(0)
    model = MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.3)
    return model.eval()


def attached(name: str, **options: Any) -> Any:
    torch.manual_seed(1)
    return prefix_tuning.attach(base(name), P, mid_dim=8, **options).eval()


def batch(model: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    inputs = {"input_ids": torch.randint(3, 50, (3, 7))}
    inputs["attention_mask"] = torch.ones(3, 7, dtype=torch.long)
    inputs["attention_mask"][1, 5:] = 0
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.randint(3, 50, (3, 4))
    return inputs


def first(output: Any) -> torch.Tensor:
    return output[0]


@pytest.mark.parametrize("name", MODELS)
def test_the_prefix_is_the_default_and_a_calls_own_argument_wins(name: str) -> None:
    enabled, model = enable_prefix(base(name)), attached(name)
    inputs = batch(model)
    other = MLPPrefix(model.config, P, mid_dim=8, sites=model.prefix.sites)
    with torch.no_grad():
        expected = first(enabled(**inputs))
        bound = first(model(**inputs))
        assert torch.equal(bound, first(enabled(**inputs, prefix=model.prefix.prompt())))
        assert not torch.allclose(bound, expected, atol=1e-3)
        assert torch.equal(first(model(**inputs, prefix=None)), expected)
        assert torch.equal(
            first(model(**inputs, prefix=other)), first(enabled(**inputs, prefix=other.prompt()))
        )
        with model.without_prefix():
            assert torch.equal(first(model(**inputs)), expected)
            assert torch.equal(first(model(**inputs, prefix=model.prefix)), bound)
        assert torch.equal(first(model(**inputs)), bound)
        if isinstance(model, PreTrainedModel) and model.base_model is not model:
            body = first(model.base_model(**inputs))
            hidden = model(**inputs, output_hidden_states=True)
            last = getattr(hidden, "decoder_hidden_states", None) or hidden.hidden_states
            assert torch.equal(body, last[-1])
            with model.without_prefix():
                assert not torch.allclose(first(model.base_model(**inputs)), body)


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "bart", "t5"])
def test_generation_is_that_of_the_prefix_as_an_argument(name: str) -> None:
    model, enabled = attached(name), enable_prefix(base(name))
    prompt = {"input_ids": torch.randint(3, 50, (3, 7)), "attention_mask": torch.ones(3, 7).long()}
    prompt["attention_mask"][1, :4] = 0
    for options in ({"num_beams": 1}, {"num_beams": 3}):
        options |= {"max_new_tokens": 8, "do_sample": False}
        wanted = enabled.generate(**prompt, **options, prefix=model.prefix.prompt())
        assert torch.equal(model.generate(**prompt, **options), wanted)
        assert torch.equal(model.generate(**prompt, **options, prefix=model.prefix), wanted)
        bare = enabled.generate(**prompt, **options)
        assert not torch.equal(wanted, bare)
        assert torch.equal(model.generate(**prompt, **options, prefix=None), bare)
        with model.without_prefix():
            assert torch.equal(model.generate(**prompt, **options), bare)


def test_an_assistant_drafts_without_the_prefix() -> None:
    """What is written is the attached model's own, whoever drafts it."""
    model, ids = attached("gpt2"), torch.randint(3, 50, (1, 7))
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}
    wanted = model.generate(ids, **options)
    for assistant in (base("gpt2"), model):
        assert torch.equal(model.generate(ids, **options, assistant_model=assistant), wanted)


@pytest.mark.parametrize("name", ["bart", "t5"])
@torch.no_grad()
def test_an_encoder_called_alone_has_its_prefix(name: str) -> None:
    model = attached(name)
    inputs = batch(model)
    encoded = model.get_encoder()(inputs["input_ids"], attention_mask=inputs["attention_mask"])
    given = {k: v for k, v in inputs.items() if k != "input_ids"}
    assert torch.equal(model(**given, encoder_outputs=encoded).logits, model(**inputs).logits)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bart", "bert", "deberta-v2"])
def test_checkpointed_layers_meet_the_prefix_again(name: str) -> None:
    """Although the model runs without it between forward and backward."""
    gradients = []
    for is_checkpointed in (False, True):
        model = attached(name)
        if is_checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        loss = first(model(**batch(model))).square().mean()
        with model.without_prefix(), torch.no_grad():
            model(**batch(model))
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.prefix.parameters()]))
    assert gradients[0].abs().max() > 0
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-7)


def test_every_thread_has_its_own_suspension() -> None:
    model, found = attached("gpt2"), []
    with torch.no_grad():
        wanted = model(**batch(model)).logits

        def call() -> None:
            with torch.no_grad():
                found.append(model(**batch(model)).logits)

        with model.without_prefix():
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()
    assert torch.equal(found[0], wanted)


def test_prefix_dropout_differs_by_row() -> None:
    model = attached("gpt2", dropout=0.5)
    ids = torch.full((2, 5), 7)
    model.prefix.train()
    rows = model(ids).logits
    assert not torch.allclose(rows[0], rows[1])


HEADS = {
    "gpt2": set(),
    "bart": set(),
    "bert masked": set(),
    "bert": {"classifier.weight", "classifier.bias"},
    "gpt2 classifier": {"score.weight"},
}


@pytest.mark.parametrize("name", HEADS)
def test_only_the_prefix_and_a_classifiers_head_are_trained(name: str) -> None:
    model = attached(name)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n in trained if not n.startswith("prefix.")} == HEADS[name]
    assert {n.removeprefix("prefix.") for n in trained - HEADS[name]} == {
        n for n, _ in model.prefix.named_parameters()
    }


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "bart", "t5", "bert", "roberta", "deberta-v2"])
def test_what_is_saved_is_the_prefix_alone_and_loads(name: str, tmp_path: Path) -> None:
    model = attached(name)
    with torch.no_grad():
        for key in model._attachment.head:  # as training would
            model.get_parameter(key).add_(0.1)
        wanted = first(model(**batch(model)))
    frozen = {n for n, _ in base(name).named_parameters()} - model._attachment.head
    assert not frozen & model.state_dict().keys()
    model.save_prefix(tmp_path / "kept", task="nothing much", metrics={"loss": 1.5})
    model.save_pretrained(tmp_path / "trained")
    for kind in ("kept", "trained"):
        again = prefix_tuning.load(base(name), tmp_path / kind)
        assert isinstance(again.prefix, FlatPrefix if kind == "kept" else MLPPrefix)
        assert not again.prefix.training
        with torch.no_grad():
            assert torch.allclose(first(again(**batch(model))), wanted, atol=1e-6)
        for path in (tmp_path / kind).glob("*.safetensors"):
            assert not frozen & load_file(path).keys()
    card = (tmp_path / "kept" / "README.md").read_text(encoding="utf-8")
    assert "task: nothing much" in card
    assert "| loss | 1.5 |" in card
    with pytest.raises(ValueError, match="model_type"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "trained")


@pytest.mark.parametrize("name", MODELS)
def test_no_name_of_the_library_is_taken(name: str) -> None:
    """But for the methods that mean the same of an attached model."""
    ours = {n for n in vars(AttachedModel) if not n.startswith("__")} | {"prefix", "_attachment"}
    same = {"generate", "load_state_dict", "push_to_hub", "save_pretrained", "state_dict"}
    machinery = {"_auto_class", "_abc_impl", "_hf_peft_config_loaded"}
    assert (ours - machinery) & {*dir(base(name))} <= same


def test_a_state_goes_back_and_another_is_refused() -> None:
    model, other = attached("bert"), attached("bert")
    with torch.no_grad():
        for parameter in model.prefix.parameters():
            parameter.add_(0.1)
    result = other.load_state_dict(model.state_dict())
    assert not result.missing_keys
    assert not result.unexpected_keys
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    as_saved = {k.removeprefix("prefix."): v for k, v in model.state_dict().items()}
    assert not other.load_state_dict(as_saved).missing_keys
    del as_saved["wte.weight"]
    assert other.load_state_dict(as_saved, strict=False).missing_keys == ["prefix.wte.weight"]
    with pytest.raises(RuntimeError, match=r"missing \['prefix.wte.weight'\]"):
        other.load_state_dict(as_saved)
    inside = torch.nn.ModuleDict({"inner": model}).state_dict()
    assert {k.removeprefix("inner.") for k in inside} == model.state_dict().keys()


def test_push_to_hub_uploads_the_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    sent: dict[str, Any] = {}

    def create(_self: Any, repo_id: str, **_options: Any) -> Any:
        return type("Address", (), {"repo_id": repo_id})

    def upload(
        _self: Any, repo_id: str, folder_path: Path, allow_patterns: list[str], **_options: Any
    ) -> str:
        names = [p.relative_to(folder_path).as_posix() for p in Path(folder_path).rglob("*")]
        sent[repo_id] = {*filter_repo_objects(names, allow_patterns=allow_patterns)}
        sent["card"] = (Path(folder_path) / "README.md").read_text(encoding="utf-8")
        return "https://hub/commit/1"

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    model = attached("gpt2")
    assert model.push_to_hub("somebody/mine", license="mit") == "https://hub/commit/1"
    assert sent["somebody/mine"] == {"prefix.safetensors", "prefix.json", "README.md"}
    assert 'license: "mit"' in sent["card"]
    assert "'somebody/mine'" in sent["card"]
    for name in ("run_settings.json", ".lock.json", "sub/model.safetensors"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_text("{}")
    model.save_pretrained(tmp_path / "folder", push_to_hub=True, repo_id="again")
    assert sent["again"] == {"model.safetensors", "config.json", "README.md"}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("name", ["gpt2", "bart", "t5"])
@torch.no_grad()
def test_a_copy_has_a_prefix_of_its_own(name: str, copied: Any) -> None:
    model = attached(name)
    wanted, twin = first(model(**batch(model))), copied(model)
    assert torch.equal(first(twin(**batch(model))), wanted)
    twin.prefix = FlatPrefix(twin.config, P, sites=twin.prefix.sites)
    assert not torch.allclose(first(twin(**batch(model))), wanted)
    assert torch.equal(first(model(**batch(model))), wanted)
    with model.without_prefix():
        assert not torch.allclose(first(twin(**batch(model))), first(model(**batch(model))))


@pytest.mark.parametrize("name", ["gpt2", "bart", "t5", "bert"])
def test_detach_gives_the_model_back(name: str) -> None:
    model = base(name)
    next(model.parameters()).requires_grad_(False)
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    names, classes = set(model.state_dict()), [type(m) for m in enable_prefix(model).modules()]
    wanted = first(model(**batch(model)))
    prefix = prefix_tuning.attach(model, P).prefix
    assert is_attached(model)
    assert prefix_tuning.detach(model) is prefix
    assert not is_attached(model)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == trainable
    assert set(model.state_dict()) == names
    assert [type(m) for m in model.modules()] == classes
    assert torch.equal(first(model(**batch(model))), wanted)
    with pytest.raises(UserError, match="no prefix attached"):
        prefix_tuning.detach(model)


def test_where_tokens_are_numbered_from_is_kept(tmp_path: Path) -> None:
    model = attached("gpt2", offset=0)
    with torch.no_grad():
        wanted = model(**batch(model)).logits
        from_p = model(**batch(model), prefix=model.prefix).logits
    assert not torch.allclose(wanted, from_p)
    model.save_prefix(tmp_path)
    again = prefix_tuning.load(base("gpt2"), tmp_path)
    with torch.no_grad():
        assert torch.allclose(again(**batch(model)).logits, wanted, atol=1e-6)
    with pytest.raises(UserError, match="numbered from 0"):
        prefix_tuning.load_prefix(tmp_path, base("gpt2"))


def test_save_and_load_without_attaching(tmp_path: Path) -> None:
    model = enable_prefix(base("gpt2"))
    prefix = MLPPrefix(model.config, length=P).eval()
    prefix_tuning.save_prefix(tmp_path, prefix, model)
    read = prefix_tuning.load_prefix(tmp_path, model)
    with torch.no_grad():
        found = model(**batch(model), prefix=read).logits
        assert torch.equal(found, model(**batch(model), prefix=prefix).logits)


def test_a_prefix_comes_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = attached("gpt2")
    model.save_prefix(tmp_path)
    asked: list[str] = []

    def download(repo_id: str, **_options: Any) -> str:
        asked.append(repo_id)
        return str(tmp_path)

    with pytest.raises(UserError, match="the hub gives no such prefix"):
        prefix_tuning.load(base("gpt2"), "somebody/mine")
    monkeypatch.setattr("prefix_tuning.hub.snapshot_download", download)
    again = prefix_tuning.load(base("gpt2"), "somebody/mine")
    assert asked == ["somebody/mine"]
    with torch.no_grad():
        assert torch.allclose(again(**batch(model)).logits, model(**batch(model)).logits, atol=1e-6)


def test_a_folder_that_holds_something_else_loses_nothing(tmp_path: Path) -> None:
    model, (base_folder, other) = attached("gpt2"), (tmp_path / "base", tmp_path / "other")
    base("gpt2").save_pretrained(base_folder)
    before = {path.name: path.read_bytes() for path in base_folder.iterdir()}
    with pytest.raises(UserError, match="base holds a model, which would be replaced"):
        model.save_pretrained(base_folder)
    assert {path.name: path.read_bytes() for path in base_folder.iterdir()} == before
    other.mkdir()
    (other / "README.md").write_text("mine", encoding="utf-8")
    (other / "head.safetensors").write_bytes(b"of an older prefix")
    for _ in range(2):
        model.save_prefix(other)
        model.save_pretrained(tmp_path / "again")
    assert (other / "README.md").read_text(encoding="utf-8") == "mine"
    prefix_tuning.load(base("gpt2"), other)


def test_mistakes_are_answered_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'mpl' is unknown: choose among"):
        prefix_tuning.attach(base("gpt2"), parametrization="mpl")
    with pytest.raises(UserError, match="no option 'midd_dim': it has"):
        prefix_tuning.attach(base("gpt2"), midd_dim=3)
    with pytest.raises(UserError, match="behind the source"):
        prefix_tuning.attach(base("gpt2"), parametrization="infix")
    with pytest.raises(UserError, match="for decoders only"):
        prefix_tuning.attach(base("bart"), parametrization="embedding")
    model = attached("bert")
    with pytest.raises(UserError, match=r"detach\(model\) first"):
        prefix_tuning.attach(model)
    model.save_prefix(tmp_path)
    smaller = BertForSequenceClassification(BertConfig(**{**_ENCODER, "num_labels": 2}))
    smaller.load_state_dict(
        {k: v for k, v in base("bert").state_dict().items() if "classifier" not in k}, strict=False
    )
    with pytest.raises(UserError, match=r"disagree about the trained head \(classifier.bias"):
        prefix_tuning.load(smaller, tmp_path)
    assert not is_attached(smaller)


@torch.no_grad()
def test_the_hooks_of_a_device_map_call_the_class_that_takes_a_prefix() -> None:
    from accelerate.hooks import ModelHook, add_hook_to_module

    plain, hooked = enable_prefix(base("gpt2")), base("gpt2")
    for module in hooked.modules():
        add_hook_to_module(module, ModelHook())
    inputs, options = batch(plain), {"max_new_tokens": 4, "do_sample": False}
    prefix = FlatPrefix(plain.config, P)
    bare, wanted = plain(**inputs).logits, plain(**inputs, prefix=prefix).logits
    enable_prefix(hooked)
    assert torch.equal(hooked(**inputs, prefix=prefix).logits, wanted)
    generated = plain.generate(**inputs, **options, prefix=prefix)
    assert torch.equal(hooked.generate(**inputs, **options, prefix=prefix), generated)
    prefix_tuning.attach(hooked, prefix=prefix)
    assert torch.equal(hooked(**inputs).logits, wanted)
    assert torch.equal(hooked.generate(**inputs, **options), generated)
    prefix_tuning.detach(hooked)
    assert torch.equal(hooked(**inputs).logits, bare)


@torch.no_grad()
def test_enabling_an_attached_model_again_changes_nothing() -> None:
    model = attached("llama")
    wanted = first(model(**batch(model)))
    model.set_attn_implementation("eager")
    with pytest.raises(RuntimeError, match="the prefix would be ignored"):
        model(**batch(model))
    assert is_attached(enable_prefix(model))
    assert torch.equal(first(model(**batch(model))), wanted)


def test_a_replaced_forward_would_ignore_the_prefix() -> None:
    model = base("gpt2")
    model.transformer.forward = model.transformer.forward  # as libraries patch it
    with pytest.raises(UserError, match="another library has replaced its forward"):
        prefix_tuning.attach(model)
    assert not is_attached(model)
    model = base("gpt2")
    model.forward = model.forward
    with pytest.raises(UserError, match="enable the prefix before that library"):
        enable_prefix(model)
