"""Which tests a run takes, and what a run may cost."""

from __future__ import annotations

import json
from dataclasses import dataclass

import budget
import pytest
import tiers

SLOW = pytest.mark.slow("engine", "models").mark
COMMIT = "0" * 40


@dataclass(frozen=True)
class Item:
    """What the choice looks at of a test."""

    nodeid: str
    marks: tuple[pytest.Mark, ...] = ()

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return next((mark for mark in self.marks if mark.name == name), None)


def cases(*marks: pytest.Mark, n: int = 400) -> list[Item]:
    return [Item(f"tests/test_some.py::test_it[{i}]", marks) for i in range(n)]


def test_what_is_not_slow_is_always_due():
    assert all(map(tiers._is_due({}, COMMIT), cases()))
    assert all(map(tiers._is_due(tiers.hashes(), COMMIT), cases()))


@pytest.mark.parametrize("changed", ["engine", "models", "test_some.py", "tiny.py"])
def test_slow_cases_are_due_when_a_room_of_theirs_or_their_file_changed(changed: str):
    green = {**tiers.hashes(), "test_some.py": tiers.hashes().get("test_some.py")}
    assert not all(map(tiers._is_due(green, COMMIT), cases(SLOW)))
    now = dict.fromkeys(green, "as it was") | {changed: "other"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiers, "hashes", lambda: now)
        assert all(map(tiers._is_due(dict.fromkeys(green, "as it was"), COMMIT), cases(SLOW)))


def test_eight_commits_in_turn_take_every_slow_case_once():
    green, taken = tiers.hashes(), []
    for turn in range(tiers.TURNS):
        due = tiers._is_due(green, f"{turn:08x}" + "f" * 32)
        found = [item.nodeid for item in cases(SLOW) if due(item)]
        assert 25 < len(found) < 75  # an eighth of 400 is 50
        taken += found
    assert sorted(taken) == sorted(item.nodeid for item in cases(SLOW))


def test_quick_leaves_out_browsers_the_real_model_and_what_took_long():
    quick = tiers._is_quick({"tests/test_some.py::test_long"})
    assert quick(Item("tests/test_some.py::test_short[1]"))
    assert not quick(Item("tests/test_some.py::test_long[7]"))
    for name in ("browser", "network", "slow"):
        assert not quick(Item("tests/test_some.py::test_short", (getattr(pytest.mark, name).mark,)))


def test_every_room_that_a_slow_test_names_is_there(request: pytest.FixtureRequest):
    """Else its change would never bring the test back."""
    names = tiers.hashes().keys()
    for item in request.session.items:
        mark = item.get_closest_marker("slow")
        assert mark is None or (mark.args and {*mark.args} <= names), item.nodeid


def test_a_room_s_hash_is_of_what_its_files_hold(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tiers, "PACKAGE", tmp_path)
    (tmp_path / "room").mkdir()
    files = tmp_path / "room" / "a.py", tmp_path / "lone.py", tmp_path / "room" / "look.css"
    for file in files:
        file.write_text("x = 1")
    before = tiers.hashes()
    assert {"room", "lone"} <= before.keys()
    files[2].write_text("x = 2")
    after = tiers.hashes()
    assert after["room"] != before["room"] and after["lone"] == before["lone"]
    files[2].unlink()
    assert tiers.hashes()["room"] not in (before["room"], after["room"])


def test_a_green_run_is_written_down_and_a_red_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tiers, "GREEN", tmp_path / "green.json")
    stamp = tiers._Stamp()
    for name, seconds in (("a[1]", 0.1), ("a[2]", 9.0), ("b", 0.1)):
        report = pytest.TestReport(
            f"tests/test_x.py::{name}", ("", 0, ""), {}, "passed", None, "call", duration=seconds
        )
        stamp.pytest_runtest_logreport(report)
    stamp.pytest_sessionfinish(exitstatus=1)
    assert tiers.last_green() == {"rooms": {}, "long": []}
    stamp.pytest_sessionfinish(exitstatus=0)
    found = json.loads((tmp_path / "green.json").read_text())
    assert found == {"rooms": tiers.hashes(), "long": ["tests/test_x.py::a"]}


def test_a_budget_is_kept_up_to_twice_of_it():
    assert budget.verdict(100, used=399, unit=2.0)[0]
    is_kept, said = budget.verdict(100, used=401, unit=2.0)
    assert not is_kept
    assert said.startswith("401 s of processor time, 200 times the 2.00 s of the fixed work; the")


def test_work_that_fails_is_no_unit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(budget, "WORK", "sum(range(3_000_000))")
    assert budget.unit_seconds() > 0
    monkeypatch.setattr(budget, "WORK", "raise SystemExit(1)")
    with pytest.raises(RuntimeError, match="failed"):
        budget.unit_seconds()


@pytest.mark.parametrize(("limit", "status"), [(1e9, 3), (0, 3)])
def test_a_command_that_fails_says_so_first(capfd, monkeypatch, limit: float, status: int):
    monkeypatch.setattr(budget, "WORK", "sum(range(1_000_000))")
    assert budget.main(limit, ["sh", "-c", f"echo ran; exit {status}"]) == status
    out = capfd.readouterr().out
    assert out.startswith("ran\n") and ("Too slow" in out) == (limit == 0)


def test_a_command_that_is_too_slow_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(budget, "unit_seconds", lambda: 1e-9)
    assert budget.main(1, ["sh", "-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done"]) == 1
    monkeypatch.setattr(budget, "unit_seconds", lambda: 1e9)
    assert budget.main(1, ["true"]) == 0
