"""The floors of the house, read from the imports of every file, those inside functions too."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

FLOORS = [
    {"prefix_tuning"},
    {"harness", "evaluation", "data"},
    {"gpt2", "seq2seq", "ptuning_v2"},
    {"experiments"},
    {"scripts", "benchmarks"},
]
"""From below. Packages of one floor do not import from each other, except the last."""
HEIGHT = {package: height for height, floor in enumerate(FLOORS) for package in floor}
PUBLIC = {"prefix_tuning.errors", "prefix_tuning.files"}
"""All that evaluation and data may import of the method."""


@cache
def sources() -> dict[str, Path]:
    """Module -> file, of everything but tests."""
    found = {}
    for package in HEIGHT:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def modules_of(node: ast.Import | ast.ImportFrom, module: str) -> set[str]:
    """Those of our own modules that a statement imports."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        above = sources()[module].relative_to(ROOT).parts[: -node.level] if node.level else ()
        base = ".".join([*above, *([node.module] if node.module else [])])
        names = [f"{base}.{alias.name}" for alias in node.names]
        names = [name if name in sources() else base for name in names]
    return {name for name in names if name.split(".")[0] in HEIGHT}


@cache
def nodes(module: str) -> tuple[ast.AST, ...]:
    """The syntax of a module, read once for all tests."""
    return (*ast.walk(ast.parse(sources()[module].read_text(encoding="utf-8"))),)


@cache
def imports(module: str) -> frozenset[str]:
    """What a module imports of the project."""
    statements = [n for n in nodes(module) if isinstance(n, ast.Import | ast.ImportFrom)]
    return frozenset({name for node in statements for name in modules_of(node, module)} - {module})


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Sets of nodes that reach each other."""
    reach: dict[str, set[str]] = {}
    for node in graph:
        seen: set[str] = set()
        waiting = [*graph[node]]
        while waiting:
            other = waiting.pop()
            if other not in seen:
                seen.add(other)
                waiting += graph.get(other, ())
        reach[node] = seen
    groups = {frozenset(o for o in reach[n] if n in reach.get(o, ())) for n in graph}
    return [{*group} for group in groups if group]


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}, "e": set()}
    assert sorted(map(sorted, circles(graph))) == [["b", "c"], ["d"]]


def test_every_package_has_its_floor() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/*.py")} | {"data"}
    assert packages - {"tests"} == HEIGHT.keys()


def test_nothing_needs_a_system() -> None:
    """Modules of the standard library that Windows lacks are imported where they are needed."""
    needed = re.compile(r"^(?:import|from) (?:fcntl|grp|pwd|resource|termios)\b", re.M)
    assert not [m for m, path in sources().items() if needed.search(path.read_text("utf-8"))]


def test_no_circles() -> None:
    assert circles({module: {*imports(module)} for module in sources()}) == []


@pytest.mark.parametrize("package", sorted(HEIGHT))
def test_imports_go_down(package: str) -> None:
    for module in sources():
        if module.split(".")[0] != package:
            continue
        for other in imports(module):
            target = other.split(".")[0]
            assert target == package or HEIGHT[target] < HEIGHT[package], f"{module} -> {other}"


@pytest.mark.parametrize("package", ["evaluation", "data"])
def test_what_scores_and_downloads_need_of_the_method(package: str) -> None:
    for module in sources():
        if module.split(".")[0] == package:
            others = {name for name in imports(module) if name.split(".")[0] != package}
            assert others <= PUBLIC, module


def test_imports_can_be_followed() -> None:
    """No ``importlib`` for our own modules, but for the lazy names of the package itself."""
    for module in {*sources()} - {"prefix_tuning"}:
        called = [node.func for node in nodes(module) if isinstance(node, ast.Call)]
        names = {getattr(func, "id", None) or getattr(func, "attr", None) for func in called}
        assert not names & {"import_module", "__import__"}, module


def test_constructors_read_no_files() -> None:
    """A call that reads says so: ``load``, ``read_...``."""
    reads = re.compile(r"open$|read|load|from_pretrained")
    found = set()
    for module in sources():
        for cls in (node for node in nodes(module) if isinstance(node, ast.ClassDef)):
            for made in (n for n in cls.body if isinstance(n, ast.FunctionDef)):
                if made.name in ("__init__", "__post_init__"):
                    called = [n.func for n in ast.walk(made) if isinstance(n, ast.Call)]
                    names = (getattr(f, "id", None) or getattr(f, "attr", "") for f in called)
                    found |= {(module, cls.name, name) for name in names if reads.match(name)}
    assert found == set()
