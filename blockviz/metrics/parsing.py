"""From `lds:k=50` on a command line to a metric, with a clear refusal of what is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from blockviz.errors import BadInput
from blockviz.metrics.base import METRICS, Metric
from blockviz.settings import label_of, parse_method


def parse_metrics(names: Iterable[str], *, has_tasks: bool = False) -> dict[str, Metric]:
    """Instances for `name` or `name:parameter=value:...`, each under the name it is reported by.

    `all` stands for every metric with its defaults, those that need a task only if there is one.
    One asked for twice with other settings is reported under its settings, each time.
    """
    asked = [n.strip() for n in names if n.strip()]
    if not asked:
        raise BadInput(
            "Metrics were to be computed.", "None was named.", "Name some, such as bi,ppl."
        )
    every = [cls() for cls in METRICS.classes()] if "all" in asked else []
    every = [metric for metric in every if has_tasks or not metric.needs_tasks()]
    named = [parse_metric(text) for text in asked if text != "all"]
    renewed = {metric.name for metric in named}
    found = list(dict.fromkeys([*(m for m in every if m.name not in renewed), *named]))
    for metric in found:
        if metric.needs_tasks() and not has_tasks:
            raise BadInput(
                f"The metric {metric.name} was asked for.",
                "It is computed from the answers to a multiple-choice task, and none was named.",
                "Name one with --tasks, such as arc_easy or a .jsonl file.",
            )
    named_alike = Counter(metric.name for metric in found)
    return {m.name if named_alike[m.name] == 1 else label_of(m): m for m in found}


def parse_metric(text: str) -> Metric:
    """The metric of `lds:k=50:space=centered`; UnknownName or BadInput otherwise."""
    return parse_method(METRICS, text)
