"""The script that mutates the code, on small sources."""

from __future__ import annotations

import builtins

import pytest

from prefix_tuning.errors import UserError
from scripts.mutants import is_python, mutants_of
from scripts.mutate import draw, parse_args, relevant
from scripts.reached import recording

SOURCE = '''"""A module."""

from __future__ import annotations

LIMIT = -100


def f(x: int, y: str = "é") -> float:
    """Says 1 < 2."""
    if x < LIMIT and not y:
        raise ValueError("too small, 3")
    return g(x, mode="b", scale=x + 1).eval()
'''


def test_mutants_are_small_changes_of_what_is_computed() -> None:
    found = {(m.old.strip(), m.new.strip()) for m in mutants_of("a.py", SOURCE)}
    condition, value = "if x < LIMIT and not y:", 'return g(x, mode="b", scale=x + 1).eval()'
    for old, new in (
        ("LIMIT = -100", "LIMIT = (100)"),
        (condition, "if x <= LIMIT and not y:"),
        (condition, "if x < LIMIT or not y:"),
        (condition, "if x < LIMIT and (y):"),
        ('raise ValueError("too small, 3")', "pass"),
        (value, "return g(x,  scale=x + 1).eval()"),
        (value, 'return g(x, mode="b", scale=x - 1).eval()'),
        (value, 'return g(x, mode="b", scale=x + 1)'),
        ('def f(x: int, y: str = "é") -> float:', 'def f(x: int, y: str = "XXé") -> float:'),
    ):
        assert (old, new) in found, new
    assert not any('"""' in old or "too small, 4" in new for old, new in found)
    assert all(is_python(m.changed) for m in mutants_of("a.py", SOURCE))
    assert not is_python("return return")
    raising = next(m for m in mutants_of("a.py", SOURCE) if m.new.strip() == "pass")
    assert "-        raise ValueError" in raising.diff()
    assert "+        pass" in raising.diff()


def test_reached_statements_choose_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    hits: set[tuple[str, int]] = set()
    monkeypatch.setattr(builtins, "reached", hits.add, raising=False)
    namespace: dict = {"g": lambda x, **options: 1.0}
    exec(recording("a.py", SOURCE.replace(".eval()", "")), namespace)
    assert namespace["f"].__doc__ == "Says 1 < 2."
    assert hits == set()
    assert namespace["f"](3) == 1.0
    assert hits == {("a.py", 10), ("a.py", 12)}
    tests = {
        "slow": {"seconds": 9.0, "lines": {"a.py": [10, 12]}},
        "fast": {"seconds": 1.0, "lines": {"a.py": [10, 11]}},
        "other": {"seconds": 0.1, "lines": {"b.py": [10]}},
    }
    (raising,) = [m for m in mutants_of("a.py", SOURCE) if m.new.strip() == "pass"]
    (limit,) = [m for m in mutants_of("a.py", SOURCE) if m.new == "LIMIT = (100)"]
    assert relevant(raising, tests, 100) == ["fast"]
    assert relevant(limit, tests, 100) == ["fast", "slow"]
    assert relevant(limit, tests, 5) == ["fast"]


def test_what_is_drawn_depends_on_the_seed_alone() -> None:
    given = ["harness/text.py", "--number", "3"]
    drawn = [draw(parse_args([*given, "--seed", seed])) for seed in ("1", "1", "2")]
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(UserError, match="name files or folders within"):
        draw(parse_args(["tests"]))
