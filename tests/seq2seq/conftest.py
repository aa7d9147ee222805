"""A tokenizer laid out like BART's, and tiny models that go with it."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch
from conftest import ROOT
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def bart_tokenizer() -> PreTrainedTokenizerFast:
    """Words of the restaurant descriptions; ``<s> 0, <pad> 1, </s> 2, <unk> 3``, then words."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    text = (ROOT / "data" / "restaurants" / "src1_valid.txt").read_text(encoding="utf-8")
    tokenizer.train_from_iterator(
        text.split("\n"), trainers.WordLevelTrainer(special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )


@pytest.fixture(scope="session")
def bart_folder(
    bart_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model folder: BART of one layer and width 16, with dropout, and the tokenizer."""
    folder = tmp_path_factory.mktemp("base") / "tiny-bart"
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(bart_tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=150,
        dropout=0.1,
        attention_dropout=0.1,
    )
    model = BartForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    bart_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Restaurants as ``<split>.source`` and ``<split>.target``: 20, 6 and 5 examples."""
    folder = tmp_path_factory.mktemp("pairs")
    text = (ROOT / "data/restaurants/src1_valid.txt").read_text(encoding="utf-8")
    lines = list({line.split("||")[0]: line for line in text.split("\n")}.values())
    cuts = {"train": lines[:20], "val": lines[20:26], "test": lines[26:31]}
    for split, chosen in cuts.items():
        for side, ending in enumerate(("source", "target")):
            text = "".join(line.split("||")[side].strip() + "\n" for line in chosen)
            (folder / f"{split}.{ending}").write_text(text, encoding="utf-8")
    return folder
