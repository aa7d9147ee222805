"""A real pretrained BART and what it can learn from prefixes: British pronunciation.

    python experiments/pronunciation.py FOLDER --out data/translation    # seconds

FOLDER holds the small networks and dictionaries of the MisakiSwift project: ``us_bart.safetensors``
and ``us_bart_config.json`` (one layer a stack, 63 characters, 751,488 parameters, from spelling to
American pronunciation) and ``gb_gold.json`` (British pronunciations of 87,398 words). Writes the
network as a model folder, ``us-bart``, and pairs of spelling and sound: 1,000 to test, 200 to
validate, the rest to train on. The table ``small_bart`` reads them.

Spelling and sound have alphabets of their own with the same ids: files spell ids as characters.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from prefix_tuning.errors import UserError, run_command

MODEL, FILES = "us-bart", ("us_bart.safetensors", "us_bart_config.json", "gb_gold.json")
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
AMERICAN = str.maketrans({"a": "æ", "Q": "O", "ɒ": "ʔ", "ː": None})
"""British sounds in the symbols that the American network has for them."""


def spell(text: str, alphabet: str) -> str | None:
    """The ids of ``text`` as characters; None where a character has no id."""
    ids = [alphabet.find(character) for character in text]
    return None if min(ids, default=-1) < len(SPECIAL) else "".join(chr(0x4E00 + i) for i in ids)


def write_model(source: Path, out: Path) -> dict[str, str]:
    """The American network as a model folder; returns the two alphabets."""
    from safetensors.torch import load_file
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

    config = json.loads((source / "us_bart_config.json").read_text(encoding="utf-8"))
    alphabets = {name: config.pop(name) for name in ("grapheme_chars", "phoneme_chars")}
    model = BartForConditionalGeneration(BartConfig(**config))
    model.load_state_dict(load_file(source / "us_bart.safetensors"), strict=False)
    model.tie_weights()
    model.save_pretrained(out)
    words = {word: i for i, word in enumerate(SPECIAL)}
    words |= {chr(0x4E00 + i): i for i in range(len(SPECIAL), model.config.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    # A target has no <s> of its own: it is what the decoder starts from. A source's is in the file.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    tokenizer.decoder = decoders.Fuse()
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(out)
    return alphabets


def write_data(source: Path, out: Path, alphabets: dict[str, str]) -> None:
    """British words: 1,000 to test, 200 to validate, the rest to train on."""
    gold = json.loads((source / "gb_gold.json").read_text(encoding="utf-8"))
    pairs = []
    for word, sound in gold.items():
        if not isinstance(sound, str) or len(word) > 30 or len(sound) > 30:
            continue
        spelt = spell(word, alphabets["grapheme_chars"])
        heard = spell(sound.translate(AMERICAN), alphabets["phoneme_chars"])
        if spelt and heard:
            pairs.append((f"<s>{spelt}", heard))
    random.Random(0).shuffle(pairs)
    out.mkdir(parents=True, exist_ok=True)
    for split, part in (("test", pairs[:1000]), ("val", pairs[1000:1200]), ("train", pairs[1200:])):
        for kind, lines in zip(("source", "target"), zip(*part, strict=True), strict=True):
            text = "".join(f"{line}\n" for line in lines)
            (out / f"{split}.{kind}").write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help=f"holds {', '.join(FILES)}")
    data = ROOT / "data" / "translation"
    parser.add_argument("--out", type=Path, default=data, help="everything is written here")
    args = parser.parse_args(argv)
    for name in FILES:
        if not (args.folder / name).is_file():
            raise UserError(f"{args.folder} holds no {name}")
    write_data(args.folder, args.out, write_model(args.folder, args.out / MODEL))
    print(f"model: {args.out / MODEL}\ndata:  {args.out}")


if __name__ == "__main__":
    run_command(main)
