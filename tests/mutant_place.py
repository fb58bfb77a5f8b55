"""A change of one place of the package, found by symbol and syntax tree, not by its text.

A mutant names a room (a folder or file of the package), a symbol in it, a kind of syntax node, and
which of those nodes of the symbol, outermost and first of all first. Moving the symbol to another
file of the room, renaming what it uses, and reformatting it leave the mutant where it is.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "blockviz"


@dataclass(frozen=True)
class Mutant:
    """The `nth` `node` of `symbol` becomes `new`: source in which `_` is the old node.

    `_.left` is its left operand, `_.body` the statements of its body: any field of its syntax node.
    """

    room: str
    symbol: str
    node: str
    nth: int
    new: str

    def __str__(self) -> str:
        return f"{self.room}:{self.symbol}:{self.node}{self.nth}: {self.new}"


class Stale(AssertionError):
    """The place that a mutant names is not there, or not there once."""


@dataclass(frozen=True)
class Place:
    """Where a mutant changes what: `first` and `last` are lines of the file, counted from 1."""

    file: Path
    first: int
    last: int
    text: str


def placed(mutant: Mutant, package: Path = PACKAGE) -> Place:
    """The changed text of the file that holds the mutant's symbol."""
    found = [
        (file, symbol)
        for file in room_files(mutant.room, package)
        for symbol in symbols(ast.parse(file.read_text("utf-8")), mutant.symbol)
    ]
    if len(found) != 1:
        raise Stale(f"{mutant} is stale: its symbol is there {len(found)} times")
    ((file, symbol),) = found
    nodes = [n for n in outermost_first(symbol) if type(n).__name__ == mutant.node]
    if mutant.nth >= len(nodes):
        raise Stale(f"{mutant} is stale: there are {len(nodes)} {mutant.node} nodes")
    old = nodes[mutant.nth]
    lines = file.read_text("utf-8").splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode("utf-8")))
    data = "".join(lines).encode("utf-8")
    start = starts[old.lineno - 1] + old.col_offset
    end = starts[old.end_lineno - 1] + old.end_col_offset
    text = (data[:start] + replacement(mutant.new, old).encode("utf-8") + data[end:]).decode(
        "utf-8"
    )
    ast.parse(text)
    return Place(file, old.lineno, old.end_lineno, text)


def room_files(room: str, package: Path = PACKAGE) -> list[Path]:
    """The Python files of a folder of the package, or the one file of that name.

    `stats/lens` is one file of a room, for a name that the room has twice."""
    return sorted((package / room).rglob("*.py")) or [package / f"{room}.py"]


def symbols(tree: ast.AST, name: str, inside: str = "") -> Iterator[ast.AST]:
    """The functions and classes of this qualified name."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            full = f"{inside}{child.name}"
            if full == name:
                yield child
            yield from symbols(child, name, f"{full}.")
        else:
            yield from symbols(child, name, inside)


def outermost_first(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node below, parents before their children, in the order of the source."""
    for child in ast.iter_child_nodes(tree):
        yield child
        yield from outermost_first(child)


def replacement(new: str, old: ast.AST) -> str:
    """The source of `new` with the fields of `old` put in."""
    made = _Filled(old).visit(ast.parse(new))
    text = ast.unparse(ast.fix_missing_locations(made))
    if isinstance(old, ast.stmt):
        return textwrap.indent(text, " " * old.col_offset).lstrip()
    return f"({text})"


class _Filled(ast.NodeTransformer):
    def __init__(self, old: ast.AST) -> None:
        self._old = old

    def visit(self, node: ast.AST) -> ast.AST | list[ast.stmt]:
        field = self._field(node.value if isinstance(node, ast.Expr) else node)
        if field is None:
            return self.generic_visit(node)
        is_statement = isinstance(node, ast.Expr) and isinstance(field, ast.expr)
        return ast.Expr(field) if is_statement else field

    def _field(self, node: ast.AST) -> ast.AST | list | None:
        """What `_`, `_.left` or `_.args[0]` stands for; None for anything else."""
        match node:
            case ast.Name(id="_"):
                return self._old
            case ast.Attribute(value=inner, attr=name):
                holder = self._field(inner)
                return getattr(holder, name, None) if isinstance(holder, ast.AST) else None
            case ast.Subscript(value=inner, slice=ast.Constant(value=int(index))):
                holder = self._field(inner)
                return holder[index] if isinstance(holder, list) else None
        return None
