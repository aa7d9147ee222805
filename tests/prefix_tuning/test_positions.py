"""How many positions are free, and which families skip rows of the table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from transformers import (
    AutoModel,
    BartConfig,
    BertConfig,
    CamembertConfig,
    DebertaConfig,
    GPT2Config,
    LlamaConfig,
    RobertaConfig,
    T5Config,
)
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.parametrizations import FlatPrefix
from prefix_tuning.positions import _NUMBERED_AFTER_PADDING, position_inputs, real_positions, room


def test_real_tokens_are_counted_from_0() -> None:
    mask, cpu = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]), torch.device("cpu")
    assert real_positions(4, 0, mask, cpu).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
    assert real_positions(1, 3, mask, cpu).tolist() == [[1], [3]]  # behind a cache
    assert real_positions(2, 5, None, cpu).tolist() == [[5, 6]]


def test_room_of_the_released_models() -> None:
    assert room(GPT2Config()) == 1024
    assert room(GPT2Config(), 200) == 824
    assert room(LlamaConfig(max_position_embeddings=99)) == 99
    assert room(BertConfig(), 100) == 412
    assert room(RobertaConfig(max_position_embeddings=514)) == 512
    assert room(RobertaConfig(max_position_embeddings=514), 512) == 0
    assert room(BartConfig()) == 1024
    assert room(T5Config()) is None
    assert room(DebertaConfig(position_biased_input=False), 100) is None


def test_the_families_that_skip_rows_are_those_of_the_library() -> None:
    folder, found = Path(transformers.__file__).parent / "models", set()
    for name in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        files = (folder / model_type_to_module_name(name)).glob("modeling_*.py")
        if any("create_position_ids_from_input_ids" in file.read_text("utf-8") for file in files):
            found.add(name)
    assert found == {*_NUMBERED_AFTER_PADDING}


@pytest.mark.parametrize("config_class", [RobertaConfig, CamembertConfig])
def test_embedded_words_stand_where_the_words_stand(config_class: type) -> None:
    config = config_class(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
    )
    torch.manual_seed(0)
    model = enable_prefix(AutoModel.from_config(config).eval())
    prefix = KeyValues(FlatPrefix(config, length=3).key_values())
    ids = torch.tensor([[5, 6, 7, 8]])
    words = model.embeddings.word_embeddings(ids)
    found = model(inputs_embeds=words, prefix=prefix).last_hidden_state
    assert torch.allclose(found, model(ids, prefix=prefix).last_hidden_state, atol=1e-5)
    padded = torch.tensor([[5, config.pad_token_id, 7, 8], [5, 6, 7, config.pad_token_id]])
    stock = model.embeddings.create_position_ids_from_input_ids(padded, config.pad_token_id)
    assert torch.equal(position_inputs(model, 0, {"input_ids": padded})["position_ids"], stock)
