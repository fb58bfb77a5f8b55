"""The log of cases names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
LOG = (TESTS / "cases" / "README.md").read_text(encoding="utf-8")
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def rows() -> list[list[str]]:
    """Case, what was found, and the tests that hold it, of every line."""
    cells = [line.strip("| ").split(" | ") for line in LOG.splitlines() if line.startswith("|")]
    return [row for row in cells if row[0] not in ("case", "---")]


def names_in(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_case_names_a_test_and_every_test_is_there():
    assert len(rows()) > 20
    for case, _, held_by in rows():
        found = TEST.findall(held_by)
        assert found, case
        assert TEST.sub("", held_by).strip(", ") == "", case
        for file, name in found:
            assert name in names_in(file), f"{case}: {file} has no {name}"


def test_no_case_stands_twice():
    cases = [row[0] for row in rows()]
    assert len(set(cases)) == len(cases)
