"""An attached model in the hands of the libraries that call a model themselves."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model
from datasets import Dataset
from safetensors.torch import load_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    pipeline,
)

import prefix_tuning
from prefix_tuning import export

P = 4


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    defaults = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "save_steps": 2,
        "learning_rate": 1e-2,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_strategy": "no",
    }
    return TrainingArguments(**{**defaults, **options})


def rows(n_row: int = 16) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 50, (n_row, 6), generator=generator)
    return [
        {"input_ids": row, "labels": row, "attention_mask": torch.ones_like(row)} for row in ids
    ]


def attached() -> Any:
    torch.manual_seed(1)
    return prefix_tuning.attach(tiny_model("llama"), P, mid_dim=8)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_trainer_trains_saves_and_resumes_to_the_same_weights(tmp_path: Path) -> None:
    model = attached()
    frozen = tiny_model("llama").state_dict()
    before = model.prefix.wte.weight.detach().clone()
    trainer = Trainer(model=model, args=arguments(tmp_path / "one"), train_dataset=rows())
    trainer.train()
    assert not torch.equal(model.prefix.wte.weight, before)
    for name, parameter in model.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name])
    names = set(model.prefix.state_dict())
    assert set(weights(tmp_path / "one" / "checkpoint-4")) == names

    again = attached()
    trainer = Trainer(model=again, args=arguments(tmp_path / "one"), train_dataset=rows())
    trainer.train(resume_from_checkpoint=str(tmp_path / "one" / "checkpoint-2"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)

    batch = {key: torch.stack([row[key] for row in rows(2)]) for key in rows(1)[0]}
    loaded = prefix_tuning.load(tiny_model("llama"), tmp_path / "one" / "checkpoint-4")
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model.eval()(**batch).logits)


def test_trainer_goes_back_to_the_best_checkpoint(tmp_path: Path) -> None:
    """Of one that gets worse: what is saved last is not what the model has in the end."""
    model = attached()
    args = arguments(
        tmp_path,
        learning_rate=10.0,
        eval_strategy="steps",
        eval_steps=2,
        load_best_model_at_end=True,
    )
    trainer = Trainer(model=model, args=args, train_dataset=rows(), eval_dataset=rows(4))
    trainer.train()
    best = weights(Path(trainer.state.best_model_checkpoint))
    for name, tensor in model.prefix.state_dict().items():
        assert torch.equal(tensor, best[name])


def test_trainer_trains_a_classifiers_head_and_keeps_it(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_attention_heads=4, num_hidden_layers=2, num_labels=3
    )
    torch.manual_seed(0)
    base = BertForSequenceClassification(config)
    fresh = {k: v.clone() for k, v in base.state_dict().items()}
    data = [{**row, "labels": torch.tensor(i % 3)} for i, row in enumerate(rows())]
    model = prefix_tuning.attach(base, P, mid_dim=8)
    trainer = Trainer(model=model, args=arguments(tmp_path), train_dataset=data, eval_dataset=data)
    trainer.train()
    assert not torch.equal(model.classifier.weight, fresh["classifier.weight"])
    wanted = trainer.predict(data).predictions
    again = BertForSequenceClassification(config)
    again.load_state_dict({**again.state_dict(), **fresh})
    loaded = prefix_tuning.load(again, tmp_path / "checkpoint-4")
    args = arguments(tmp_path / "again")
    assert (Trainer(model=loaded, args=args).predict(data).predictions == wanted).all()


def test_trainer_generates_summaries_with_the_prefix(tmp_path: Path) -> None:
    config = BartConfig(
        vocab_size=50,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        forced_eos_token_id=None,
    )
    torch.manual_seed(0)
    base = BartForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.3)
    base.generation_config.eos_token_id = None
    model = prefix_tuning.attach(base, P, mid_dim=8)
    args = Seq2SeqTrainingArguments(
        str(tmp_path),
        max_steps=2,
        predict_with_generate=True,
        generation_max_length=7,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Seq2SeqTrainer(model=model, args=args, train_dataset=rows(), eval_dataset=rows(4))
    trainer.train()
    found = torch.tensor(trainer.predict(rows(4)).predictions)[:, :7]
    ids = torch.stack([row["input_ids"] for row in rows(4)])
    enabled = prefix_tuning.enable_prefix(copy.deepcopy(model))
    prefix = prefix_tuning.detach(enabled).eval()
    assert torch.equal(found, enabled.generate(ids, max_length=7, prefix=prefix))
    assert not torch.equal(found, enabled.generate(ids, max_length=7))


def test_gradient_accumulation_counts_tokens_as_for_any_model(tmp_path: Path) -> None:
    """Trainer sees by the signature that the loss may be divided by all targets of a step."""
    model = attached()
    trainer = Trainer(model=model, args=arguments(tmp_path), train_dataset=rows())
    stock = Trainer(model=tiny_model("llama"), args=arguments(tmp_path), train_dataset=rows())
    assert trainer.model_accepts_loss_kwargs == stock.model_accepts_loss_kwargs
    assert trainer.label_names == stock.label_names


@pytest.fixture
def words(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> tuple[Any, Any]:
    """A language model of 300 tokens with a trained prefix, and its tokenizer."""
    tokenizer.pad_token = tokenizer.eos_token
    config = tiny_model("llama").config.__class__(
        **{**tiny_model("llama").config.to_dict(), "vocab_size": 300, "eos_token_id": 0}
    )
    base = tiny_model(config)
    base.save_pretrained(tmp_path / "base")
    torch.manual_seed(1)
    return prefix_tuning.attach(base, P, mid_dim=8).eval(), tokenizer


def test_pipeline_generates_with_the_prefix(words: tuple[Any, Any]) -> None:
    model, tokenizer = words
    options = {"max_new_tokens": 8, "do_sample": False, "return_full_text": False}
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")
    prompts = ["The Eagle", "A cheap coffee shop near the river"]
    found = [row[0]["generated_text"] for row in generator(prompts, batch_size=2, **options)]
    enabled = prefix_tuning.enable_prefix(tiny_model(model.config))
    for prompt, text in zip(prompts, found, strict=True):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        out = enabled.generate(ids, max_new_tokens=8, do_sample=False, prefix=model.prefix)
        assert text == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        with model.without_prefix():
            assert generator(prompt, **options)[0]["generated_text"] != text


@pytest.mark.parametrize(("options", "tolerance"), [({}, 0.02), ({"bf16": False}, 1e-3)])
def test_trl_trains_with_its_defaults(
    options: dict[str, Any], tolerance: float, words: tuple[Any, Any], tmp_path: Path
) -> None:
    """Gradient checkpointing is one of them; so is the fused head, which calls the body alone."""
    trl = pytest.importorskip("trl")
    model, tokenizer = words
    text = "The Eagle is a cheap pub."
    ids = torch.tensor([[*tokenizer(text).input_ids, tokenizer.eos_token_id]])
    with torch.no_grad():
        wanted = model(ids, labels=ids).loss.item()
        with model.without_prefix():
            bare = model(ids, labels=ids).loss.item()
    args = trl.SFTConfig(
        output_dir=str(tmp_path / "run"),
        max_steps=3,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    assert args.gradient_checkpointing
    before = {k: v.detach().clone() for k, v in model.state_dict().items()}
    base = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    data = Dataset.from_dict({"text": [text] * 8})
    trainer = trl.SFTTrainer(model=model, args=args, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    assert all(not torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(model.get_parameter(n), p) for n, p in base.items())
    assert set(weights(tmp_path / "run" / "checkpoint-3")) == set(model.prefix.state_dict())
    first, last = (trainer.state.log_history[i]["loss"] for i in (0, 2))
    assert first == pytest.approx(wanted, rel=tolerance)
    assert first != pytest.approx(bare, rel=tolerance)
    assert last < first


def test_trl_counts_the_prefix_in_its_fused_loss(words: tuple[Any, Any]) -> None:
    utilities = pytest.importorskip("trl.trainer.utils")
    if not hasattr(utilities, "add_fused_lm_head"):
        pytest.skip("this version of trl has no fused head")
    model, _ = words
    ids = torch.randint(3, 300, (2, 9))
    with torch.no_grad():
        wanted = model(ids, labels=ids).loss
        with model.without_prefix():
            bare = model(ids, labels=ids).loss
        utilities.add_fused_lm_head(model)
        assert torch.allclose(model(input_ids=ids, labels=ids, fused_lm_head=True).loss, wanted)
        assert torch.allclose(model(input_ids=ids, labels=ids).loss, wanted)
        with model.without_prefix():
            found = model(input_ids=ids, labels=ids, fused_lm_head=True).loss
        assert torch.allclose(found, bare)
        generated = model.generate(ids, max_new_tokens=4, do_sample=False)
    assert generated.shape == (2, 13)
    assert not torch.allclose(wanted, bare)


TASK = """
task: restaurants
dataset_path: json
dataset_kwargs:
  data_files: {data}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: label
doc_to_choice: "{{{{choices}}}}"
target_delimiter: ""
metric_list:
  - metric: acc
"""


@pytest.mark.parametrize("kind", ["attached", "peft"])
def test_lm_eval_scores_a_prefix(
    kind: str, words: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    model, tokenizer = words
    if kind == "peft":
        model.save_prefix(tmp_path / "prefix")
        export.main([str(tmp_path / "prefix"), "--format", "peft"])
    data = [
        {"question": f"{name} is", "choices": [" a cheap pub", " tea", " the river"], "label": 0}
        for name in ("The Eagle", "The Mill", "Aromi")
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, data)), encoding="utf-8")
    (tmp_path / "tasks").mkdir()
    task = TASK.format(data=tmp_path / "data.jsonl")
    (tmp_path / "tasks" / "restaurants.yaml").write_text(task, encoding="utf-8")
    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)

    def answers() -> list[list[float]]:
        lm = HFLM(
            **{
                "attached": {"pretrained": model},
                "peft": {
                    "pretrained": str(tmp_path / "base"),
                    "peft": str(tmp_path / "prefix" / "peft"),
                    "device": "cpu",
                },
            }[kind],
            tokenizer=tokenizer,
            batch_size=2,
        )
        results = lm_eval.simple_evaluate(
            model=lm, tasks=["restaurants"], task_manager=manager, bootstrap_iters=0
        )
        return [[r[0] for r in s["filtered_resps"]] for s in results["samples"]["restaurants"]]

    def by_hand(question: str, choice: str) -> float:
        context = tokenizer(question, return_tensors="pt").input_ids
        ids = tokenizer(question + choice, return_tensors="pt").input_ids
        logits = enabled(ids, prefix=model.prefix).logits.log_softmax(-1)
        at = torch.arange(context.shape[1], ids.shape[1])
        return logits[0, at - 1, ids[0, at]].sum().item()

    enabled = prefix_tuning.enable_prefix(tiny_model(model.config))
    with torch.no_grad():
        wanted = [[by_hand(row["question"], choice) for choice in row["choices"]] for row in data]
    assert torch.allclose(torch.tensor(answers()), torch.tensor(wanted), atol=1e-3)
    with model.without_prefix():
        if kind == "attached":
            assert not torch.allclose(torch.tensor(answers()), torch.tensor(wanted), atol=0.1)


def test_a_callback_may_save_the_prefix_alone(tmp_path: Path) -> None:
    class Keep(TrainerCallback):
        def on_step_end(self, _args: Any, state: Any, _control: Any, **given: Any) -> None:
            given["model"].save_prefix(tmp_path / f"step-{state.global_step}")

    model = attached()
    Trainer(
        model=model,
        args=arguments(tmp_path / "run", max_steps=1),
        train_dataset=rows(4),
        callbacks=[Keep()],
    ).train()
    size = (tmp_path / "step-1" / "prefix.safetensors").stat().st_size
    assert size < 4 * model.prefix.shape.features * P + 200
