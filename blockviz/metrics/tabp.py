"""How much a block moves the early-exit prediction: two ways to add up the shifts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from blockviz.errors import BadInput
from blockviz.metrics.base import METRICS, ActivationMetric
from blockviz.stats import LENS_STATISTICS, EarlyExit, PassStatistic
from blockviz.types import BlockStatistics, Scores

FORMS = ("text", "choices")
# +1 where a useful block raises the number, -1 where it lowers it.
DESIRED = {"conf": 1, "key": 1, "gap": 1, "ent": -1, "ce": -1, "kld": -1, "jsd": -1}


@dataclass(frozen=True)
class _EarlyExitShift(ActivationMetric):
    """s: a number of softmax(head(norm(h))); its change across a block is the block's shift.

    `form=text` reads the whole vocabulary at the last token of each calibration window, and at
    `positions` - 1 more; `form=choices` reads the answers' letters behind the prompts of a
    multiple-choice task. `lens_norm` False leaves the final norm out, as the published code does;
    its text form is `top=50` on windows of 64 tokens. The paper removes layers of the later half
    only; all are scored here. Scoring single blocks is ours.
    """

    stat: str = field(default="ent", metadata={"label": "Number", "choices": LENS_STATISTICS})
    form: str = field(default="text", metadata={"label": "Read from", "choices": FORMS})
    lens_norm: bool = field(default=True, metadata={"label": "Final norm in the lens"})
    positions: int = field(default=1, metadata={"label": "Positions a window", "min": 1})
    top: int = field(default=0, metadata={"label": "Top words kept, 0 = all", "min": 0})

    reference = "https://aclanthology.org/2026.findings-eacl.320/"
    citation = "Jo et al., Findings of EACL 2026, TaBP"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top == 1:
            raise BadInput(
                f"{self.name}:top=1 was asked for.",
                "A single word has all of the probability at every depth: nothing could move.",
                "Keep 2 words or more, or 0 for all.",
            )

    def needs_tasks(self) -> bool:
        return self.form == "choices"

    def reads_prompts(self) -> bool:
        return self.form == "choices"

    def passes(self) -> tuple[PassStatistic, ...]:
        is_choices = self.form == "choices"
        return (
            EarlyExit(
                statistic=self.stat,
                has_norm=self.lens_norm,
                positions=1 if is_choices else self.positions,
                top=0 if is_choices else self.top,
                on_prompts=is_choices,
            ),
        )

    def shifts(self, source: BlockStatistics) -> tuple[dict, torch.Tensor]:
        """({BlockId: (n_items,) change of s across the block}, window of each item)."""
        found = dict(source.passes[self.passes()[0]])
        windows = found.pop("windows")
        return {b: v[:, 1] - v[:, 0] for b, v in found.items()}, windows

    def averaged(
        self, numbers: dict, windows: torch.Tensor, *, is_redundancy: bool = False
    ) -> Scores:
        """Scores from one number an item: the mean over items, its error over windows."""
        means, per_window = {}, {}
        kinds, index = windows.unique(return_inverse=True)
        counts = torch.zeros(len(kinds), dtype=torch.float64)
        counts.index_add_(0, index, torch.ones(len(index), dtype=torch.float64))
        for block, values in numbers.items():
            sums = torch.zeros(len(kinds), dtype=torch.float64).index_add_(0, index, values)
            mean = values.mean().item()
            n = len(kinds)
            spread = (sums - mean * counts) / counts.mean()
            error = math.sqrt(spread.square().sum().item() / (n - 1) / n) if n > 1 else 0.0
            means[block] = mean, error
            sign = -1.0 if is_redundancy else 1.0
            per_window[block] = tuple((sign * sums / counts).tolist())
        return self.scores(means, is_redundancy=is_redundancy, per_window=per_window)


@METRICS.register
@dataclass(frozen=True)
class ShiftSize(_EarlyExitShift):
    """SSN = (sum over items of |shift|^p)^(1/p) / N, >= 0; TaBP, section 3."""

    p: float = field(default=1.0, metadata={"label": "Norm", "min": 1.0})

    name = "tabp_ssn"
    unit_label = "mean size of shift"
    title = "Early-exit shift"
    meaning = "How much the block moves the prediction that could be read off there."
    formula = (
        "SSN(b) = ( Σ_n | Δs_n(b) |^p )^{1/p} / N\n"
        "Δs_n(b): what block b changes in s = entropy of softmax( head( norm( x ) ) ), read at "
        "the end of window n, with N of them; p = 1 and the entropy unless set."
    )
    sees = (
        "At which depth the prediction is made up: blocks behind which the early answer is no "
        "longer the same."
    )
    misses = (
        "Preparation: what an early block stores for later ones cannot be read by the head yet,"
        " and seems idle. A move towards the answer counts like a move away from it."
    )

    def score(self, source: BlockStatistics) -> Scores:
        shifts, windows = self.shifts(source)
        if self.p == 1:
            return self.averaged({b: v.abs() for b, v in shifts.items()}, windows)
        sizes = {b: v.abs().pow(self.p).sum().pow(1 / self.p) / len(v) for b, v in shifts.items()}
        return self.scores({b: (s.item(), 0.0) for b, s in sizes.items()}, has_error=False)


@METRICS.register
@dataclass(frozen=True)
class ShiftDirection(_EarlyExitShift):
    """DDF = share of items where the shift goes the desired way, in [0, 1]; TaBP, Eq. 2.

    `ddf_code_compat` counts as the published code does: with choices it counts undesired shifts,
    with text desired ones, and both times it takes the largest for removable.
    """

    ddf_code_compat: bool = field(default=False, metadata={"label": "Count as the code does"})

    name = "tabp_ddf"
    title = "Early-exit direction"
    meaning = "How often the block moves the early prediction the right way."
    formula = (
        "DDF(b) = share of windows with α · Δs_n(b) > 0\n"
        "Δs_n(b): as for the early-exit shift; α = −1 where a useful block lowers the number, "
        "as it does the entropy, otherwise +1."
    )
    sees = (
        "How regularly a block brings the early prediction nearer to a decision, window after "
        "window."
    )
    misses = (
        "How far: a hair counts like a leap, and to be surer is not to be right. A share of a "
        "few windows takes few values, so that many blocks tie."
    )
    unit_label = "share of items"

    def score(self, source: BlockStatistics) -> Scores:
        shifts, windows = self.shifts(source)
        way = DESIRED[self.stat]
        if self.ddf_code_compat and self.form == "choices":
            way = -way
        # A NaN is no miss: it has to stay one, to be refused.
        hits = {
            b: (way * v > 0).double().masked_fill(v.isnan(), math.nan) for b, v in shifts.items()
        }
        return self.averaged(hits, windows, is_redundancy=self.ddf_code_compat)
