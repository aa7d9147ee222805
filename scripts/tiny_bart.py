"""A tiny BART for trying things out: random weights, and a vocabulary of the words of a data set.

    python scripts/tiny_bart.py DATA_DIR OUT

writes a model folder as ``--model_name_or_path`` takes it. It knows nothing until it is fine-tuned.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from prefix_tuning.errors import UserError, run_command
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


def main(argv: Sequence[str] | None = None) -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data_dir", help="train.source and train.target, whose words it knows")
    parser.add_argument("out", type=Path, help="model folder to write")
    args = parser.parse_args(argv)
    if args.out.is_file():
        raise UserError(f"{args.out} is a file: name a folder to write")
    records = read_split(args.data_dir, "train", training=True)
    tokenizer = word_tokenizer(f"{record.source} {record.target}" for record in records)
    tiny_bart(len(tokenizer)).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    run_command(main)
