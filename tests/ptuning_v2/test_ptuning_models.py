"""What the models promise, for every family, task and kind of prompt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from processes import shared
from torch import Tensor, nn
from transformers import (
    AutoModel,
    BertConfig,
    DebertaConfig,
    DebertaV2Config,
    ElectraConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from prefix_tuning.errors import UserError
from prefix_tuning.shape import PrefixShape
from ptuning_v2.arguments import get_args
from ptuning_v2.model import checkpoint, heads
from ptuning_v2.model.heads import TaskType
from ptuning_v2.model.prefix_encoder import PrefixEncoder
from ptuning_v2.model.prompted_encoder import PromptedEncoder
from ptuning_v2.model.utils import parameter_lines
from ptuning_v2.training.trainer_base import BaseTrainer

P = 4
_COMMON = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}
_DISENTANGLED = {**_COMMON, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
_DISENTANGLED |= {"position_biased_input": False, "type_vocab_size": 0}
CONFIGS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**_COMMON),
    "roberta": RobertaConfig(**_COMMON),
    "xlm-roberta": XLMRobertaConfig(**_COMMON),
    "electra": ElectraConfig(**_COMMON, embedding_size=16),
    "deberta": DebertaConfig(**_DISENTANGLED),
    "deberta-v2": DebertaV2Config(**_DISENTANGLED, position_buckets=8),
    "deberta-v2 with a convolution": DebertaV2Config(
        **_DISENTANGLED, position_buckets=8, conv_kernel_size=3, conv_act="gelu"
    ),
}
families = pytest.mark.parametrize("family", CONFIGS)
tasks = pytest.mark.parametrize("task", TaskType)


def build(
    family: str, task: TaskType, projection: bool = False, length: int = P, **options: Any
) -> PromptedEncoder:
    """A random model in eval mode, with weights large enough to tell tokens apart."""
    torch.manual_seed(0)
    config = CONFIGS[family].__class__.from_dict(CONFIGS[family].to_dict())
    backbone = AutoModel.from_config(config)
    shape = PrefixShape.from_config(config)
    prompts = PrefixEncoder(shape, length, 0.1, projection, hidden_size=12)
    model = PromptedEncoder(backbone, task, 3, prompts, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.3)
    return model.eval()


def batch(task: TaskType, width: int = 9, rows: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (rows, 2, width) if task is TaskType.MULTIPLE_CHOICE else (rows, width)
    ids = torch.randint(3, 60, shape, generator=generator)
    mask = torch.ones_like(ids)
    mask[-1, ..., -3:] = 0
    inputs = {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}
    if task is TaskType.QUESTION_ANSWERING:
        return {
            **inputs,
            "start_positions": torch.tensor([1, 2]),
            "end_positions": torch.tensor([4, 3]),
        }
    n_label = 2 if task is TaskType.MULTIPLE_CHOICE else 3
    label_shape = shape if task is TaskType.TOKEN_CLASSIFICATION else (rows,)
    return {**inputs, "labels": torch.randint(n_label, label_shape, generator=generator)}


def logits_of(output: Any) -> Tensor:
    if hasattr(output, "start_logits"):
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    return output.logits


@families
@tasks
def test_a_step_makes_nothing_on_another_device_than_its_model(
    monkeypatch: pytest.MonkeyPatch, family: str, task: TaskType
) -> None:
    """On "meta", where a tensor of the CPU does not fit, and where no number can be looked at."""
    model = build(family, task).train().to("meta")
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)  # unknown on "meta"
    model(**{name: tensor.to("meta") for name, tensor in batch(task).items()}).loss.backward()
    assert model.prefix_encoder.embedding.weight.grad.is_meta


@families
@tasks
def test_every_slot_and_head_learns_and_the_rest_is_frozen(family: str, task: TaskType) -> None:
    model = build(family, task).train()
    before = {n: p.clone() for n, p in model.named_parameters()}
    model(**batch(task)).loss.backward()
    slots = model.prefix_encoder.embedding.weight.grad.view(P, -1)
    assert slots.abs().sum(dim=1).gt(0).all()
    layers = slots.view(P, 4, -1).abs().sum(dim=(0, 2))
    assert layers.gt(0).all()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    backbone = f"{model.backbone.base_model_prefix}."
    for name, parameter in model.named_parameters():
        if task is TaskType.MULTIPLE_CHOICE and name == "classifier.bias":
            continue  # one number more for every choice changes nothing
        assert torch.equal(parameter, before[name]) == name.startswith(backbone), name
    assert model.backbone.training  # its dropout is active although it is frozen


@families
@tasks
def test_what_padding_holds_changes_nothing(family: str, task: TaskType) -> None:
    model = build(family, task)
    inputs = batch(task)
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    expected = logits_of(model(**inputs))
    ids, hidden = inputs["input_ids"].clone(), inputs["attention_mask"] == 0
    # RoBERTa numbers tokens by their ids: its padding is [PAD] or nothing.
    ids[hidden] = 1 if "roberta" in family else 33
    found = logits_of(model(input_ids=ids, attention_mask=inputs["attention_mask"]))
    if not task.pools:
        expected, found = expected[~hidden], found[~hidden]
    assert torch.allclose(found, expected, atol=1e-5)
    narrow = {name: value[-1:, ..., :-3] for name, value in inputs.items()}
    alone = logits_of(model(**narrow))
    last = expected[-1:] if task.pools else expected[-6:].unsqueeze(0)
    assert torch.allclose(alone, last, atol=1e-5)


@families
def test_position_shift(family: str) -> None:
    """Without the shift, a slot more does not move the tokens; positions decide only where used."""
    task = TaskType.SEQUENCE_CLASSIFICATION
    inputs = batch(task)
    outputs = [
        build(family, task, shift_positions=shift)(**inputs).logits for shift in (True, False)
    ]
    relative = family.startswith("deberta")
    assert torch.allclose(*outputs, atol=1e-5) == relative


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_tokens_stand_where_the_encoder_alone_has_them(family: str) -> None:
    """Keys so far from every query that they get no weight: what is left is the plain encoder."""
    task = TaskType.TOKEN_CLASSIFICATION
    model = build(family, task, shift_positions=False)
    inputs = batch(task)
    with torch.no_grad():
        queries = [layer.attention.self.query for layer in model.backbone.encoder.layer]
        for query in queries:
            query.weight.zero_()
            query.bias.fill_(1.0)
        table = model.prefix_encoder.embedding.weight.view(P, 4, 32)
        table[:, 0::2] = -1e4
        found = model(**inputs).logits
        plain = model.classifier(
            model.backbone(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            ).last_hidden_state
        )
    real = inputs["attention_mask"].bool()
    assert torch.allclose(found[real], plain[real], atol=1e-5)


@pytest.mark.parametrize("projection", [False, True])
def test_initialisation(projection: bool) -> None:
    torch.manual_seed(0)
    shape = PrefixShape(n_layer=4, n_head=4, head_dim=32, width=128)
    encoder = PrefixEncoder(shape, 50, projection=projection, hidden_size=100)
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05)


COUNTS = {
    "boolq_bert": ("bert", "sequence", 2, 40, False, 1_968_130),
    "conll05_roberta": ("roberta", "token", 106, 224, False, 11_118_698),
    "copa_roberta": ("roberta", "choice", 1, 8, False, 394_241),
    "wic_bert": ("bert", "sequence", 2, 20, True, 25_762_306),
}


@pytest.mark.parametrize("case", COUNTS)
def test_parameter_counts_of_the_large_models(case: str) -> None:
    """What the original prints as "total param", for 24 layers of width 1024."""
    family, task, num_labels, length, projection, expected = COUNTS[case]
    config = CONFIGS[family].__class__(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    )
    with torch.device("meta"):
        backbone = AutoModel.from_config(config)
        prompts = PrefixEncoder(PrefixShape.from_config(config), length, 0.1, projection)
        model = PromptedEncoder(backbone, TaskType(task), num_labels, prompts)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == expected
    assert f"{expected:,}" in parameter_lines(model)[1]


@pytest.mark.parametrize("family", ["bert", "deberta", "deberta-v2"])
def test_gradient_checkpointing_gives_the_same_gradients(family: str) -> None:
    task = TaskType.TOKEN_CLASSIFICATION
    gradients = []
    for checkpointing in (False, True):
        model = build(family, task).train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**batch(task)).loss.backward()
        gradients.append(model.prefix_encoder.embedding.weight.grad)
    assert torch.allclose(*gradients, atol=1e-6)


def test_dropout_of_the_prefix_differs_by_row() -> None:
    task = TaskType.MULTIPLE_CHOICE
    model = build("bert", task).train()
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and not name.startswith("prefix_encoder"):
            module.p = 0.0
    inputs = batch(task, rows=3)
    same = {name: inputs[name][:1, :1].expand(3, 2, -1) for name in ("input_ids", "attention_mask")}
    assert model(**same).logits.view(-1).unique().numel() == 6  # one mask for each choice


@pytest.mark.parametrize(("family", "most"), [("bert", 40), ("roberta", 38), ("xlm-roberta", 38)])
def test_prompts_and_tokens_share_the_positions(family: str, most: int) -> None:
    """Of 40 rows, RoBERTa's first two belong to padding: of 514, 512 are left."""
    model = build(family, TaskType.SEQUENCE_CLASSIFICATION)
    ids = torch.full((1, most - P + 1), 5)
    model(input_ids=ids[:, 1:], attention_mask=torch.ones_like(ids[:, 1:]))
    with pytest.raises(UserError, match=f"do not fit into the {most} positions"):
        model(input_ids=ids, attention_mask=torch.ones_like(ids))


def test_shallow_prompts_need_a_pooler() -> None:
    backbone = AutoModel.from_config(CONFIGS["deberta"])
    with pytest.raises(UserError, match="--prompt: not for deberta"):
        PromptedEncoder(backbone, TaskType.SEQUENCE_CLASSIFICATION, 2, nn.Embedding(3, 32))


def test_losses_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    nll = -logits.log_softmax(-1)
    unknown = heads.classification_loss(logits, torch.tensor([0, 1, -1]))
    assert unknown.item() == pytest.approx((nll[0, 0] + nll[1, 1]).item() / 2)
    assert heads.classification_loss(logits, torch.tensor([-1, -1, -1])).item() == 0
    several = heads.classification_loss(logits[:1], torch.tensor([[1.0, 1.0]]))
    sigmoid = torch.sigmoid(logits[0]).log()
    assert several.item() == pytest.approx(-sigmoid.mean().item())
    scores = heads.classification_loss(torch.tensor([[1.0], [4.0]]), torch.tensor([2.0, 2.0]))
    assert scores.item() == 2.5
    outside = heads.span_loss(logits, logits, torch.tensor([0, 0, 9]), torch.tensor([1, 1, -3]))
    start, end = nll[:2, 0].mean(), (nll[0, 1] + nll[1, 1] + nll[2, 0]) / 3
    assert outside.item() == pytest.approx(((start + end) / 2).item())


@tasks
def test_processes_share_the_mean_over_all_labels(task: TaskType) -> None:
    """A row each, of 9 and 6 tokens; then both rows by one, which the other repeats."""
    model, rows = build("bert", task), batch(task)
    model.training = True  # without dropout, which is off in its modules
    if task is TaskType.TOKEN_CLASSIFICATION:
        rows["labels"][rows["attention_mask"] == 0] = -100  # as the collator does
    single = [{name: value[at] for name, value in rows.items()} for at in ([0], [1])]

    def make() -> Any:
        trainer: Any = object.__new__(BaseTrainer)
        for name in ("label_smoother", "compute_loss_func", "model_accepts_loss_kwargs"):
            setattr(trainer, name, None)
        return trainer

    for batches in (single, [rows, rows]):
        assert torch.allclose(shared(make, model, batches, n_row=2), model(**rows).loss)


@pytest.mark.parametrize(("shift", "offset"), [("yes", P), ("no", 0)])
def test_a_checkpoint_says_where_tokens_are_numbered_from(shift: str, offset: int) -> None:
    flags = "--model_name_or_path m --task_name glue --dataset_name rte --output_dir o --prefix "
    flags += f"--do_train --pre_seq_len {P} --shift_positions {shift}"
    model = build("bert", TaskType.SEQUENCE_CLASSIFICATION)
    meta = checkpoint.metadata(model, get_args(flags.split()).model_args)
    assert meta["position_offset"] == offset


def test_the_pooler_of_a_configuration() -> None:
    """Of DeBERTa: dropout in front, and an activation by name."""
    values = {"hidden_size": 8, "pooler_dropout": 0.5, "pooler_hidden_act": "relu"}
    pooler = heads.ContextPooler(PretrainedConfig(**values))
    assert pooler.dropout.p == 0.5
    hidden = torch.randn(2, 3, 8)
    expected = torch.relu(hidden[:, 0] @ pooler.dense.weight.T)
    assert torch.allclose(pooler.eval()(hidden), expected, atol=1e-6)


def test_labels_of_padding_have_no_loss() -> None:
    logits, labels = torch.randn(2, 3, 4), torch.tensor([[1, 2, 3], [0, -100, 1]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    known = torch.cat([logits[0, :2], logits[1, [0, 2]]])
    expected = torch.nn.functional.cross_entropy(known, torch.tensor([1, 2, 0, 1]))
    assert torch.allclose(heads.token_loss(logits, labels, mask), expected)


def test_head_dropout() -> None:
    assert heads.head_dropout(SimpleNamespace(hidden_dropout_prob=0.2)) == 0.2
    of_deberta = SimpleNamespace(hidden_dropout_prob=0.2, cls_dropout=0.0)
    assert heads.head_dropout(of_deberta) == 0.0


@torch.no_grad()
def test_a_convolution_reads_padding_only_as_in_the_original() -> None:
    """The stock model masks its embeddings: a padded row equals the row alone."""
    family = "deberta-v2 with a convolution"
    ids = torch.tensor([[5, 9, 30, 12, 44, 7]])
    padded = torch.cat([ids, torch.full((1, 4), 1)], dim=1)
    mask = (padded != 1).long()

    def apart(**options: Any) -> float:
        model = build(family, TaskType.TOKEN_CLASSIFICATION, **options)
        alone = model(ids, torch.ones_like(ids)).logits
        return float((model(padded, mask).logits[:, :6] - alone).abs().max())

    assert apart() < 1e-5
    assert apart(convolve_padding=True) > 1e-2
    plain, asked = (
        build("deberta-v2", TaskType.TOKEN_CLASSIFICATION, convolve_padding=convolve)
        for convolve in (False, True)
    )
    assert torch.equal(plain(padded, mask).logits, asked(padded, mask).logits)
