"""A tokenizer laid out like BART's."""

from __future__ import annotations

import pytest
from conftest import ROOT
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


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
