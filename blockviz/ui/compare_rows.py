"""The rows of a comparison that are there only if they were asked for: answers and speed."""

from __future__ import annotations

from collections.abc import Callable

from blockviz.plots import visible
from blockviz.types import Comparison, ComparisonColumn
from blockviz.ui.words import UNKNOWN, percent, short

Cell = dict[str, str]
Told = Callable[[Comparison, ComparisonColumn, ComparisonColumn | None], Cell]


def cell(main: str, small: str = "") -> Cell:
    """A number and the small print under it."""
    return {"main": main, "small": small}


def measured_rows(comparison: Comparison) -> list[tuple[str, str, Told]]:
    """(name, where it comes from, what each column says) of the tasks and of the speed."""
    rows: list[tuple[str, str, Told]] = [
        (
            visible(task),
            f"Measured: right answers of {len(questions)}, ± one standard error; as its papers "
            "count them.",
            _accuracy(task),
        )
        for task, questions in comparison.questions.items()
    ]
    if comparison.questions:
        source = "Of the original's accuracy: the mean of the tasks' shares; below it the share "
        rows.append(("Accuracy kept", f"{source}of the means. Papers use either.", _kept))
    if comparison.timed:
        rows += [
            ("Writes", f"Measured: {comparison.timed}.", _speed("decode")),
            ("Reads a prompt", "Measured in the same turns.", _speed("prefill")),
        ]
    return rows


def _accuracy(task: str) -> Told:
    def told(
        comparison: Comparison, column: ComparisonColumn, whole: ComparisonColumn | None
    ) -> Cell:
        found = column.answers.get(task)
        if found is None:
            return cell(UNKNOWN)
        lost, gained = comparison.flips(column, task)
        said = "" if column is whole else f"{len(lost)} lost, {len(gained)} won"
        return cell(f"{100 * found.accuracy:.1f} ± {100 * found.stderr:.1f} %", said)

    return told


def _kept(comparison: Comparison, column: ComparisonColumn, whole: ComparisonColumn | None) -> Cell:
    found = comparison.retention(column)
    if found is None:
        return cell(UNKNOWN)
    shares, means = (percent(share).removeprefix("+") for share in found)
    return cell(shares, f"{means} of the means")


def _speed(kind: str) -> Told:
    def told(
        comparison: Comparison, column: ComparisonColumn, whole: ComparisonColumn | None
    ) -> Cell:
        if column.timing is None:
            return cell(UNKNOWN)
        rate = getattr(column.timing, kind)
        median, low, high = getattr(column.timing, f"{kind}_speedup")
        said = f"{median:.2f} times as fast, {low:.2f} to {high:.2f}"
        return cell(f"{short(rate)} tokens/s", "" if column is whole else said)

    return told
