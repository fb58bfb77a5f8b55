"""Every metric's check fails once its formula has a wrong sign, a wrong axis, or another block.

A mutant is the source text of the module that holds the formula, changed in one place and run as a
module that nobody else sees. A change that is not found exactly once is stale and fails too.
"""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import pytest
from metric_checks import CHECKS

import blockviz.stats
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


@dataclass(frozen=True)
class Mutant:
    """`old` becomes `new` in `module`; `instead`: why no axis is flipped, and what is done."""

    metric: str
    kind: str
    module: str
    old: str
    new: str
    instead: str = ""

    def __str__(self) -> str:
        return f"{self.metric}-{self.kind}"


def sign(metric: str, module: str, old: str, new: str) -> Mutant:
    return Mutant(metric, "sign", module, old, new)


def axis(metric: str, module: str, old: str, new: str, *, instead: str = "") -> Mutant:
    return Mutant(metric, "axis", module, old, new, instead)


_OVER_WORDS = ("return logits.log_softmax(dim=-1)", "return logits.log_softmax(dim=0)")
_COUNTED = ("return readout.has_target", "return torch.ones_like(readout.has_target)")
_DRIFT = "metrics.drift"
_FAR = "(readout.logits - readout.dense.logits).norm(dim=0).square()"

MUTANTS = (
    sign("ppl", "metrics.ppl", "return perplexity, perplexity", "return -perplexity, perplexity"),
    axis(
        "ppl",
        "metrics.ppl",
        *_COUNTED,
        instead="the words are summed up before it sees them; the last position counts too",
    ),
    sign("lds", "metrics.lds", "return 1 - torch.nn", "return 1 + torch.nn"),
    axis(
        "lds",
        "metrics.lds",
        'cosine_similarity(kept["values"], now, dim=-1)',
        'cosine_similarity(kept["values"], now, dim=0)',
    ),
    sign("norm", _DRIFT, "return readout.distance.square()", "return -readout.distance.square()"),
    axis("norm", _DRIFT, "return readout.distance.square()", f"return {_FAR}"),
    sign("ang", _DRIFT, "_unit(readout) - _unit", "_unit(readout) + _unit"),
    axis("ang", _DRIFT, "turn.norm(dim=-1)", "turn.norm(dim=0)"),
    sign("kl", _DRIFT, "_dot(readout.dense.prob", "-_dot(readout.dense.prob"),
    axis("kl", _DRIFT, "torch.linalg.vecdot(a, b)", "torch.linalg.vecdot(a, b, dim=0)"),
    sign("js", _DRIFT, "softplus(readout", "softplus(-readout"),
    axis("js", _DRIFT, "torch.linalg.vecdot(a, b)", "torch.linalg.vecdot(a, b, dim=0)"),
    sign("bi", "metrics.bi", "(count - total, count)", "(count + total, count)"),
    axis("bi", "stats.running", "(before * after).sum(dim=-1)", "(before * after).sum(dim=1)"),
    sign("rm", "stats.running", "(before + update).norm", "(before - update).norm"),
    axis("rm", "stats.running", "update.norm(dim=-1), (", "update.norm(dim=1), ("),
    sign("ang_win", "stats.cosines", "cosine.arccos()", "(-cosine).arccos()"),
    axis("ang_win", "stats.cosines", ".double(), dim=-1)", ".double(), dim=1)"),
    Mutant("ang_win", "run one layer short", "metrics.windows", "first + n])", "first + n - 1])"),
    sign("cos_win", "metrics.windows", "(1 + cosine) / 2", "(1 - cosine) / 2"),
    axis("cos_win", "stats.cosines", 'if self._over != "channels"', 'if self._over == "channels"'),
    Mutant(
        "cos_win", "one layer up", "metrics.windows", "table[:, i, i + 1])", "table[:, i - 1, i])"
    ),
    sign("tabp_ssn", "metrics.tabp", "v[:, 1] - v[:, 0]", "v[:, 1] + v[:, 0]"),
    axis("tabp_ssn", "stats.lens", *_OVER_WORDS),
    sign("tabp_ddf", "metrics.tabp", "(way * v > 0)", "(way * v < 0)"),
    axis("tabp_ddf", "stats.lens", *_OVER_WORDS),
    sign("taylor", "metrics.weights", "(w.float() * g).abs()", "(w.float() * g)"),
    axis(
        "taylor",
        "metrics.weights",
        "(w.float() * g)",
        "(w.float() * g.flip(0))",
        instead="every entry is summed up; weights meet the gradients of other rows",
    ),
    sign("mag", "metrics.weights", "w.float().abs()", "w.float()"),
    axis(
        "mag",
        "metrics.weights",
        "w.float().abs().sum()",
        "w.float().abs().sum(dim=0).norm()",
        instead="every entry is summed up; one axis is, and of the other the length is taken",
    ),
    sign("cka", "metrics.cka", "(1 - v, 0.0)", "(1 + v, 0.0)"),
    axis("cka", "stats.gram", "rows.mean(dim=0)", "rows.mean(dim=1, keepdim=True)"),
    sign("shapley_loo", "metrics.shapley", "v - source.baseline", "source.baseline - v"),
    axis(
        "shapley_loo",
        "metrics.shapley",
        *_COUNTED,
        instead="the words are summed up before it sees them; the last position counts too",
    ),
    sign(
        "shapley_perm",
        "metrics.shapley",
        "row[block], loss = now - loss",
        "row[block], loss = loss - now",
    ),
    axis(
        "shapley_perm",
        "metrics.shapley",
        "yield tuple(order[:place])",
        "yield tuple(order[place:])",
        instead="an order has one; it is walked from the wrong end",
    ),
    sign("shapley_random", "metrics.shapley", "one[0] - two[0]", "two[0] - one[0]"),
    axis(
        "shapley_random",
        "metrics.shapley",
        "if b not in chosen)).mean()",
        "if b not in chosen)).max()",
        instead="windows are its only one; the worst stands for all",
    ),
    sign("cvr", "metrics.cvr", "spread ** (-alpha / 2)", "spread ** (alpha / 2)"),
    axis("cvr", "metrics.cvr", "weight.var(dim=0,", "weight.var(dim=1,"),
    sign("acc", "metrics.acc", "is_redundancy=True", "is_redundancy=False"),
    axis(
        "acc",
        "metrics.acc",
        "mean_and_error(v)",
        "mean_and_error(v.cumsum(0))",
        instead="questions are its only one; each counts those in front of it too",
    ),
)


def genuine(name: str) -> Metric:
    return parse_metric(SETTINGS.get(name, name))


def changed(mutant: Mutant) -> Metric:
    """The metric made from the changed source text; its registration is left out."""
    metric = genuine(mutant.metric)
    holder = importlib.import_module(f"blockviz.{mutant.module}")
    home = inspect.getmodule(type(metric))
    source = inspect.getsource(holder)
    n_found = source.count(mutant.old)
    assert n_found == 1, f"the mutation {mutant} is stale: {mutant.old!r} is there {n_found} times"
    source = source.replace(mutant.old, mutant.new)
    if holder is home:
        made = executed(home, source, {})
    else:
        made = executed(home, inspect.getsource(home), executed(holder, source, {}))
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
        assert {m.metric for m in MUTANTS if m.kind == kind} == set(METRICS.names()), kind


@pytest.mark.parametrize("name", METRICS.names())
def test_the_genuine_metric_passes_its_check(name: str):
    CHECKS[name](genuine(name))


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_wrong_sign_or_axis_is_seen(mutant: Mutant):
    metric = changed(mutant)
    with pytest.raises((AssertionError, ValueError)):
        CHECKS[mutant.metric](metric)


@pytest.mark.parametrize("name", METRICS.names())
def test_scores_handed_to_the_next_block_are_seen(name: str):
    metric = shifted(genuine(name))
    with pytest.raises(AssertionError):
        CHECKS[name](metric)


@pytest.mark.parametrize("name", METRICS.names())
def test_a_mutant_with_nothing_changed_passes(name: str):
    """What kills a mutant is its one change, not the way it was made."""
    mutant = next(m for m in MUTANTS if m.metric == name and m.kind == "axis")
    CHECKS[name](changed(replace(mutant, new=mutant.old)))
    assert METRICS.get(name) is type(genuine(name))


def test_a_stale_mutation_says_so():
    stale = replace(MUTANTS[0], old="no such line")
    with pytest.raises(AssertionError, match=r"ppl-sign is stale: 'no such line' is there 0 times"):
        changed(stale)
