"""Which mutants of mutants.py a selection of the tests kills; goes on where it was stopped.

    python tests/run_mutants.py again
    python tests/run_mutants.py contexts --name test -- -n 2 --tier test
    python tests/run_mutants.py kill --name test

`again` meets each mutant with the test that killed it before (mutant_killers.json), from the first
one on. `contexts` runs the tests that pytest selects with the words behind `--` and
writes down which test executes which line. `kill` runs, for each mutant, the tests that execute its
line in a copy of the tree that has it, quickest first, until one fails, and adds the killers to
mutant_killers.json. What is measured stands in build/mutation. `--tree` names another checkout,
whose tests and package are taken in place of this one's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mutant_place import Mutant, placed
from mutants import MUTANTS

HERE = Path(__file__).parents[1]
OUT = HERE / "build" / "mutation"
KILLERS = HERE / "tests" / "mutant_killers.json"
# A mutant that makes its tests this many times slower, and this many seconds beside, hangs.
HANGS_TIMES, HANGS_SECONDS = 5, 90
# So many of the quickest tests go ahead of all others.
FIRST = 40
ENV = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1",
       "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}  # fmt: skip


def main() -> None:
    asked = argparse.ArgumentParser(
        usage="%(prog)s {again,contexts,kill} [options] [-- PYTEST ...]",
        description=__doc__.splitlines()[0],
    )
    asked.add_argument("step", choices=("again", "contexts", "kill"))
    asked.add_argument("--name", default="test", help="what the results are called")
    asked.add_argument("--tree", type=Path, default=HERE, help="the checkout that is tested")
    asked.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    # argparse would give the words to the step where options stand between.
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given, words = asked.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    OUT.mkdir(parents=True, exist_ok=True)
    tree = given.tree.resolve()
    if given.step == "contexts":
        write_contexts(given.name, tree, words)
    elif given.step == "kill":
        kill_all(given.name, Contexts.read(given.name), tree, given.jobs)
    else:
        # The package may have changed since: what was found last time says nothing.
        (OUT / "again.json").unlink(missing_ok=True)
        kill_all("again", Killers.read(), tree, given.jobs)


def write_contexts(name: str, tree: Path, words: list[str]) -> None:
    env = {
        **os.environ,
        **ENV,
        "COVERAGE_FILE": str(OUT / f"{name}.coverage"),
        "COVERAGE_CORE": "ctrace",
    }
    command = [
        sys.executable, "-m", "pytest", "--cov=blockviz", "--cov-branch", "--cov-context=test",
        "--cov-report=", f"--junitxml={OUT / name}.xml", *words,
    ]  # fmt: skip
    sys.exit(subprocess.run(command, cwd=tree, env=env, check=False).returncode)


@dataclass(frozen=True)
class Contexts:
    """Which tests of a selection execute which lines, and how long each test takes."""

    lines: Path
    seconds: dict[str, float]

    @classmethod
    def read(cls, name: str) -> Contexts:
        seconds = {}
        for case in ElementTree.parse(OUT / f"{name}.xml").iter("testcase"):
            test = node_id(case.get("classname", ""), case.get("name", ""))
            seconds[test] = float(case.get("time", 0))
        return cls(OUT / f"{name}.coverage", seconds)

    def tests_of(self, mutant: Mutant, file: Path, first: int, last: int) -> list[str]:
        """The tests that execute one of these lines, quickest first."""
        asked = """
            select distinct context.context from arc
            join file on file.id = arc.file_id join context on context.id = arc.context_id
            where file.path like ? and (arc.fromno between ? and ? or arc.tono between ? and ?)
        """
        with sqlite3.connect(self.lines) as base:
            rows = base.execute(asked, (f"%/{file}", first, last, first, last)).fetchall()
        tests = {row[0].rsplit("|", 1)[0] for row in rows if row[0]}
        quickest = sorted(tests, key=lambda t: (self.seconds.get(t, 0.0), t))
        # By file, so that what a file sets up once is set up once.
        return [*sorted(quickest[:FIRST]), *sorted(quickest[FIRST:])]


@dataclass(frozen=True)
class Killers:
    """Of each mutant, the test that killed it before."""

    by: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls) -> Killers:
        return cls(json.loads(KILLERS.read_text("utf-8")) if KILLERS.exists() else {})

    def tests_of(self, mutant: Mutant, *_: object) -> list[str]:
        return [self.by[str(mutant)]] if str(mutant) in self.by else []


def node_id(classname: str, name: str) -> str:
    """pytest's name of a test from what its XML report says."""
    return f"{classname.replace('.', '/')}.py::{name}"


def kill_all(name: str, contexts: Contexts | Killers, tree: Path, jobs: int) -> None:
    """Writes NAME.json: mutant -> who killed it, or that it lives, or that it was not met."""
    os.environ.update(ENV)
    # Imported once; every mutant is met by a process that finds these in memory.
    for module in (
        "torch",
        "transformers",
        "gradio",
        "plotly.graph_objects",
        "scipy.stats",
        "pytest",
    ):
        __import__(module)
    path = OUT / f"{name}.json"
    results = json.loads(path.read_text("utf-8")) if path.exists() else {}
    left = [m for m in MUTANTS if str(m) not in results]
    fork = multiprocessing.get_context("fork")
    slots = fork.Queue()
    for slot in range(jobs):
        slots.put(copy_of(tree, slot))
    asked, told = fork.Queue(), fork.Queue()
    workers = [
        fork.Process(target=work, args=(asked, told, slots.get(), contexts)) for _ in range(jobs)
    ]
    for mutant in left:
        asked.put(mutant)
    for worker in workers:
        asked.put(None)
        worker.start()
    for n in range(len(left)):
        mutant, result = told.get()
        results[str(mutant)] = result
        path.write_text(json.dumps(results, indent=1), encoding="utf-8")
        say(f"{n + 1}/{len(left)} {result['state']:8} {result['seconds']:6.1f} s  {mutant}")
    states = [r["state"] for r in results.values()]
    say(str({state: states.count(state) for state in sorted(set(states))}))
    by = {m: r["by"] for m, r in results.items() if "::" in r.get("by", "") and "doubt" not in r}
    known = Killers.read().by | by
    KILLERS.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", "utf-8")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def copy_of(tree: Path, slot: int) -> Path:
    """A copy of the tree that mutants may change."""
    copy = OUT / f"tree{slot}"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(
        tree,
        copy,
        ignore=shutil.ignore_patterns("build", ".git", ".venv", "__pycache__", ".*_cache"),
        symlinks=True,
    )
    (copy / "build" / "tmp").mkdir(parents=True)
    return copy


def work(asked: Any, told: Any, tree: Path, contexts: Contexts | Killers) -> None:
    while (mutant := asked.get()) is not None:
        told.put((mutant, met(mutant, tree, contexts)))


def met(mutant: Mutant, tree: Path, contexts: Contexts | Killers) -> dict[str, Any]:
    """What became of one mutant."""
    place, began = placed(mutant, tree / "blockviz"), time.monotonic()
    tests = contexts.tests_of(mutant, place.file.relative_to(tree), place.first, place.last)
    result: dict[str, Any] = {"n_tests": len(tests)}
    if not tests:
        return {**result, "state": "not met", "seconds": 0.0}
    before = place.file.read_text("utf-8")
    try:
        place.file.write_text(place.text, encoding="utf-8")
        expected = sum(contexts.seconds.get(t, 0.0) for t in tests)
        failed = failing(tests, tree, HANGS_TIMES * expected + HANGS_SECONDS)
    finally:
        place.file.write_text(before, encoding="utf-8")
    if failed and failed != "hangs" and failing([failed], tree, HANGS_SECONDS * 4):
        result["doubt"] = "that test fails without the mutant too"
    return {
        **result, "state": "killed" if failed else "lives", "by": failed,
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def failing(tests: list[str], tree: Path, seconds: float) -> str:
    """The first of these tests that fails, or `hangs`; empty if all pass."""
    report = tree / "build" / "failed.txt"
    report.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        run_here(tests, tree, report)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            return report.read_text("utf-8") if report.exists() else "the process ended"
        time.sleep(0.1)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"


def run_here(tests: list[str], tree: Path, report: Path) -> None:
    """Runs the tests in this process, writes which failed first, and ends the process."""
    import pytest

    log = os.open(tree / "build" / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(tree)
    os.environ.update(ENV, TMPDIR=str(tree / "build" / "tmp"), PYTHONPATH=str(tree))
    import tempfile

    tempfile.tempdir = None
    sys.path[:] = [str(tree), *(p for p in sys.path if p != str(Path(__file__).parent))]
    sys.dont_write_bytecode = True

    class Told:
        def pytest_runtest_logreport(self, report: Any) -> None:
            first.extend([report.nodeid] if report.failed else [])

        def pytest_collectreport(self, report: Any) -> None:
            first.extend([report.nodeid] if report.failed else [])

    first: list[str] = []
    words = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov", *tests]
    code = pytest.main(words, plugins=[Told()])
    report.write_text(first[0] if first else "" if code == 0 else f"pytest said {code}", "utf-8")
    os._exit(0)


if __name__ == "__main__":
    main()
