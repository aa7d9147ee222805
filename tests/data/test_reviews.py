"""The reviews: as their generator writes them, and divided as their README says."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from types import ModuleType

import pytest
from conftest import ROOT

from ptuning_v2.tasks.glue.dataset import read_glue

FOLDER = ROOT / "data" / "reviews"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reviews_generate", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_are_what_the_generator_writes(generator: ModuleType) -> None:
    for file, text in generator.generate(0).items():
        assert (FOLDER / file).read_bytes() == text.encode()


def test_files_share_only_the_words_of_the_patterns(generator: ModuleType) -> None:
    words = {}
    for file, count in (("train.tsv", 400), ("dev.tsv", 200)):
        rows = read_glue("sst2", FOLDER / file)
        assert Counter(row.label for row in rows) == {0: count // 2, 1: count // 2}
        texts = [row.pairs[0][0] for row in rows]
        assert len(set(texts)) == count
        words[file] = Counter(word for text in texts for word in re.findall("[a-z]+", text))
    patterns = [*generator.SUBJECTS, *generator.DEGREES, *generator.PLAIN]
    patterns += [*generator.TURNED, *generator.CONTRASTS]
    of_patterns = set(re.findall("[a-z]+", re.sub("{.*?}", "", " ".join(patterns))))
    assert words["train.tsv"].keys() & words["dev.tsv"].keys() <= of_patterns
