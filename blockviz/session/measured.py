"""Window values of removed sets, with what earlier runs and steps know of them."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from blockviz.session.ledger import Ledger
from blockviz.session.objectives import Objective
from blockviz.session.repaired_search import Grounds
from blockviz.types import Progress, RemovedSet

# Steps in between, as Progress; at the end the means of the sets that were asked for.
Means = Generator[Progress, None, list[float]]


class Measured:
    """Window values of removed sets: those known from earlier are not measured again.

    grounds: where what is cut is repaired, what each question is measured on.
    """

    def __init__(
        self, objective: Objective, ledger: Ledger, grounds: Grounds | None = None
    ) -> None:
        self.objective, self._ledger, self.grounds = objective, ledger, grounds
        self.n_windows = len(objective)
        self.n_reused, self.n_bad = 0.0, 0

    def values(
        self, sets: Sequence[RemovedSet], windows: Sequence[int], repair: str | None = None
    ) -> Generator[None, None, np.ndarray]:
        """(set, window); sets of which every window is known are left out of the measuring.

        repair: see Ask.
        """
        objective = self.objective if self.grounds is None else self.grounds.objective(repair)
        names = [objective.names[i] for i in windows]
        found = np.stack([self._ledger.get(removed, names) for removed in sets])
        unknown = [i for i, row in enumerate(found) if np.isnan(row).any()]
        self.n_reused += (len(sets) - len(unknown)) * len(windows) / self.n_windows
        if not unknown:
            return found
        values = yield from objective.values([sets[i] for i in unknown], windows)
        for i, row in zip(unknown, values, strict=True):
            found[i] = row
            self._ledger.put(sets[i], names, row)
        self.n_bad += int(np.isnan(values).any(axis=1).sum())
        return found

    def means(self, sets: Sequence[RemovedSet]) -> Means:
        """The mean over all windows of every set."""
        measuring = self.values(sets, range(self.n_windows))
        while True:
            try:
                next(measuring)
            except StopIteration as end:
                return end.value.mean(axis=1).tolist()
            yield Progress("measuring", 0, 0, "whole model")
