"""The restaurant descriptions: the committed files, and what any seed must keep to."""

import importlib.util
import re
import subprocess
import sys
from itertools import combinations, groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FOLDER = Path(__file__).parents[2] / "data" / "restaurants"
SPLITS = {"src1_train.txt": 680, "src1_valid.txt": 60, "src1_test.txt": 60}
FOODS = """English French Italian Spanish Greek Turkish Lebanese Indian Thai Chinese Japanese
    Korean Vietnamese Mexican vegetarian vegan"""
FIELDS = ["name", "Type", "food", "price", "customer rating", "area", "family friendly", "near"]

# What in a lower-cased text says which value, apart from the generator's own tables: a text must
# match its own value of a field and no other, and none where the field is absent.
WORDS = {
    "Type": ["restaurant", "pub", "coffee shop", "bistro", "tea room"],
    "food": FOODS.split(),
    "area": ["city centre", "riverside", "old town", "harbour", "university quarter", "west end"],
}
SAID = {field: {word: rf"\b{word.lower()}\b" for word in words} for field, words in WORDS.items()}
SAID |= {
    "price": {
        "less than £ 20": r"less than £ 20\b",
        "£ 20 - 25": r"£ 20 - 25\b",
        "more than £ 30": r"more than £ 30\b",
        "cheap": r"\bcheap\b|\blow price|\bprices? (range )?(is|are) low\b",
        "moderate": r"\bmoderate(ly)? price|\bprices? (range )?(is|are) moderate\b",
        "high": r"\bexpensive\b|\bhigh price|\bprices? (range )?(is|are) high\b",
    },
    "customer rating": {
        "low": r"\blow (customer )?rating|\brating is low\b|\bpoorly\b",
        "average": r"\baverage (customer )?rating|\brating is average\b|\bas average\b|\baveragely",
        "high": r"\bhigh (customer )?rating|\brating is high\b|\bhighly\b",
        "1 out of 5": r"\b1 (out of 5|- star)\b",
        "3 out of 5": r"\b3 (out of 5|- star)\b",
        "5 out of 5": r"\b(?<!out of )5 (out of 5|- star)\b",
    },
    "family friendly": {
        "yes": r"(?<!not )family - friendly|\bchild - friendly|\bwelcomes families|are welcome\b"
        r"|\bfor families\b",
        "no": r"\bnot family - friendly|\bnot welcome\b|n't welcome\b|\badults",
    },
}


def load_generator():
    spec = importlib.util.spec_from_file_location("restaurants", FOLDER / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = load_generator()


def parse(text: str) -> list[tuple[dict[str, str], list[str]]]:
    """The inputs of a file in order, each with its references."""
    assert text.endswith("\n")
    pairs = []
    for line in text.removesuffix("\n").split("\n"):
        assert line.count("||") == 1
        pairs.append(line.split("||"))
    groups = [(source, [t for _, t in group]) for source, group in groupby(pairs, lambda p: p[0])]
    assert len({source for source, _ in groups}) == len(groups)  # references are contiguous
    return [(dict(f.split(" : ") for f in source.split(" | ")), ts) for source, ts in groups]


def check_meaning(meaning: dict[str, str]) -> None:
    assert list(meaning) == [field for field in FIELDS if field in meaning]
    assert "name" in meaning
    assert 3 <= len(meaning) <= 8
    for field in meaning.keys() & SAID.keys():
        assert meaning[field] in SAID[field]


def check_reference(meaning: dict[str, str], text: str) -> None:
    # The form: words and marks between single blanks, one to three sentences.
    assert text.endswith(" . ")
    assert not text.endswith("  ")
    assert re.fullmatch(r"((\w+|'s|n't|[.,£-]) )+", text)
    sentences = text.removesuffix(" . ").split(" . ")
    assert 1 <= len(sentences) <= 3
    assert all(sentence[0].isupper() for sentence in sentences)
    assert not re.search(r"\ba [aeio]|\ban [^aeio]", text.lower())
    # The content: everything the meaning says, once for the names, and nothing besides.
    for field in meaning.keys() & {"name", "near"}:
        assert text.count(meaning[field]) == 1
        text = text.replace(meaning[field], "")
    for field, patterns in SAID.items():
        said = [value for value, pattern in patterns.items() if re.search(pattern, text.lower())]
        assert said == ([meaning[field]] if field in meaning else []), (field, text)


def check(files: dict[str, str]) -> None:
    assert list(files) == list(SPLITS)
    splits = {file: parse(text) for file, text in files.items()}
    for file, inputs in splits.items():
        assert len(inputs) == SPLITS[file]
        for meaning, references in inputs:
            check_meaning(meaning)
            assert (2 if file == "src1_train.txt" else 3) <= len(references) <= 5
            assert len(set(references)) == len(references)
            for text in references:
                check_reference(meaning, text)
    for one, other in combinations(splits.values(), 2):
        for keys in ["name"], ["near"], FIELDS[1:-1]:
            seen = {tuple(meaning.get(key) for key in keys) for meaning, _ in one}
            found = {tuple(meaning.get(key) for key in keys) for meaning, _ in other}
            assert not (seen & found) - {(None,)}


@pytest.fixture(scope="module")
def committed() -> dict[str, str]:
    return {file: (FOLDER / file).read_bytes().decode() for file in SPLITS}


def test_generator_writes_the_committed_files(tmp_path):
    command = [sys.executable, FOLDER / "generate.py", "--out", tmp_path / "new"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(SPLITS)
    for file in SPLITS:
        assert (tmp_path / "new" / file).read_bytes() == (FOLDER / file).read_bytes()


def test_committed_files(committed):
    check(committed)


def test_size(committed):
    assert committed["src1_train.txt"].count("\n") >= 2000
    assert sum(len(text.encode()) for text in committed.values()) < 600_000
    lengths = [len(t.split()) for text in committed.values() for _, ts in parse(text) for t in ts]
    assert 20 <= sum(lengths) / len(lengths) <= 30


def test_readme_states_the_counts(committed):
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for file, text in committed.items():
        assert f"| `{file}` | {len(parse(text))} | {text.count(chr(10)):,} |" in readme


@settings(max_examples=6, deadline=None)
@given(st.integers(min_value=0, max_value=2**32))
def test_any_seed_keeps_the_invariants(seed):
    check(GENERATOR.generate(seed))


def test_seeds_differ(committed):
    assert GENERATOR.generate(0) == committed
    assert GENERATOR.generate(1) != committed
