"""Writes the restaurant descriptions: a small data-to-text set in the layout of the E2E data.

    python data/restaurants/generate.py [--out FOLDER] [--seed 0]

A meaning representation is a few fields of a restaurant. A reference says all of them: an opening
sentence takes the fields its template has slots for, up to two further sentences take the rest.
"""

import argparse
import itertools
import json
import re
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
GRAMMAR = json.loads((HERE / "grammar.json").read_text(encoding="utf-8"))
"""Values of fields, parts of names, and what is said of them; "a" stands for a or an.

``phrases`` has each kind of value as an adjective, after "with" or "has", after a subject, and as a
sentence. Facts whose ``merits`` differ are joined by "but".
"""
PHRASES, MERITS = GRAMMAR["phrases"], GRAMMAR["merits"]
FIELDS = "name", "Type", "food", "price", "customer rating", "area", "family friendly", "near"
DETAILS = "food", "price", "customer rating", "family friendly"
FIELD_COUNTS = 3, 3, 4, 4, 4, 4, 5, 5, 6, 7, 8
"""Drawn evenly: a count that stands twice is twice as frequent."""
SPLITS = [
    ("src1_train.txt", 680, 400, 120, (2, 2, 2, 3, 3, 4, 5)),
    ("src1_valid.txt", 60, 60, 30, (3, 3, 4)),
    ("src1_test.txt", 60, 60, 30, (3, 3, 4)),
]
"""File, inputs, restaurant names, landmarks, references of an input."""

Meaning = dict[str, str]  # field -> value
Fact = tuple[str, str]

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
    field, value = fact
    inflections = GRAMMAR["inflections"].get(field, {}).get(value, {})
    return rng.choice(phrases).format(value=value, **inflections)


def take(left: Meaning, fields: list[str], rng: Random) -> Fact:
    field = rng.choice(fields)
    return field, left.pop(field)


def place(left: Meaning, rng: Random) -> str:
    parts = []
    if "area" in left:
        parts.append(rng.choice(GRAMMAR["areas"][left.pop("area")]))
    if "near" in left:
        parts.append(f"{rng.choice(GRAMMAR['near'])} {left.pop('near')}")
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

    template = rng.choice([t for t in GRAMMAR["openings"] if fits(t)])
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
    values = {"name": names, **GRAMMAR["values"], "near": landmarks}
    chosen = rng.sample(FIELDS[1:], rng.choice(FIELD_COUNTS) - 1)
    return {f: rng.choice(values[f]) for f in FIELDS if f == "name" or f in chosen}


def draw_references(meaning: Meaning, count: int, rng: Random) -> list[str]:
    texts: list[str] = []
    while len(texts) < count:
        text = describe(meaning, rng)
        if text not in texts:
            texts.append(text)
    return texts


def _pairs(first: str, last: str) -> list[str]:
    return [f"{a} {b}" for a, b in itertools.product(GRAMMAR[first], GRAMMAR[last])]


def generate(seed: int) -> dict[str, str]:
    """The text of each file, by file name."""
    rng = Random(seed)
    names = [f"The {name}" for name in _pairs("signs", "things")] + _pairs("plants", "rooms")
    landmarks = _pairs("places", "sights")
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
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is drawn")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for file, text in generate(args.seed).items():
        (args.out / file).write_bytes(text.encode())


if __name__ == "__main__":
    main()
