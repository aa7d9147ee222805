"""Write the reviews: short opinions, positive or negative, in the layout of SST-2.

    python data/reviews/generate.py

Words that carry the opinion are divided between the files, so that a model has to know what a word
means to judge a review of ``dev.tsv``. Half of the reviews turn an opinion around ("far from
dull") or hold two of them, of which the last one counts.
"""

import argparse
import json
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
GRAMMAR = json.loads((HERE / "grammar.json").read_text(encoding="utf-8"))
SUBJECTS, DEGREES = GRAMMAR["subjects"], GRAMMAR["degrees"]
PLAIN, TURNED, CONTRASTS = GRAMMAR["plain"], GRAMMAR["turned"], GRAMMAR["contrasts"]
"""How an opinion is said: as it is, turned around, or behind another, of which the last counts."""


def review(label: int, words: dict[str, list[str]], rng: Random) -> str:
    """One review with the given label (1 is good)."""
    same, opposite = ("good", "bad") if label else ("bad", "good")
    kind = rng.choice(["plain", "plain", "turned", "contrast"])
    template = rng.choice({"plain": PLAIN, "turned": TURNED, "contrast": CONTRASTS}[kind])
    word, other = rng.sample(words[opposite if kind == "turned" else same], 2)
    return template.format(
        subject=rng.choice(SUBJECTS).format(thing=rng.choice(words["things"])),
        degree=rng.choice(DEGREES),
        word=word,
        same=other,
        opposite=rng.choice(words[opposite]),
    )


def generate(seed: int) -> dict[str, str]:
    """The text of each file, by file name."""
    rng = Random(seed)
    files = {}
    for file, words in GRAMMAR["splits"].items():
        rows: dict[str, int] = {}
        while len(rows) < words["count"]:
            label = len(rows) % 2
            rows.setdefault(review(label, words, rng), label)
        lines = [f"{text}\t{label}\n" for text, label in rows.items()]
        rng.shuffle(lines)
        files[file] = "".join(["sentence\tlabel\n", *lines])
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is drawn")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for file, text in generate(args.seed).items():
        (args.out / file).write_bytes(text.encode())


if __name__ == "__main__":
    main()
