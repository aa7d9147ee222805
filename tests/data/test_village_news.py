"""The village news: what any seed must keep to."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FOLDER = Path(__file__).parents[2] / "data" / "village_news"
SIZES = {"train": 2000, "val": 200, "test": 200}


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("village_news", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = load_generator()
WHO = re.compile(r"(\w+ \w+) (\w+(?: away| apart)?) the (\w+ \w+) in (\w+) \.")
WHEN = re.compile(r"on (\w+) the (\w+ \w+) in (\w+) was (\w+(?: away| apart)?) by a (\w+) \.")


def check(files: dict[str, str]) -> None:
    names: dict[str, set[str]] = {}
    things: dict[str, set[str]] = {}
    for split, size in SIZES.items():
        assert files[f"who/{split}.source"] == files[f"when/{split}.source"]
        parts = [files[f"who/{split}.source"], files[f"who/{split}.target"]]
        parts.append(files[f"when/{split}.target"])
        rows = list(zip(*(part.removesuffix("\n").split("\n") for part in parts), strict=True))
        assert len(rows) == size
        names[split], things[split] = set(), set()
        for source, who, when in rows:
            first, second = WHO.fullmatch(who), WHEN.fullmatch(when)
            assert first, who
            assert second, when
            name, did, thing, place = first.groups()
            day, same_thing, same_place, done, role = second.groups()
            assert (thing, place) == (same_thing, same_place)
            # Everything that a summary says is in the article.
            for fact in (name, f"{did} the {thing}", place, day, role, rf"be(en)? {done}"):
                assert re.search(rf"\b{fact}\b", source), (fact, source)
            assert 3 <= source.count(" .") <= 5
            names[split].add(name)
            things[split].add(thing)
    for one, other in combinations(SIZES, 2):
        assert not names[one] & names[other]
        assert not things[one] & things[other]
    words = {split: set(files[f"who/{split}.source"].split()) for split in SIZES}
    targets = {word for file in files if file.endswith("target") for word in files[file].split()}
    assert words["val"] | words["test"] <= words["train"]
    assert len(words["train"] | targets) < 400


@settings(max_examples=5, deadline=None)
@given(st.integers(min_value=0, max_value=2**32))
def test_any_seed_keeps_the_invariants(seed: int) -> None:
    check(GENERATOR.generate(seed))


def test_the_command_writes_the_same_every_time(tmp_path: Path) -> None:
    for folder, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        command = [sys.executable, FOLDER / "generate.py", "--out", tmp_path / folder]
        subprocess.run([*command, "--seed", seed], check=True)
    files = GENERATOR.generate(0)
    check(files)
    written = {
        path.relative_to(tmp_path / "a").as_posix(): path.read_bytes().decode()
        for path in (tmp_path / "a").rglob("*.*")
    }
    assert written == files
    for name in files:
        content = [(tmp_path / folder / name).read_bytes() for folder in "abc"]
        assert content[0] == content[1]
        assert content[0] != content[2]


def test_readme_shows_a_true_example() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    files = GENERATOR.generate(0)
    for name in ("who/test.source", "who/test.target", "when/test.target"):
        assert files[name].split("\n")[1] in readme


@pytest.mark.parametrize(("past", "participle"), GENERATOR.DEEDS)
def test_a_deed_has_its_own_participle(past: str, participle: str) -> None:
    irregular = {
        "drew": "drawn",
        "stole": "stolen",
        "chose": "chosen",
        "hid": "hidden",
        "gave away": "given away",
        "took apart": "taken apart",
    }
    assert participle == irregular.get(past, past)
