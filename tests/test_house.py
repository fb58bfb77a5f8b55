"""The state of the checkout itself: what lies where, pinned versions, licence, own text."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TOP_LEVEL = {
    *(".ci", ".dockerignore", ".gitattributes", ".gitignore", "Dockerfile", "LICENSE", "Makefile"),
    *("README.md", "app.py", "assets", "blockviz", "pyproject.toml", "requirements.txt", "tests"),
}
TEXT = {".py", ".md", ".toml", ".txt", ".js", ".css", ".json", ".jsonl", ".html", ".svg", ""}
# Import name -> name on the index, where they differ.
DISTRIBUTION: dict[str, str] = {}


def tracked() -> list[Path]:
    """The files of the checkout; before the first commit, those that are not ignored."""

    def listed(*options: str) -> list[Path]:
        command = ["git", "ls-files", "-z", *options]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("not a git checkout")
        return [Path(name) for name in done.stdout.split("\0") if name and (ROOT / name).exists()]

    return listed() or listed("--others", "--exclude-standard")


def texts() -> dict[Path, str]:
    files = [f for f in tracked() if f.suffix in TEXT or f.parts[0] == ".ci"]
    return {f: (ROOT / f).read_text(encoding="utf-8") for f in files}


def requirements() -> dict[str, str]:
    """Name -> version of every pinned requirement, in either part of the file."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+==[0-9][0-9.]*", pin) for pin in pins), pins
    return dict(pin.split("==") for pin in pins)


def declared() -> dict[str, str]:
    """Name -> range of every dependency in pyproject.toml, those for tests included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return {re.split(r"[<>=]", line)[0]: line for line in lines}


def test_the_top_level_holds_the_agreed_entries_only():
    assert {f.parts[0] for f in tracked()} - TOP_LEVEL == set()


def test_the_two_lists_of_dependencies_agree():
    pinned, ranges = requirements(), declared()
    assert pinned.keys() == ranges.keys()
    for name, line in ranges.items():
        version = [int(n) for n in pinned[name].split(".")]
        for sign, bound in re.findall(r"(>=|<)([0-9.]+)", line):
            other = [int(n) for n in bound.split(".")]
            assert version >= other if sign == ">=" else version < other, (line, pinned[name])


def test_every_requirement_says_what_it_is_there_for():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    for before, line in pairwise(lines):
        if "==" in line:
            assert before.startswith("# ") and before.endswith("."), line


def test_every_package_that_is_imported_is_required():
    found: dict[str, str] = {}
    for file in (ROOT / "blockviz").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                is_absolute = isinstance(node, ast.ImportFrom) and node.level == 0
                names = [node.module] if is_absolute else []
            found |= {name.split(".")[0]: file.name for name in names}
    foreign = found.keys() - sys.stdlib_module_names - {"blockviz"}
    assert {DISTRIBUTION.get(name, name) for name in foreign} <= requirements().keys(), found


def test_no_file_names_a_place_on_somebody_s_machine():
    places = "|".join(("work", "tmp", "root", "Users", "mnt"))
    pattern = re.compile(rf"(?<![\w.$}}/-])/(?:{places})/")
    bad = [
        f"{file}:{number}"
        for file, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert bad == []


def test_no_file_speaks_of_how_it_came_about():
    documents = "|".join(("DESIGN", "STYLE", "METHODS", "UX"))
    pattern = re.compile(rf"\b(?:{documents})(?:\.md)? (?:section )?\d|\b(?:{documents})\.md\b")
    bad = [str(file) for file, text in texts().items() if pattern.search(text)]
    assert bad == []


def test_set_up_names_no_host():
    files = [ROOT / name for name in ("Makefile", "Dockerfile", "requirements.txt")]
    for file in [*files, *(ROOT / ".ci").glob("*.*"), ROOT / ".ci/run", ROOT / ".ci/setup"]:
        assert re.findall(r"https?://(?!127\.0\.0\.1)\S+", file.read_text()) == [], file.name


def test_the_licence_is_apache_2():
    text = (ROOT / "LICENSE").read_text()
    assert text.lstrip().startswith("Apache License\n")
    assert "Version 2.0, January 2004" in text
    for number in range(1, 10):
        assert f"\n   {number}. " in text
    assert "END OF TERMS AND CONDITIONS" in text


# -- the text of our own --


def own_rows() -> list[dict[str, str]]:
    lines = (ROOT / "assets/text/own.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_own_text_has_three_parts_of_the_stated_shares():
    rows = own_rows()
    assert all(row.keys() == {"text", "role"} and row["text"].strip() for row in rows)
    words = {role: 0 for role in ("calibration", "selection", "evaluation")}
    for row in rows:
        words[row["role"]] += len(row["text"].split())
    total = sum(words.values())
    assert total > 5500
    shares = [words[role] / total for role in words]
    assert shares == pytest.approx([0.55, 0.15, 0.30], abs=0.04)


def test_the_parts_of_own_text_share_no_eight_words_in_a_row():
    grams: dict[str, set[tuple[str, ...]]] = {}
    for row in own_rows():
        words = row["text"].lower().split()
        runs = zip(*(words[i:] for i in range(8)), strict=False)
        grams.setdefault(row["role"], set()).update(runs)
    assert len(grams) == 3
    parts = list(grams.values())
    for i, one in enumerate(parts):
        for other in parts[i + 1 :]:
            assert one & other == set()
