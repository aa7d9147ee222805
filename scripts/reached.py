"""Which statements a test reaches, for ``scripts/mutate.py``: cheaper than a trace."""

from __future__ import annotations

import ast
import builtins
from typing import Any

Reached = dict[str, dict[str, Any]]
"""Test -> ``seconds``, and by file the ``lines`` that it reaches."""


class Recorder:
    """A pytest plugin: which statements every test reaches, and how long it takes."""

    def __init__(self) -> None:
        self.tests: Reached = {}
        self.hits: set[tuple[str, int]] = set()
        builtins.reached = self.hits.add  # type: ignore[attr-defined]

    def pytest_runtest_logstart(self) -> None:
        """Before the fixtures of a test."""
        self.hits.clear()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """After set-up, call and tear-down of a test."""
        test = self.tests.setdefault(report.nodeid, {"seconds": 0.0, "passed": False})
        test["seconds"] += report.duration
        if report.when == "call":
            test["passed"] = report.outcome == "passed"
        if report.when == "teardown":
            test["lines"] = {}
            for name, line in sorted(self.hits):
                test["lines"].setdefault(name, []).append(line)


class _Recording(ast.NodeTransformer):
    def __init__(self, path: str) -> None:
        self.path = path

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, ast.Module | ast.ClassDef):
            return node
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if isinstance(body, list):
                parts = [part for child in body for part in (*self.hit(child), child)]
                setattr(node, name, parts)
        return node

    def hit(self, child: ast.stmt) -> list[ast.stmt]:
        """A call that tells that a statement is reached; none before a docstring."""
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            return []
        return ast.parse(f"_reached(({self.path!r}, {child.lineno}))").body


def recording(path: str, source: str) -> str:
    """The same module, which gives what it reaches to ``builtins.reached`` if there is such."""
    tree = _Recording(path).visit(ast.parse(source))
    first = 1 if ast.get_docstring(tree) is not None else 0
    for number, node in enumerate(tree.body):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            first = number + 1
    start = "import builtins; _reached = getattr(builtins, 'reached', lambda at: None)"
    tree.body[first:first] = ast.parse(start).body
    return ast.unparse(ast.fix_missing_locations(tree))
