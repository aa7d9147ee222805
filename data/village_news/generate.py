"""Writes the village news: short articles, and two kinds of summaries of them.

    python data/village_news/generate.py --out FOLDER [--seed 0]

An article of three to five sentences says who did what, where and when, and something besides that
no summary mentions. The summaries of ``who`` and of ``when`` pick different facts and say them in
another order and voice.
"""

import argparse
import itertools
import json
from pathlib import Path
from random import Random

SIZES = {"train": (2000, 1200, 104), "val": (200, 200, 20), "test": (200, 200, 20)}
"""Examples, names and things of each split."""
GRAMMAR = json.loads(Path(__file__).with_name("grammar.json").read_text(encoding="utf-8"))
"""Words and patterns, in lower case and with punctuation apart, for a small vocabulary of words.

A model that has not seen a word cannot be made to write it by a prefix: ``deed_sentences`` say the
participles that only the summaries of ``when`` need.
"""
DEEDS = GRAMMAR["deeds"]
"""What was done, as a past tense and as a participle."""

Facts = dict[str, str]


def write_article(facts: Facts, rng: Random) -> str:
    """The opening, a sentence with the participle, and one or two that no summary mentions."""
    further = [rng.choice(GRAMMAR[n]) for n in ("cost_sentences", "reasons", "reactions")]
    body = [rng.choice(GRAMMAR["deed_sentences"]), *rng.sample(further, rng.randint(1, 2))]
    rng.shuffle(body)
    return " ".join([rng.choice(GRAMMAR["openings"]), *body]).format(**facts)


def draw_facts(names: list[str], things: list[str], rng: Random) -> Facts:
    did, done = rng.choice(DEEDS)
    return {
        "name": rng.choice(names),
        "role": rng.choice(GRAMMAR["roles"]),
        "did": did,
        "done": done,
        "thing": rng.choice(things),
        "place": rng.choice(GRAMMAR["places"]),
        "day": rng.choice(GRAMMAR["days"]),
        "cost": rng.choice(GRAMMAR["costs"]),
    }


def generate(seed: int) -> dict[str, str]:
    """The text of each file, by path below the folder, such as ``who/train.source``."""
    rng = Random(seed)
    names = [f"{a} {b}" for a, b in itertools.product(GRAMMAR["first"], GRAMMAR["last"])]
    things = [f"{a} {b}" for a, b in itertools.product(GRAMMAR["qualities"], GRAMMAR["things"])]
    rng.shuffle(names)
    rng.shuffle(things)
    n_train = SIZES["train"][2]
    # A model that has not seen a word cannot copy it: every thing is in the training set once.
    while len({thing.split()[1] for thing in things[:n_train]}) < len(GRAMMAR["things"]):
        rng.shuffle(things)
    files = {}
    for split, (size, n_names, n_things) in SIZES.items():
        # Nobody and nothing of one split is in another; the words of their names are.
        own_names, names = names[:n_names], names[n_names:]
        own_things, things = things[:n_things], things[n_things:]
        facts = [draw_facts(own_names, own_things, rng) for _ in range(size)]
        articles = "".join(f"{write_article(fact, rng)}\n" for fact in facts)
        for style, template in GRAMMAR["styles"].items():
            files[f"{style}/{split}.source"] = articles
            files[f"{style}/{split}.target"] = "".join(template.format(**f) + "\n" for f in facts)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is drawn")
    args = parser.parse_args()
    for file, text in generate(args.seed).items():
        path = args.out / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())


if __name__ == "__main__":
    main()
