"""Tiny models with random weights, for ``--scale tiny`` and for trying things out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    BertTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from data.village_news import generate
from experiments.toy_data import restaurants
from seq2seq.data import read_split

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words with BART's special tokens and their ids."""
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=SPECIAL))
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def tiny_bart(vocab_size: int, layers: int = 2, width: int = 96) -> BartForConditionalGeneration:
    """A BART of ``layers`` layers a stack with random weights."""
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=vocab_size,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        max_position_embeddings=256,
    )
    model = BartForConditionalGeneration(config)
    model.generation_config = GenerationConfig.from_model_config(config)
    return model


def word_bart(data_dir: str | Path, folder: Path) -> None:
    """Write a tiny BART that knows the words of a training set.

    Args:
        data_dir: of ``train.source`` and ``train.target``.
        folder: of the model.
    """
    records = read_split(data_dir, "train", training=True)
    tokenizer = word_tokenizer(f"{record.source} {record.target}" for record in records)
    tiny_bart(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tiny_gpt2(folder: Path) -> None:
    """GPT-2 of two layers, with a byte-level vocabulary of 400."""
    torch.manual_seed(0)
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_byte_pairs([end]), bos_token=end, eos_token=end, unk_token=end
    )
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=512,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():  # large enough to tell tokens apart, so that it does write something
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tiny_seq2seq(folder: Path) -> None:
    """BART of one layer a stack that knows the words of the village news."""
    texts = [line for text in generate.generate(seed=0).values() for line in text.splitlines()]
    tokenizer = word_tokenizer(texts)
    tiny_bart(len(tokenizer), layers=1, width=32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


_ENCODER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 520,
}


def tiny_bert(folder: Path) -> None:
    """BERT of two layers that spells words out."""
    torch.manual_seed(0)
    characters = [chr(i) for i in range(33, 127)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    pieces += [f"##{c}" for c in characters]
    tokenizer = BertTokenizer(vocab={p: i for i, p in enumerate(pieces)}, model_max_length=512)
    BertModel(BertConfig(vocab_size=len(pieces), **_ENCODER)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tiny_roberta(folder: Path) -> None:
    """RoBERTa of two layers."""
    torch.manual_seed(0)
    pairs = json.loads(_byte_pairs(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]).to_str())["model"]
    merges: list[Any] = [tuple(merge) for merge in pairs["merges"]]
    tokenizer = RobertaTokenizer(vocab=pairs["vocab"], merges=merges, model_max_length=512)
    RobertaModel(RobertaConfig(vocab_size=len(pairs["vocab"]), **_ENCODER)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _byte_pairs(special: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((t for pair in restaurants("valid") for t in pair), trainer)
    return tokenizer


MODELS: dict[str, Callable[[Path], None]] = {
    "gpt2": tiny_gpt2,
    "bart": tiny_seq2seq,
    "bert": tiny_bert,
    "roberta": tiny_roberta,
}
