"""Which tests a run takes, by `--tier`: quick, test (what every change must pass), or all.

A test marked `slow(room, ...)` is the rest of a matrix, whose structural cases stand for it in
every run of `test`. `test` takes it when one of its rooms, its own file or tiny.py differs from
what the last green run of `all` found (their hashes stand in green.json, which `--stamp` writes),
and takes an eighth of the others, another one for each commit. `quick` takes what needs neither a
browser nor a real model, and had no case of more than QUICK_SECONDS then.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PACKAGE = ROOT / "blockviz"
ASSETS = ROOT / "assets"
GREEN = TESTS / "green.json"
TIERS = ("quick", "test", "all")
QUICK_SECONDS = 0.15
TURNS = 8


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tier", choices=TIERS, default="all", help=__doc__.splitlines()[0])
    parser.addoption("--stamp", action="store_true", help="write green.json if nothing fails")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "slow(room, ...): the rest of a matrix; `make test` takes it when a room changed"
    )
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    is_whole = is_whole and not (config.option.keyword or config.option.markexpr)
    if config.getoption("--stamp") and is_whole and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Stamp(), "stamp")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tier, green = config.getoption("--tier"), last_green()
    if tier == "quick":
        taken = _is_quick(set(green["long"]))
    elif tier == "test":
        taken = _is_due(green["rooms"], commit())
    else:
        return
    left = [item for item in items if not taken(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if taken(item)]


def last_green() -> dict[str, Any]:
    """`rooms`: room or file of tests -> hash; `long`: test functions with a long case."""
    if not GREEN.exists():
        return {"rooms": {}, "long": []}
    return json.loads(GREEN.read_text("utf-8"))


def _is_quick(long: set[str]) -> Callable[[pytest.Item], bool]:
    def taken(item: pytest.Item) -> bool:
        is_apart = any(item.get_closest_marker(name) for name in ("browser", "network", "slow"))
        return not is_apart and function_of(item.nodeid) not in long

    return taken


def _is_due(green: dict[str, str], commit: str) -> Callable[[pytest.Item], bool]:
    now = hashes()
    changed = {name for name, value in now.items() if green.get(name) != value}
    turn = int(commit[:8], 16) % TURNS

    def taken(item: pytest.Item) -> bool:
        mark = item.get_closest_marker("slow")
        if mark is None or {*mark.args, file_of(item.nodeid), "tiny.py"} & changed:
            return True
        return zlib.crc32(item.nodeid.encode()) % TURNS == turn

    return taken


def function_of(node_id: str) -> str:
    return node_id.split("[")[0]


def file_of(node_id: str) -> str:
    return node_id.split("::")[0].rsplit("/", 1)[-1]


def hashes() -> dict[str, str]:
    """Of every room of the package, the bundled data, what sets up, and every file of tests."""
    files: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in (".py", ".js", ".css"):
            room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
            files.setdefault(room, []).append(path)
    files["assets"] = sorted(path for path in ASSETS.rglob("*.json*"))
    files["setup"] = [*sorted(path for path in (ROOT / ".ci").iterdir() if path.is_file()),
                      ROOT / "Makefile", ROOT / "requirements.txt"]  # fmt: skip
    files |= {path.name: [path] for path in sorted(TESTS.rglob("*.py"))}
    return {name: _hash(paths) for name, paths in sorted(files.items())}


def _hash(paths: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def commit() -> str:
    """The commit that is checked out; zeros outside a checkout."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "0" * 40
    return done.stdout.strip()


class _Stamp:
    """Writes green.json behind a run that had no failure, where that was asked for."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            name = function_of(report.nodeid)
            self._seconds[name] = max(report.duration, self._seconds.get(name, 0.0))

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus == 0:
            long = sorted(name for name, s in self._seconds.items() if s > QUICK_SECONDS)
            text = json.dumps({"rooms": hashes(), "long": long}, indent=1)
            GREEN.write_text(text + "\n", encoding="utf-8")
