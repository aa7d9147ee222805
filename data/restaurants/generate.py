"""Writes the restaurant descriptions: a small data-to-text set in the layout of the E2E data.

    python data/restaurants/generate.py [--out FOLDER] [--seed 0]

A meaning representation is a few fields of a restaurant. A reference says all of them: an opening
sentence takes the fields its template has slots for, up to two further sentences take the rest.
"""

import argparse
import itertools
import re
from pathlib import Path
from random import Random

HERE = Path(__file__).parent

# ---------------------------------------------------------------------------------------------
# Fields and their values

FIELDS = "name", "Type", "food", "price", "customer rating", "area", "family friendly", "near"
DETAILS = "food", "price", "customer rating", "family friendly"

FOODS = """English French Italian Spanish Greek Turkish Lebanese Indian Thai Chinese Japanese
    Korean Vietnamese Mexican vegetarian vegan"""
VALUES = {
    "Type": ["restaurant", "pub", "coffee shop", "bistro", "tea room"],
    "food": FOODS.split(),
    "price": ["less than £ 20", "£ 20 - 25", "more than £ 30", "cheap", "moderate", "high"],
    "customer rating": ["low", "average", "high", "1 out of 5", "3 out of 5", "5 out of 5"],
    "area": ["city centre", "riverside", "old town", "harbour", "university quarter", "west end"],
    "family friendly": ["yes", "no"],
}

# A restaurant is "The Amber Acorn" or "Bramble Cellar", a landmark "Alder Abbey".
SIGNS = """Amber Brass Clever Copper Crimson Crooked Gilded Hidden Humble Ivory Laughing Merry
    Midnight Painted Rusty Scarlet Silver Sleepy Speckled Velvet Wandering Winter"""
THINGS = """Acorn Anchor Badger Barrel Compass Fiddle Heron Kettle Ladle Lantern Magpie Orchard
    Otter Pheasant Plough Saddle Sparrow Spoon Teapot Thistle Walnut Weaver"""
PLANTS = """Bramble Clementine Clover Fennel Hazel Juniper Linden Marigold Nutmeg Rosemary Saffron
    Sorrel Tamarind Willow"""
ROOMS = "Cellar Garden House Kitchen Larder Oven Pantry Table"
PLACES = """Alder Ashby Barrow Calder Denham Elgin Farrow Granby Hollin Kelso Lambourn Merrow
    Norland Otley Penrose Ravens"""
SIGHTS = "Abbey Bridge Castle Church Common Court Gardens Green Hall Park Square Station"

# Drawn evenly from these tuples: a count that stands twice is twice as frequent.
FIELD_COUNTS = 3, 3, 4, 4, 4, 4, 5, 5, 6, 7, 8
# File, inputs, restaurant names, landmarks, references of an input.
SPLITS = [
    ("src1_train.txt", 680, 400, 120, (2, 2, 2, 3, 3, 4, 5)),
    ("src1_valid.txt", 60, 60, 30, (3, 3, 4)),
    ("src1_test.txt", 60, 60, 30, (3, 3, 4)),
]

# ---------------------------------------------------------------------------------------------
# The grammar. "a" stands for a or an.

OPENINGS = [
    "{name} is {np}",
    "{name} is {np} {place}",
    "{name} is {np} located {place}",
    "{name} is {np} that {verb}",
    "{name} is {np} and {verb}",
    "{name} is {np} with {noun}",
    "{name} is {np} {place} that {verb}",
    "{name} is {np} {place} with {noun}",
    "{name} , {np} {place} , {verb}",
    "{name} , {np} with {noun} , {verb}",
    "{name} is located {place} and {verb}",
    "{name} is situated {place}",
    "{name} can be found {place}",
    "you will find {name} {place}",
    "{name} , located {place} , {verb}",
    "{name} {verb}",
    "{place} , {name} is {np}",
    "{place} , you will find {name} , {np}",
    "{place} , there is {np} called {name}",
    "located {place} , {name} is {np}",
    "{place} , {name} {verb}",
    "located {place} , {name} {verb}",
    "there is {np} {place} called {name}",
    "there is {np} called {name} {place}",
    "there is {np} called {name} , which {verb}",
    "if you are looking for {np} {place} , try {name}",
    "if you would like {food} food , try {name} , {np}",
    "for {food} food {place} , visit {name}",
    "{food} food is served at {name} , {np} {place}",
]

# Each kind of value as an adjective, after "with" or "has", after a subject, as a sentence.
PHRASES = {
    "food": {
        "adjective": ["{value}"],
        "noun": ["a {value} menu", "a choice of {value} dishes"],
        "verb": ["serves {value} food", "offers {value} dishes", "specialises in {value} cuisine"],
        "clause": ["the food is {value}", "the menu is {value}", "the kitchen serves {value} food"],
    },
    "price": {
        "adjective": ["{adjective}"],
        "noun": ["{level} prices", "a {level} price range"],
        "verb": ["is {adjective}"],
        "clause": ["prices are {level}", "the price range is {level}", "meals are {adjective}"],
    },
    "amount": {
        "adjective": [],
        "noun": ["a price range of {value}", "meals for {value}"],
        "verb": ["charges {value} for a meal", "costs {value} per person"],
        "clause": ["meals cost {value}", "a meal costs {value}", "the price range is {value}"],
    },
    "customer rating": {
        "adjective": ["{adjective}"],
        "noun": ["a {value} customer rating", "a {value} rating from customers"],
        "verb": ["is rated {adverb} by customers"],
        "clause": ["customers rate it {adverb}", "the customer rating is {value}"],
    },
    "stars": {
        "adjective": ["{value[0]} - star"],
        "noun": ["a customer rating of {value}", "a {value} customer rating"],
        "verb": ["is rated {value} by customers"],
        "clause": ["customers rate it {value}", "the customer rating is {value}"],
    },
    "yes": {
        "adjective": ["family - friendly", "child - friendly"],
        "noun": ["a family - friendly atmosphere"],
        "verb": ["is family - friendly", "welcomes families", "is a good choice for families"],
        "clause": ["families are welcome", "children are welcome", "it 's family - friendly"],
    },
    "no": {
        "adjective": ["adults - only"],
        "noun": ["a adults - only policy"],
        "verb": ["is not family - friendly", "does n't welcome children", "is for adults only"],
        "clause": [
            "children are not welcome",
            "it 's not family - friendly",
            "it is for adults only",
        ],
    },
    "area": {"adjective": ["{value}"]},
    "place": {
        "verb": ["is located {value}", "is situated {value}", "can be found {value}"],
        "clause": ["you will find it {value}", "it is located {value}", "it can be found {value}"],
    },
    "Type": {"verb": ["is {value}"], "clause": ["it is {value}"]},
}

INFLECTIONS = {
    ("price", "cheap"): {"adjective": "cheap", "level": "low"},
    ("price", "moderate"): {"adjective": "moderately priced", "level": "moderate"},
    ("price", "high"): {"adjective": "expensive", "level": "high"},
    ("customer rating", "low"): {"adjective": "poorly rated", "adverb": "poorly"},
    ("customer rating", "average"): {"adjective": "averagely rated", "adverb": "as average"},
    ("customer rating", "high"): {"adjective": "highly rated", "adverb": "highly"},
}

AREAS = {
    "city centre": ["in the city centre", "in the heart of the city centre"],
    "riverside": ["in the riverside area", "on the riverside"],
    "old town": ["in the old town", "in the heart of the old town"],
    "harbour": ["by the harbour", "in the harbour area"],
    "university quarter": ["in the university quarter"],
    "west end": ["in the west end"],
}
NEAR = ["near", "near", "close to", "not far from", "a short walk from", "around the corner from"]

# Facts whose merits differ are joined by "but".
MERITS = {
    "price": {"cheap": 1, "less than £ 20": 1, "high": -1, "more than £ 30": -1},
    "customer rating": {"high": 1, "5 out of 5": 1, "low": -1, "1 out of 5": -1},
    "family friendly": {"yes": 1, "no": -1},
}

Meaning = dict[str, str]  # field -> value
Fact = tuple[str, str]

# ---------------------------------------------------------------------------------------------
# From a meaning representation to a text. The functions take what they say out of `left`.


def kind(field: str, value: str) -> str:
    if field == "price" and "£" in value:
        return "amount"
    if field == "customer rating" and "out of" in value:
        return "stars"
    return value if field == "family friendly" else field


def say(fact: Fact, form: str, rng: Random) -> str:
    forms = PHRASES[kind(*fact)]
    phrases = forms[form]
    if form == "verb":
        phrases = phrases + [f"has {noun}" for noun in forms.get("noun", [])]
    return rng.choice(phrases).format(value=fact[1], **INFLECTIONS.get(fact, {}))


def take(left: Meaning, fields: list[str], rng: Random) -> Fact:
    field = rng.choice(fields)
    return field, left.pop(field)


def place(left: Meaning, rng: Random) -> str:
    parts = []
    if "area" in left:
        parts.append(rng.choice(AREAS[left.pop("area")]))
    if "near" in left:
        parts.append(f"{rng.choice(NEAR)} {left.pop('near')}")
    rng.shuffle(parts)
    return " ".join(parts)


def noun_phrase(left: Meaning, rng: Random) -> str:
    words = []
    # One opinion at most: "a cheap family - friendly highly rated pub" is a list, not English.
    opinions = ["price", "customer rating", "family friendly"]
    # The area is an adjective only if the landmark is left to fill the slot for the place.
    area = ["area"] if "near" in left else []
    for group, odds in (opinions, 0.6), (area, 0.3), (["food"], 0.7):
        fields = [f for f in group if f in left and PHRASES[kind(f, left[f])]["adjective"]]
        if fields and rng.random() < odds:
            words.append(say(take(left, fields, rng), "adjective", rng))
    return " ".join(["a", *words, left.pop("Type")])


def opening(name: str, left: Meaning, rng: Random) -> str:
    details = [f for f in DETAILS if f in left]

    def fits(template: str) -> bool:
        return (
            ("{np}" not in template or "Type" in left)
            and ("{place}" not in template or "area" in left or "near" in left)
            and ("{food}" not in template or "food" in left)
            and sum(slot in template for slot in ("{food}", "{noun}", "{verb}")) <= len(details)
        )

    template = rng.choice([t for t in OPENINGS if fits(t)])
    slots = {"name": name}
    if "{food}" in template:
        slots["food"] = left.pop("food")
    for form in "noun", "verb":
        if f"{{{form}}}" in template:
            slots[form] = say(take(left, [f for f in DETAILS if f in left], rng), form, rng)
    if "{np}" in template:
        slots["np"] = noun_phrase(left, rng)
    if "{place}" in template:
        slots["place"] = place(left, rng)
    return template.format(**slots)


def sentence(facts: list[Fact], subject: str, rng: Random) -> str:
    """One sentence about one to three facts."""
    merits = [MERITS.get(field, {}).get(value, 0) for field, value in facts]
    joint = "but" if len(facts) == 2 and merits[0] * merits[1] < 0 else "and"
    if len(facts) < 3 and rng.random() < 0.4:
        return f" , {joint} ".join(say(fact, "clause", rng) for fact in facts)
    verbs = [say(fact, "verb", rng) for fact in facts]
    if all(verb.startswith("has ") for verb in verbs):
        verbs[1:] = [verb.removeprefix("has ") for verb in verbs[1:]]
    *head, last = verbs
    return f"{subject} {' , '.join(head)} {joint} {last}" if head else f"{subject} {last}"


def describe(meaning: Meaning, rng: Random) -> str:
    """One reference: one to three sentences that say every field of the meaning once."""
    left = dict(meaning)
    sentences = [opening(left.pop("name"), left, rng)]
    subject = "it"
    if "Type" in left:
        left["Type"] = noun_phrase(left, rng)
    elif "Type" in meaning:
        subject = rng.choice(["it", "it", f"the {meaning['Type']}"])
    if "area" in left or "near" in left:
        left["place"] = place(left, rng)
    facts = list(left.items())
    rng.shuffle(facts)
    facts.sort(key=lambda fact: fact[0] != "Type")  # what it is comes before what it is like
    cut = len(facts) // 2 if len(facts) > 3 or rng.random() < 0.4 else 0
    if cut:
        sentences.append(sentence(facts[:cut], subject, rng))
        subject = "it"
    if facts:
        sentences.append(sentence(facts[cut:], subject, rng))
    return finish(sentences)


def finish(sentences: list[str]) -> str:
    """Capitals, full stops, a or an, and the blank that ends every line of the E2E files."""
    text = "".join(f"{s[0].upper()}{s[1:]} . " for s in sentences)
    # Not before u: "a university quarter bistro".
    return re.sub(r"\b([Aa]) (?=[aeioAEIO])", r"\1n ", text)


def draw_meaning(names: list[str], landmarks: list[str], rng: Random) -> Meaning:
    values = {"name": names, **VALUES, "near": landmarks}
    chosen = rng.sample(FIELDS[1:], rng.choice(FIELD_COUNTS) - 1)
    return {f: rng.choice(values[f]) for f in FIELDS if f == "name" or f in chosen}


def draw_references(meaning: Meaning, count: int, rng: Random) -> list[str]:
    texts: list[str] = []
    while len(texts) < count:
        text = describe(meaning, rng)
        if text not in texts:
            texts.append(text)
    return texts


def generate(seed: int) -> dict[str, str]:
    """The text of each file, by file name."""
    rng = Random(seed)
    names = [f"The {a} {b}" for a, b in itertools.product(SIGNS.split(), THINGS.split())]
    names += [f"{a} {b}" for a, b in itertools.product(PLANTS.split(), ROOMS.split())]
    landmarks = [f"{a} {b}" for a, b in itertools.product(PLACES.split(), SIGHTS.split())]
    rng.shuffle(names)
    rng.shuffle(landmarks)
    files, seen = {}, set()
    for file, inputs, n_names, n_landmarks, reference_counts in SPLITS:
        own_names, names = names[:n_names], names[n_names:]
        own_landmarks, landmarks = landmarks[:n_landmarks], landmarks[n_landmarks:]
        lines = []
        while inputs:
            meaning = draw_meaning(own_names, own_landmarks, rng)
            # Inputs that differ in their names alone would leak from one split to another.
            combination = tuple((f, v) for f, v in meaning.items() if f not in ("name", "near"))
            if combination in seen:
                continue
            seen.add(combination)
            inputs -= 1
            source = " | ".join(f"{f} : {v}" for f, v in meaning.items())
            texts = draw_references(meaning, rng.choice(reference_counts), rng)
            lines += [f"{source}||{text}\n" for text in texts]
        files[file] = "".join(lines)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for file, text in generate(args.seed).items():
        (args.out / file).write_bytes(text.encode())


if __name__ == "__main__":
    main()
