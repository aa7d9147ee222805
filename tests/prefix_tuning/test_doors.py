"""A family whose attention goes another way is one row in a table."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
import torch
from conftest import tiny_model
from torch import Tensor
from transformers import DynamicCache, GPTJConfig, PreTrainedModel
from transformers.models.gptj.modeling_gptj import GPTJAttention

from prefix_tuning.attention import DOORS, Front, KeyValues, enable_prefix, run
from prefix_tuning.doors import Door
from prefix_tuning.errors import UserError
from prefix_tuning.objectives import target_nll
from prefix_tuning.observer import Observer, observe
from prefix_tuning.parametrizations import FlatPrefix

pytestmark = pytest.mark.skipif(
    not hasattr(GPTJAttention, "_attn"),
    reason="from transformers 5.24 GPT-J goes through the attention interface",
)
CONFIG = GPTJConfig(
    vocab_size=50, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, n_positions=64, n_inner=48
)
_front: ContextVar[Front | None] = ContextVar("front", default=None)


class _Attention(GPTJAttention):
    def _attn(self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None) -> Any:
        front = _front.get()
        if front is None:
            return super()._attn(query, key, value, attention_mask)
        return front.attend(GPTJAttention._attn, self, query, key, value, attention_mask)


class GPTJDoor(Door):
    """For an attention that computes its scores itself."""

    def open(self, model: PreTrainedModel, backend: str) -> None:
        for module in model.modules():
            if type(module) is GPTJAttention:
                module.__class__ = _Attention

    def is_open(self, model: PreTrainedModel) -> bool:
        return any(isinstance(module, _Attention) for module in model.modules())

    def enter(self, forward: Callable[..., Any], front: Front, inputs: dict[str, Any]) -> Any:
        token = _front.set(front)
        try:
            return forward(**inputs)
        finally:
            _front.reset(token)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    with pytest.raises(UserError, match="GPTJForCausalLM cannot carry a prefix"):
        enable_prefix(tiny_model(CONFIG, "eager"))
    monkeypatch.setitem(DOORS, "gptj", GPTJDoor())
    return enable_prefix(tiny_model(CONFIG, "eager").requires_grad_(False))


def test_a_second_door_equals_the_cache_route(model: Any) -> None:
    stock = tiny_model(CONFIG, "eager").requires_grad_(False)
    torch.manual_seed(1)
    ours = FlatPrefix(model.config, length=3)
    theirs = FlatPrefix(model.config, length=3)
    theirs.load_state_dict(ours.state_dict())
    ids = torch.tensor([[7, 30, 12, 5], [9, 8, 41, 2]])
    cache = DynamicCache([tuple(p.expand(-1, 2, -1, -1, -1)) for p in theirs.key_values()])
    expected = stock(ids, past_key_values=cache).logits
    found = run(model, KeyValues(ours.key_values()), {"input_ids": ids}).logits
    assert torch.allclose(found, expected, atol=1e-5)
    weight = torch.randn(found.shape)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    assert torch.allclose(ours.control_trans.grad, theirs.control_trans.grad, atol=1e-4)
    assert _front.get() is None


def test_all_callers_go_through_the_door(model: Any) -> None:
    words, text = torch.tensor([[7, 30, 12]]), torch.tensor([[9, 8, 41]])
    layers = observe(model, input_ids=words).layers()
    expected = model(torch.cat([words, text], dim=1)).logits[:, 3:]
    prefix = KeyValues(layers)
    assert torch.allclose(model(text, prefix=prefix).logits, expected, atol=1e-5)
    nll = target_nll(model, prefix, text, text)
    log_probs = expected[0, :-1].log_softmax(-1)
    assert torch.allclose(nll[0], -log_probs[[0, 1], text[0, 1:]], atol=1e-5)
    tokens = model.generate(text, prefix=prefix, max_new_tokens=3, do_sample=False)
    whole = model.generate(torch.cat([words, text], 1), max_new_tokens=3, do_sample=False)
    assert tokens[0, 3:].tolist() == whole[0, 6:].tolist()


def test_a_closed_door_is_noticed(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, _Attention):
            module.__class__ = GPTJAttention
    with pytest.raises(RuntimeError, match="would be ignored"):
        run(model, Observer(), {"input_ids": torch.tensor([[1]])})


def test_deberta_can_be_observed_and_run_without_its_head() -> None:
    from transformers import AutoModelForMaskedLM, DebertaV2Config

    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        type_vocab_size=0,
    )
    model = enable_prefix(AutoModelForMaskedLM.from_config(config).eval())
    ids, observer = torch.tensor([[7, 30, 12, 5]]), Observer()
    hidden = run(model, observer, {"input_ids": ids}, model.base_model).last_hidden_state
    assert torch.allclose(hidden, model.deberta(ids).last_hidden_state, atol=1e-5)
    assert [*observer.pairs] == [("self", 0), ("self", 1)]
    key = model.deberta.encoder.layer[0].attention.self.key_proj(model.deberta.embeddings(ids))
    found = observer.pairs["self", 0][0, 0].transpose(0, 1).flatten(1)  # [H, T, d] -> [T, D]
    assert torch.allclose(found, key[0], atol=1e-5)
