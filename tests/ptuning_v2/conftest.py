"""Small tokenizers of the two kinds, and command lines with files beside them."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hypothesis import settings
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertTokenizer, RobertaTokenizer

from ptuning_v2.arguments import Arguments, get_args

# The same examples at every run.
settings.register_profile("ptuning_v2", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("ptuning_v2")

_WORDS = "the a an cat dog sat on mat is was who what where because so does have same meaning play"


@pytest.fixture(scope="session")
def bert_tokenizer() -> BertTokenizer:
    """WordPiece, uncased: a few words, and every ASCII character alone or as a later piece."""
    characters = [
        c for c in string.printable if c not in string.whitespace + string.ascii_uppercase
    ]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS.split()]
    pieces += [*characters, *(f"##{c}" for c in characters), "##ing", "##ed"]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    return BertTokenizer(vocab=vocabulary, model_max_length=512)


def _roberta(**options: Any) -> RobertaTokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = (ROOT / "data" / "restaurants" / "src1_valid.txt").read_text(encoding="utf-8")
    tokenizer.train_from_iterator(text.split("\n"), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return RobertaTokenizer(vocab=model["vocab"], merges=merges, model_max_length=512, **options)


@pytest.fixture(scope="session")
def roberta_tokenizer() -> RobertaTokenizer:
    """Byte-level BPE without token types, as glue, superglue and qa load it."""
    return _roberta()


@pytest.fixture(scope="session")
def roberta_word_tokenizer() -> RobertaTokenizer:
    """The same as ner and srl load it."""
    return _roberta(add_prefix_space=True)


@pytest.fixture
def parse(tmp_path: Path) -> Callable[..., Arguments]:
    """Parse the flags of a run on files under ``tmp_path``, for example ``max_eval_samples=3``."""

    def parse(task: str, dataset: str, *flags: str, **values: Any) -> Arguments:
        values = {
            "task_name": task,
            "dataset_name": dataset,
            "model_name_or_path": "any",
            "output_dir": str(tmp_path / "run"),
            "data_dir": str(tmp_path),
            **values,
        }
        named = [part for name, value in values.items() for part in (f"--{name}", str(value))]
        return get_args([*named, *(f"--{flag}" for flag in flags or ("do_eval",))])

    return parse


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Write a file under ``tmp_path``: text as it is, a list as JSON lines, else JSON."""

    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(line) + "\n" for line in content)
        elif not isinstance(content, str):
            content = json.dumps(content)
        path.write_text(content, encoding="utf-8")
        return path

    return write
