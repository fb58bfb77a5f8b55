"""Formula, sight and blind spot of every built-in method: there, its own, and told on."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from itertools import combinations

import pytest

from blockviz.corrections import CORRECTIONS
from blockviz.metrics import METRICS, Metric
from blockviz.session.catalogue import corrections_json, metrics_json
from blockviz.session.example import Example
from blockviz.session.results import Results
from blockviz.store import Store

EVERY_METHOD = (*METRICS.classes(), *CORRECTIONS.classes())
TEXTS = ("formula", "sees", "misses")


@pytest.mark.parametrize("method", EVERY_METHOD, ids=lambda m: m.name)
def test_it_has_all_three(method):
    for name in TEXTS:
        text = getattr(method, name)
        assert text and text == text.strip() and "  \n" not in text, name
    equation, *letters = method.formula.split("\n")
    assert re.search(r"[=←−]|min over", equation) and not equation.endswith(".")
    assert len(letters) <= 1 and all(line.endswith(".") for line in letters)
    for name in ("sees", "misses"):
        text = getattr(method, name)
        assert text[0].isupper() and text.endswith(".") and len(text) < 400
    assert method.cost


@pytest.mark.parametrize("method", EVERY_METHOD, ids=lambda m: m.name)
def test_what_stands_lower_or_higher_is_one_letter_or_in_closed_braces(method):
    rest = re.sub(r"[_^](\{[^{}_^]+\}|[^\s{}_^])", "", method.formula)
    assert not re.search(r"[{}_^]", rest), rest


@pytest.mark.parametrize("name", TEXTS)
def test_none_is_a_copy_of_another(name):
    for one, other in combinations(EVERY_METHOD, 2):
        first, second = (getattr(m, name).split("\n")[0] for m in (one, other))
        alike = SequenceMatcher(None, first, second).ratio()
        assert alike < 0.9, (one.name, other.name)


@pytest.mark.parametrize("method", EVERY_METHOD, ids=lambda m: m.name)
def test_what_it_sees_is_not_what_it_misses(method):
    assert SequenceMatcher(None, method.sees, method.misses).ratio() < 0.6


def test_a_metric_of_one_s_own_may_leave_them_out():
    assert (Metric.formula, Metric.sees, Metric.misses) == ("", "", "")


def test_cards_and_catalogue_say_what_the_methods_say():
    results = Results(Store(), Example.load())
    cards = {c.name: c for c in (*results.metrics(), *results.correction_cards())}
    entries = (*metrics_json()["metrics"], *corrections_json()["corrections"])
    listed = {entry["name"]: entry for entry in entries}
    assert cards.keys() == listed.keys() == {m.name for m in EVERY_METHOD}
    for method in EVERY_METHOD:
        for name in (*TEXTS, "cost"):
            assert getattr(cards[method.name], name) == getattr(method, name)
            assert listed[method.name][name] == getattr(method, name)
