"""Every metric's check fails once its formula has a wrong sign, a wrong axis, or another block.

A mutant is the source text of the module that holds the formula, changed in one place and run as a
module that nobody else sees. A mutant of any room whose place is not there any more fails too.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from metric_checks import CHECKS
from mutant_place import PACKAGE, Mutant, Stale, placed
from mutants import METRIC_MUTANTS, MUTANTS, MetricMutant

import blockviz.stats
from blockviz.errors import BadInput
from blockviz.metrics import METRICS, Metric, parse_metric
from blockviz.types import Scores

pytestmark = pytest.mark.usefixtures("one_thread")

# The settings under which a check sees most: as many logits as positions, and so on.
SETTINGS = {
    "lds": "lds:k=64",
    "ang_win": "ang_win:tokens=all",
    "shapley_perm": "shapley_perm:m=2",
    "shapley_random": "shapley_random:m=2",
}


def genuine(name: str) -> Metric:
    return parse_metric(SETTINGS.get(name, name))


def changed(mutant: MetricMutant) -> Metric:
    """The metric made from the changed source text; its registration is left out."""
    metric, place = genuine(mutant.metric), placed(mutant.change)
    name = ".".join(place.file.relative_to(PACKAGE.parent).with_suffix("").parts)
    holder, home = importlib.import_module(name), inspect.getmodule(type(metric))
    if holder is home:
        made = executed(home, place.text, {})
    else:
        made = executed(home, inspect.getsource(home), executed(holder, place.text, {}))
    cls = next(
        value
        for value in made.values()
        if getattr(value, "name", "") == mutant.metric and value is not type(metric)
    )
    return cls(**metric.parameters())


def executed(module: ModuleType, source: str, statistics: dict[str, Any]) -> dict[str, Any]:
    """The names of a module with this source text, statistics among them in place of its own."""
    source = source.replace("@METRICS.register\n", "")
    imports = re.compile(r"^from blockviz\.stats import (?:\([^)]*\)|[^\n]*)\n", re.MULTILINE)
    names = {**vars(blockviz.stats), **statistics, "__name__": module.__name__}
    exec(compile(imports.sub("", source), module.__file__, "exec"), names)
    return names


def shifted(metric: Metric) -> Metric:
    """The same metric, which says of each block what is true of the one in front of it."""

    class Shifted(type(metric)):
        def score(self, source: object) -> Scores:
            return _moved(super().score(source))

        def play(self, blocks: object) -> Any:
            return _moved((yield from super().play(blocks)))

    return Shifted(**metric.parameters())


def _moved(scores: Scores) -> Scores:
    order = list(scores.values)
    behind = dict(zip(order, [*order[1:], order[0]], strict=True))
    return replace(
        scores,
        values={behind[b]: v for b, v in scores.values.items()},
        raw={behind[b]: v for b, v in scores.raw.items()},
    )


def test_every_metric_has_a_check_and_every_kind_of_mutant():
    assert CHECKS.keys() == set(METRICS.names())
    for kind in ("sign", "axis"):
        assert {m.metric for m in METRIC_MUTANTS if m.kind == kind} == set(METRICS.names()), kind


@pytest.mark.parametrize("name", METRICS.names())
def test_the_genuine_metric_passes_its_check(name: str):
    CHECKS[name](genuine(name))


@pytest.mark.parametrize("mutant", METRIC_MUTANTS, ids=str)
def test_a_wrong_sign_or_axis_is_seen(mutant: MetricMutant):
    metric = changed(mutant)
    with pytest.raises((AssertionError, ValueError, BadInput)):
        CHECKS[mutant.metric](metric)


@pytest.mark.parametrize("name", METRICS.names())
def test_scores_handed_to_the_next_block_are_seen(name: str):
    metric = shifted(genuine(name))
    with pytest.raises(AssertionError):
        CHECKS[name](metric)


@pytest.mark.parametrize("name", METRICS.names())
def test_a_mutant_with_nothing_changed_passes(name: str):
    """What kills a mutant is its one change, not the way it was made."""
    mutant = next(m for m in METRIC_MUTANTS if m.metric == name and m.kind == "axis")
    CHECKS[name](changed(replace(mutant, change=replace(mutant.change, new="_"))))
    assert METRICS.get(name) is type(genuine(name))


# --- where mutants lie ----------------------------------------------------------------------------


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_every_mutant_has_its_place(mutant: Mutant):
    """Its file is another program, and only in the lines that it names."""
    place = placed(mutant)
    before, after = (ast.dump(ast.parse(t)) for t in (place.file.read_text("utf-8"), place.text))
    assert before != after
    old, new = place.file.read_text("utf-8").splitlines(), place.text.splitlines()
    assert old[: place.first - 1] == new[: place.first - 1]
    n_behind = len(old) - place.last
    assert old[len(old) - n_behind :] == new[len(new) - n_behind :]


HOUSE = """
class House:
    def area(self, width, depth=2):
        with self.lock:
            return width * (depth - 1)
"""


def house(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = HOUSE
    for old, new in changes:
        text = text.replace(old, new)
    (tmp_path / "rooms").mkdir(exist_ok=True)
    (tmp_path / "rooms" / "house.py").write_text(text, encoding="utf-8")
    return tmp_path


def test_a_mutant_is_placed_by_symbol_and_syntax(tmp_path: Path):
    """The inner product is the second; another file, other names and other lines change nothing."""
    inner = Mutant("rooms", "House.area", "BinOp", 1, "_.left + _.right")
    open_lock = Mutant("rooms", "House.area", "With", 0, "if True:\n    _.body")
    for changes in ((), (("depth", "d"), ("width", "w"), ("class", "# More.\n\nclass"))):
        package = house(tmp_path, *changes)
        assert "+ 1" in placed(inner, package).text and "* (" in placed(inner, package).text
        text = placed(open_lock, package).text
        assert "self.lock" not in text and "        if True:\n            return" in text
    (tmp_path / "rooms" / "house.py").rename(tmp_path / "rooms" / "cottage.py")
    assert placed(inner, tmp_path).file.name == "cottage.py"


def test_a_stale_mutant_says_so(tmp_path: Path):
    package = house(tmp_path)
    with pytest.raises(Stale, match="its symbol is there 0 times"):
        placed(Mutant("rooms", "House.size", "BinOp", 0, "_.left"), package)
    with pytest.raises(Stale, match="there are 2 BinOp nodes"):
        placed(Mutant("rooms", "House.area", "BinOp", 2, "_.left"), package)
