"""The changes that ``scripts/mutate.py`` makes: where they are, and what stands there instead."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

COMPARISONS = {
    **{ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="},
    **{ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is"},
}
ARITHMETIC = {
    **{ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*"},
    **{ast.Mod: "//", ast.Pow: "*", ast.BitAnd: "|", ast.BitOr: "&"},
}
NOT_LOOKED_AT = ("help", "description", "epilog", "desc", "unit")
"""Keywords of texts that people read."""
ADVICE = ("print", "UserError", "ValueError", "TypeError", "required", "cast", "warn", "flag")
"""Calls whose texts people read."""


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        path: of the file, within the project.
        source: what is in it.
        start, end: of the code to replace, in characters.
        text: what stands there instead.
        old, new: the first changed line, before and after.
        lines: of the statement, from 1.
        at_import: whether it runs when the module is imported.
    """

    path: str
    source: str
    start: int
    end: int
    text: str
    old: str
    new: str
    lines: range
    at_import: bool

    @property
    def changed(self) -> str:
        """The changed file."""
        return self.source[: self.start] + self.text + self.source[self.end :]

    def diff(self) -> str:
        """The change as people read it."""
        before, after = (t.splitlines(keepends=True) for t in (self.source, self.changed))
        return "".join(difflib.unified_diff(before, after, self.path, self.path, n=2))


class _Finder:
    def __init__(self, source: str) -> None:
        self.source = source
        self.starts = [0]
        for line in source.split("\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.rows = source.split("\n")
        self.found: list[tuple[int, int, str, range, bool]] = []

    def at(self, line: int, column: int) -> int:
        """Characters before a place, whose column is in bytes of UTF-8."""
        return self.starts[line - 1] + len(self.rows[line - 1].encode()[:column].decode())

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Where a node begins and ends."""
        assert isinstance(node, ast.expr | ast.stmt | ast.keyword)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def text(self, node: ast.AST) -> str:
        """The code of a node."""
        start, end = self.span(node)
        return self.source[start:end]

    def between(self, left: ast.AST, right: ast.AST, new: str) -> tuple[int, int, str]:
        """Another operator between two operands, whose parentheses stay."""
        start, end = self.span(left)[1], self.span(right)[0]
        gap = self.source[start:end]
        bare = gap.strip("() \n\t")
        begin = start + gap.index(bare)
        return begin, begin + len(bare), new


def _replacements(finder: _Finder, node: ast.AST) -> Iterator[tuple[int, int, str]]:
    """What may stand instead of an expression, or a part of it."""
    whole = finder.span(node) if isinstance(node, ast.expr | ast.stmt) else (0, 0)
    match node:
        case ast.Compare(left=left, ops=ops, comparators=rights):
            for a, op, b in zip([left, *rights], ops, rights, strict=False):
                yield finder.between(a, b, COMPARISONS[type(op)])
        case ast.BoolOp(op=op, values=values):
            for a, b in pairwise(values):
                yield finder.between(a, b, "or" if isinstance(op, ast.And) else "and")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            yield finder.between(left, right, ARITHMETIC[type(op)])
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield *whole, f"({finder.text(operand)})"
        case ast.Constant(value=bool(value)):
            yield *whole, str(not value)
        case ast.Constant(value=int(value)):
            yield *whole, str(value + 1)
        case ast.Constant(value=float(value)):
            yield *whole, str(value + 1.0)
        case ast.Constant(value=str()) if finder.text(node)[0] in "\"'":
            yield whole[0], whole[0] + 1, finder.text(node)[0] + "XX"
        case ast.IfExp(test=test, body=body, orelse=other):
            yield *whole, f"({finder.text(body)})"
            yield *whole, f"({finder.text(other)})"
        case ast.If(test=test) | ast.While(test=test):
            if not isinstance(test, ast.Compare | ast.UnaryOp):  # these have mutants of their own
                yield *finder.span(test), f"not ({finder.text(test)})"
            yield *finder.span(test), "False"
        case ast.Call(keywords=keywords, args=args) if args or len(keywords) > 1:
            for keyword in keywords:  # an option that is not forwarded
                if keyword.arg and keyword.arg not in NOT_LOOKED_AT:
                    start, end = finder.span(keyword)
                    yield start, _past_comma(finder.source, end), ""
        case ast.Call(func=ast.Attribute(value=value), args=[], keywords=[]):
            yield *whole, finder.text(value)  # a mode, a precision, a copy that is not made
        case ast.Return(value=value) if value is not None and finder.text(value) != "None":
            yield *finder.span(value), "None"
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.AugAssign():
            yield *whole, "pass"
        case ast.Assign(value=value) if finder.text(value) != "None":
            yield *finder.span(value), "None"
        case ast.Break():
            yield *whole, "continue"
        case ast.Continue():
            yield *whole, "break"


def _past_comma(source: str, end: int) -> int:
    rest = source[end:]
    stripped = rest.lstrip()
    return end + len(rest) - len(stripped) + 1 if stripped.startswith(",") else end


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What is looked at within a node: no types, no texts for people, no docstrings."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST):
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue
            if isinstance(child, ast.keyword) and child.arg in NOT_LOOKED_AT:
                continue
            yield child


def _is_for_people(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    name = getattr(function, "id", None) or getattr(function, "attr", None)
    return name in ADVICE


def _visit(finder: _Finder, node: ast.AST, lines: range, at_import: bool) -> None:
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in finder.text(node.test):
        return
    if isinstance(node, ast.stmt):
        body: list[ast.stmt] = getattr(node, "body", [])
        last = body[0].lineno - 1 if body else node.end_lineno
        lines = range(node.lineno, max(last or 0, node.lineno) + 1)
    for start, end, text in _replacements(finder, node):
        finder.found.append((start, end, text, lines, at_import))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for decorator in node.decorator_list:  # gradients, modes, properties
            start, end = finder.span(decorator)
            finder.found.append((start - 1, end, "", lines, True))
    for child in _children(node):
        within = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        below = at_import and not (within and any(child is part for part in _body(node)))
        if not (_is_for_people(node) and isinstance(child, ast.Constant | ast.BinOp)):
            _visit(finder, child, lines, below)


def _body(node: ast.AST) -> list[ast.AST]:
    body = getattr(node, "body", [])
    return body if isinstance(body, list) else [body]


def mutants_of(path: str, source: str) -> list[Mutant]:
    """Every mutant of a file, in its order."""
    finder = _Finder(source)
    _visit(finder, ast.parse(source), range(1, 2), True)
    mutants = []
    for start, end, text, lines, at_import in sorted(finder.found, key=lambda f: f[:3]):
        changed = source[:start] + text + source[end:]
        number = source.count("\n", 0, start)
        old, new = finder.rows[number], changed[finder.starts[number] :].split("\n", 1)[0]
        mutants.append(Mutant(path, source, start, end, text, old, new, lines, at_import))
    return mutants


def is_python(code: str) -> bool:
    """Whether it can be compiled."""
    try:
        compile(code, "", "exec")
    except (SyntaxError, ValueError):
        return False
    return True
