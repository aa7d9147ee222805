"""A real pretrained BART learns British pronunciation from prefixes: each attention alone, and all.

    python benchmarks/bart_g2p.py FOLDER --output_dir g2p

FOLDER holds the small networks and dictionaries of the MisakiSwift project: ``us_bart.safetensors``
and ``us_bart_config.json`` (one layer a stack, 63 characters, 751,488 parameters, from spelling to
American pronunciation) and ``gb_gold.json`` (British pronunciations of 87,398 words). The network
is frozen; prefixes are trained, and 1,000 words that they never saw are decoded, by ``seq2seq/`` as
a user would. What is counted are exact pronunciations. ``--sites finetune`` trains all of the
network instead.

Spelling and sound have alphabets of their own with the same ids: files spell ids as characters.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

FINETUNE = "finetune"
SITES = ("encoder", "self", "encoder_decoder", "encoder,self,encoder_decoder")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("folder", type=Path, help="holds us_bart.safetensors, us_bart_config.json, gb_gold.json")
    add("--output_dir", type=Path, default=Path("g2p"), help="everything is written here")
    add("--steps", type=int, default=1500, help="training steps of 128 words")
    add("--preseqlen", type=int, default=16, help="prefix length")
    add("--beams", type=int, default=5, help="beams of the search")
    add("--words", type=int, default=1000, help="decoded, of the 1,000 that are held out")
    add("--learning_rate", type=float, default=3e-3, help="peak learning rate")
    add("--finetune_rate", type=float, default=3e-4, help="peak learning rate of fine-tuning")
    add("--seeds", type=int, nargs="+", default=[0], help="one training of each for every seed")
    sites = "attentions with a prefix, as comma lists, or finetune"
    add("--sites", nargs="+", default=list(SITES), help=sites)
    return parser


if __name__ == "__main__":
    _parser().parse_args()  # --help ends here, before the imports that take seconds

from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from prefix_tuning.errors import UserError, run_command
from seq2seq import arguments, finetune

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
AMERICAN = str.maketrans({"a": "æ", "Q": "O", "ɒ": "ʔ", "ː": None})
"""British sounds in the symbols that the American network has for them."""


def spell(text: str, alphabet: str) -> str | None:
    """The ids of ``text`` as characters; None where a character has no id."""
    ids = [alphabet.find(character) for character in text]
    return None if min(ids, default=-1) < len(SPECIAL) else "".join(chr(0x4E00 + i) for i in ids)


def write_model(source: Path, out: Path) -> dict[str, str]:
    """The American network as a model folder; returns the two alphabets."""
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


def exact(work: Path, output: Path) -> float:
    """Share of outputs that are the reference."""
    references = (work / "data" / "test.target").read_text(encoding="utf-8").splitlines()
    outputs = output.read_text(encoding="utf-8").splitlines()
    return sum(a == b for a, b in zip(references, outputs, strict=False)) / len(outputs)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Decode without a prefix, then train and decode with one on each site and on all.

    Returns:
        the shares of exact pronunciations.
    """
    args = _parser().parse_args(argv)
    for name in ("us_bart.safetensors", "us_bart_config.json", "gb_gold.json"):
        if not (args.folder / name).is_file():
            raise UserError(f"{args.folder} holds no {name}")
    work = args.output_dir
    write_data(args.folder, work / "data", write_model(args.folder, work / "us"))
    base: dict[str, object] = {"model_name_or_path": work / "us", "data_dir": work / "data"}
    base |= dict.fromkeys(("max_source_length", "max_target_length", "eval_max_gen_length"), 40)
    base |= dict.fromkeys(("val_max_target_length", "test_max_target_length"), 40)
    base |= {"eval_beams": args.beams, "length_penalty": 1, "eval_min_gen_length": 0}
    base |= {"no_repeat_ngram_size": 0, "decode_batch_size": 100, "limit": args.words}
    base |= {"do_predict": True, "num_workers": 0, "overwrite_results": True}
    finetune.run(arguments.parse([], {**base, "tuning_mode": "finetune"}))
    shares = {"frozen, no prefix": exact(work, work / "us" / "test_beam_1.0")}
    for sites in args.sites:
        found = [_train(args, work, base, sites, seed) for seed in args.seeds]
        shares[sites] = sum(found) / len(found)
        if len(found) > 1:
            print(f"{sites}: {' '.join(f'{share:.1%}' for share in found)}")
    print(f"\nexact pronunciations, P={args.preseqlen}, {args.steps} steps of 128 words")
    for name, share in shares.items():
        print(f"{name:30} {share:6.1%}")
    return shares


def _train(
    args: argparse.Namespace, work: Path, base: dict[str, object], sites: str, seed: int
) -> float:
    """Train and decode; the share of exact pronunciations."""
    run = work / (sites.replace(",", "-") + (f"-seed{seed}" if seed else ""))
    training: dict[str, object] = {"do_train": True, "seed": seed, "output_dir": run}
    training |= {"max_steps": args.steps, "train_batch_size": 128, "val_metric": "loss"}
    training |= {"warmup_steps": 100}
    if sites == FINETUNE:
        training |= {"tuning_mode": "finetune", "learning_rate": args.finetune_rate}
    else:
        training |= {"prefix_sites": sites, "learning_rate": args.learning_rate}
        training |= {"preseqlen": args.preseqlen, "mid_dim": 128}
    finetune.run(arguments.parse([], {**base, **training}))
    return exact(work, run / "checkpoint-curr_best" / "test_beam_1.0")


if __name__ == "__main__":
    run_command(main)
