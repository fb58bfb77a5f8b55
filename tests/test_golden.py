"""Numbers that the published code itself gave on the demo model, reproduced by ours.

Source: BlockPruner (arXiv 2406.10594), `block_search.py` of its public code at commit 8210707, run
once with transformers 4.44.2 in float32 on the weights that blockviz calls `demo`, all six windows
in one batch. The windows are the first 6 x 96 tokens of a slice of WikiText-2's raw training text.
A perplexity there is exp of the mean over windows of the mean next-token loss of a window.

That code adds the vocabulary up in a strided float32 sum, which loses 1e-4 of a perplexity over 49
thousand words. `ppl:summation=published` does the same; the default does not.
"""

from __future__ import annotations

import functools
import math

import pytest
import tiny
import torch

from blockviz.engine import sweep
from blockviz.metrics.ppl import MaskedPerplexity
from blockviz.models.model import BlockModel
from blockviz.types import BlockId, CalibrationSet, Scores, run

pytestmark = pytest.mark.network
again = pytest.mark.slow("engine", "metrics", "models")

# Step 1 of the search: the perplexity without this block.
FIRST = {
    "0.attn": 417.044983,
    "1.attn": 2253.009521,
    "2.attn": 95.426041,
    "5.attn": 79.139305,
    "17.attn": 80.406227,
    "24.attn": 124.097122,
    "29.attn": 80.137489,
    "0.mlp": 693268.75,
    "11.mlp": 460.336853,
    "18.mlp": 92.079926,
    "29.mlp": 735.775818,
}
# Step 2, the search having taken 5.attn: the perplexity without 5.attn and this block.
SECOND = {
    "0.attn": 435.149353,
    "22.attn": 80.113876,
    "29.attn": 79.893227,
    "5.mlp": 94.735954,
}
INPUT_IDS = (
    (
        "3717 446 717 1727 105 5484 34471 8140 446 3717 3717 6014 90 15037 787 717 1727 105 5484 "
        "216 35 1577 810 42228 34471 365 4931 1577 17097 226 116 176 250 129 26453 11100 129 "
        "10391 111 11100 121 10391 251 11100 115 11100 120 10391 112 35 3297 1150 1673 717 1727 "
        "105 5484 282 260 9420 4385 216 35 2481 3297 4278 5124 288 347 717 1727 105 5484 34471 "
        "8140 2856 3085 3297 314 253 28187 1791 3394 29 48 4464 3341 3133 2452 411 334 9005 284 "
        "10073 30 43599"
    ),
    (
        "327 260 8512 42716 48664 1673 21231 821 281 4450 216 34 32 33 33 281 3085 3297 357 314 "
        "260 3464 3133 281 260 717 1727 105 5484 3086 1673 46836 260 1142 13333 282 28187 284 "
        "1345 3394 29 48 655 41611 347 624 28889 3297 260 1977 7313 7623 288 260 808 3133 284 "
        "5558 260 476 18620 5637 476 3297 253 10104 3385 2723 6992 260 3442 282 10667 542 981 260 "
        "5665 15407 3960 2287 617 1477 4911 2632 4261 284 359 8089 1132 1523 260 14811 2723 476 "
        "2540 332"
    ),
    (
        "46158 43967 476 1673 3717 378 3133 2585 1421 281 216 34 32 33 32 3297 7980 690 253 1507 "
        "6206 282 260 746 2294 335 717 1727 105 5484 34471 3713 1673 2445 357 15347 260 2920 3004 "
        "282 260 3086 3297 357 597 23054 2701 13323 3297 715 347 1625 260 3133 540 48237 327 3086 "
        "32862 1673 12858 15001 428 48516 12436 90 279 284 20833 11328 28018 30168 41945 1062 "
        "5598 429 2672 12767 3297 1683 351 717 1727 105 5484 34471 3713 6510 42039 6004 28508 "
        "10734 1673 330 1507 2299"
    ),
    (
        "282 6578 15170 260 6048 1673 378 3133 637 99 6021 7374 436 20769 411 2405 637 94 1673 "
        "3717 657 1278 351 2731 7122 281 3085 3297 284 436 24145 411 1062 4931 284 6378 12815 "
        "1673 2550 4706 3297 357 3656 40447 2627 3297 1683 351 354 8827 8638 281 4745 282 338 713 "
        "1673 657 436 597 9309 618 33333 284 354 2798 3341 14761 3086 1673 10601 288 1642 7122 "
        "282 717 1727 105 5484 34471 3713 3297 717 1727 105 5484 34471 8140 436 441 21077 3297 "
        "564 253 10136 8483"
    ),
    (
        "15118 351 260 3133 637 99 8827 8638 436 5118 281 216 34 32 33 36 1673 10073 30 43599 736 "
        "1003 288 260 28315 351 260 1421 282 717 1727 105 5484 1577 36817 6989 327 260 8512 42716 "
        "216 36 1673 3717 3717 446 446 12444 2533 446 446 3717 3717 1032 351 2672 717 1727 105 "
        "3792 34471 4252 3297 717 1727 105 5484 34471 8140 314 253 28187 1791 3394 29 48 4464 "
        "3133 837 6393 1188 1533 282 253 3385 2723 284 1188 599 281 11280 1523 8091 3654 1673 "
        "14637"
    ),
    (
        "359 3783 738 13571 1863 3394 29 48 702 9214 351 20804 1843 21128 3297 351 3870 5914 "
        "11729 738 37286 4778 17776 284 11729 738 551 16104 4673 1694 1673 378 7081 21685 738 253 "
        "3086 282 7974 11280 3297 7443 16271 277 347 7034 338 416 325 10493 29148 738 284 298 "
        "40806 347 502 359 16271 277 1673 378 7410 288 971 1977 3695 335 260 4141 10189 4509 335 "
        "354 1212 7081 637 99 2424 1577 645 582 4622 314 5534 3297 260 550 314 17659 767 288 260 "
        "7081 1673 30743"
    ),
)


@functools.cache
def windows() -> CalibrationSet:
    ids = torch.tensor([[int(i) for i in row.split()] for row in INPUT_IDS])
    return CalibrationSet(ids, torch.ones_like(ids, dtype=torch.bool), tiny.windows().origin)


def scored(
    model: BlockModel, names: dict[str, float], removed: tuple[BlockId, ...]
) -> tuple[Scores, Scores]:
    """(published, exact) perplexities of these candidates, from one sweep."""
    metrics = (MaskedPerplexity(summation="published"), MaskedPerplexity())
    events = sweep(model, windows(), metrics, candidates=tiny.ids(*names), removed=removed)
    tables = run(events).tables
    return tuple(m.score(t) for m, t in zip(metrics, tables, strict=True))


@pytest.fixture(scope="module")
def first(demo_float32: BlockModel) -> tuple[Scores, Scores]:
    return scored(demo_float32, FIRST, ())


@pytest.fixture(scope="module")
def second(demo_float32: BlockModel) -> tuple[Scores, Scores]:
    return scored(demo_float32, SECOND, tiny.ids("5.attn"))


def by_name(scores: Scores) -> dict[str, float]:
    return {str(b): value for b, value in scores.raw.items()}


def test_the_first_step_is_the_published_one(first: tuple[Scores, Scores]):
    assert by_name(first[0]) == pytest.approx(FIRST, rel=2e-5)


def test_the_second_step_is_the_published_one(second: tuple[Scores, Scores]):
    assert by_name(second[0]) == pytest.approx(SECOND, rel=2e-5)


def test_the_same_blocks_are_taken(first: tuple[Scores, Scores], second: tuple[Scores, Scores]):
    """Under both summations, and in the published order from the first to the last candidate."""
    for scores, expected in ((first, FIRST), (second, SECOND)):
        for found in scores:
            ranks = found.ranks()
            ordered = [str(b) for b in sorted(ranks, key=ranks.get)]
            assert ordered == sorted(expected, key=expected.get)
    assert first[1].ranks()[BlockId(5, "attn")] == second[1].ranks()[BlockId(29, "attn")] == 1


def test_the_exact_sum_lies_a_ten_thousandth_above(first: tuple[Scores, Scores]):
    """The gap is the published code's rounding, the same for every block but its size."""
    for name, value in by_name(first[1]).items():
        assert 5e-5 < value / FIRST[name] - 1 < 2.5e-4, name


@pytest.mark.parametrize("name", ["5.attn", pytest.param("11.mlp", marks=again)])
def test_the_exact_sum_is_that_of_float64(
    demo_float32: BlockModel, first: tuple[Scores, Scores], name: str
):
    """By the library's own forward; log-sum-exp and the two means in float64."""
    ids = windows().input_ids
    means = []
    with demo_float32.masked(tiny.ids(name)), torch.inference_mode():
        for row in ids:
            logits = demo_float32.module(input_ids=row[None], use_cache=False).logits[0, :-1]
            wanted = logits.double().gather(1, row[1:, None])[:, 0]
            means.append((logits.double().logsumexp(-1) - wanted).mean().item())
    expected = math.exp(math.fsum(means) / len(means))
    assert by_name(first[1])[name] == pytest.approx(expected, rel=1e-5)
