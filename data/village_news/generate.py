"""Writes the village news: short articles, and two kinds of summaries of them.

    python data/village_news/generate.py --out FOLDER [--seed 0]

An article of three to five sentences says who did what, where and when, and something besides that
no summary mentions. The summaries of ``who`` and of ``when`` pick different facts and say them in
another order and voice.
"""

import argparse
import itertools
from pathlib import Path
from random import Random

# Examples, names and things of each split.
SIZES = {"train": (2000, 1200, 104), "val": (200, 200, 20), "test": (200, 200, 20)}

# ---------------------------------------------------------------------------------------------
# Facts. Everything is in lower case and its punctuation apart, for a small vocabulary of words.

FIRST = """ada albert anna basil bella carl clara colin doris edgar edith ellen emil flora frank
    gilda greta harold hilda hugo ida irma jonas julia karl laura leon lotte max mina nora oscar
    paula robin rosa simon stella tom vera walter"""
LAST = """archer barlow bishop brook carver clay colby crane dale drummer fenn finch fletcher forest
    garland gale harper hart holloway keel lamb larkin marsh miller north nash olden park parson
    quill reed rivers shaw stone thorne underhill vale webb winter yardley"""
ROLES = """baker butcher carpenter doctor farmer florist gardener grocer joiner librarian mason
    nurse painter plumber tailor teacher"""
PLACES = """ashford birkdale coldbrook dunmere eastwick fairholm glenrow hartfell ironbridge kelby
    linwood millbank netherby oakham penfield ravensby sandwell thornley upwell westmere"""
DAYS = "monday tuesday wednesday thursday friday saturday sunday"
# What was done, as a past tense and as a participle, and to what.
DEEDS = [("mended", "mended"), ("cleaned", "cleaned"), ("drew", "drawn"), ("sold", "sold")]
DEEDS += [("rebuilt", "rebuilt"), ("stole", "stolen"), ("chose", "chosen"), ("hid", "hidden")]
DEEDS += [("gave away", "given away"), ("took apart", "taken apart"), ("bought", "bought")]
QUALITIES = "old little broken wooden famous green"
THINGS = """bell bench boat bridge cart clock door fence fountain gate lamp ladder map mill oven
    piano pump signpost statue stove table tower wagon well"""
COSTS = "ten twenty thirty forty fifty sixty seventy eighty ninety"

OPENINGS = [
    "on {day} {name} , a {role} , {did} the {thing} in {place} .",
    "{name} , a {role} from {place} , {did} the {thing} there on {day} .",
    "in {place} a {role} called {name} {did} the {thing} on {day} .",
    "{name} {did} the {thing} in {place} on {day} . {name} is a {role} .",
    "it happened on {day} in {place} : {name} , the {role} , {did} the {thing} .",
]
# A model that has not seen a word cannot be made to write it by a prefix.
DEED_SENTENCES = [
    "nothing there had ever been {done} before .",
    "that it would be {done} came as a surprise .",
    "whether it should have been {done} is disputed .",
]
COST_SENTENCES = [
    "the whole affair cost {cost} pounds .",
    "neighbours paid {cost} pounds for it .",
    "{cost} pounds were needed .",
]
REASONS = [
    "a storm in spring was the reason .",
    "nobody had cared about it for years .",
    "children had asked for it again and again .",
    "the council had lost all patience .",
    "it was part of a bet among friends .",
]
REACTIONS = [
    "people were surprised .",
    "the mayor sent a letter of thanks .",
    "some did not like it at all .",
    "a crowd stood around and clapped .",
    "there was music until late .",
    "the weather stayed dry .",
]
STYLES = {
    "who": "{name} {did} the {thing} in {place} .",
    "when": "on {day} the {thing} in {place} was {done} by a {role} .",
}

Facts = dict[str, str]

# ---------------------------------------------------------------------------------------------


def write_article(facts: Facts, rng: Random) -> str:
    """The opening, a sentence with the participle, and one or two that no summary mentions."""
    further = [rng.choice(COST_SENTENCES), rng.choice(REASONS), rng.choice(REACTIONS)]
    body = [rng.choice(DEED_SENTENCES), *rng.sample(further, rng.randint(1, 2))]
    rng.shuffle(body)
    return " ".join([rng.choice(OPENINGS), *body]).format(**facts)


def draw_facts(names: list[str], things: list[str], rng: Random) -> Facts:
    did, done = rng.choice(DEEDS)
    return {
        "name": rng.choice(names),
        "role": rng.choice(ROLES.split()),
        "did": did,
        "done": done,
        "thing": rng.choice(things),
        "place": rng.choice(PLACES.split()),
        "day": rng.choice(DAYS.split()),
        "cost": rng.choice(COSTS.split()),
    }


def generate(seed: int) -> dict[str, str]:
    """The text of each file, by path below the folder, such as ``who/train.source``."""
    rng = Random(seed)
    names = [f"{a} {b}" for a, b in itertools.product(FIRST.split(), LAST.split())]
    things = [f"{a} {b}" for a, b in itertools.product(QUALITIES.split(), THINGS.split())]
    rng.shuffle(names)
    rng.shuffle(things)
    n_train = SIZES["train"][2]
    # A model that has not seen a word cannot copy it: every thing is in the training set once.
    while len({thing.split()[1] for thing in things[:n_train]}) < len(THINGS.split()):
        rng.shuffle(things)
    files = {}
    for split, (size, n_names, n_things) in SIZES.items():
        # Nobody and nothing of one split is in another; the words of their names are.
        own_names, names = names[:n_names], names[n_names:]
        own_things, things = things[:n_things], things[n_things:]
        facts = [draw_facts(own_names, own_things, rng) for _ in range(size)]
        articles = "".join(f"{write_article(fact, rng)}\n" for fact in facts)
        for style, template in STYLES.items():
            files[f"{style}/{split}.source"] = articles
            files[f"{style}/{split}.target"] = "".join(template.format(**f) + "\n" for f in facts)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for file, text in generate(args.seed).items():
        path = args.out / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())


if __name__ == "__main__":
    main()
