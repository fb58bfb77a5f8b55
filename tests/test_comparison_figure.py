"""The figure of a comparison: what is drawn is what was measured."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest
from fake_compare import growing_comparison, make_comparison
from fake_engine import make_info
from test_figures import NASTY, texts_of

from blockviz.plots import FigureCard, can_draw, column_name, comparison_card, measured_note
from blockviz.session.compare_views import CompareRequest
from blockviz.session.repair_views import RepairRequest
from blockviz.types import BlockId, Comparison, ComparisonColumn, PruningPlan

REQUEST = CompareRequest(
    RepairRequest(PruningPlan((BlockId(1, "attn"),)), ("writer_refit", "asc")), "Hello"
)


@pytest.fixture(autouse=True)
def short_plotly_js(monkeypatch):
    monkeypatch.setattr("blockviz.plots.card.plotly_js", lambda: "/* plotly.js */")


@pytest.fixture
def comparison() -> Comparison:
    return make_comparison(make_info(4), REQUEST)


def by_hand(comparison: Comparison, *nll: tuple[float, ...]) -> Comparison:
    columns = tuple(replace(c, window_nll=w) for c, w in zip(comparison.columns, nll, strict=False))
    return replace(comparison, columns=columns)


def test_dots_and_intervals_are_the_paired_differences(comparison):
    """Gaps 1 and 1.4: their mean is 1.2 and its error 0.2, so 1.96 of them are 0.392."""
    found = by_hand(comparison, (1.0, 3.0), (2.0, 4.4), (1.5, 3.5), (0.8, 2.8))
    card = comparison_card(found)
    (trace,) = card.figure.data
    assert trace.x == pytest.approx((1.2, 0.5, -0.2))
    assert trace.error_x.array == pytest.approx((0.392, 0.0, 0.0))
    low, high = card.figure.layout.xaxis.range
    assert low < -0.2 and high > 1.592
    assert list(trace.text) == ["Pruned", "Pruned + Writer refit", "Pruned + Activation statistics"]
    assert len(set(trace.marker.symbol[:2])) == 2  # not told apart by colour alone
    row = card.rows[1]
    assert row[1] == pytest.approx(math.exp(3.2), rel=1e-5)
    expected = (math.exp(1.2), math.exp(0.808), math.exp(1.592), 1.2, 0.2, 0.0)
    assert row[4:] == pytest.approx(expected, rel=1e-5)
    assert card.rows[0][4:9] == (1.0, 1.0, 1.0, 0.0, 0.0)


def test_the_figure_waits_for_a_variant_and_grows(comparison):
    parts = [*growing_comparison(make_info(4), REQUEST), comparison]
    assert [can_draw(p) for p in parts] == [False, False, True, True, True]
    with pytest.raises(ValueError, match="an original and a variant"):
        comparison_card(parts[1])
    cards = [comparison_card(p) for p in parts[2:]]
    assert [len(c.figure.data[0].x) for c in cards] == [1, 2, 3]
    assert [c.title.endswith("so far") for c in cards] == [True, True, False]
    heights = [c.figure.layout.height for c in cards]
    assert heights == sorted(set(heights))


def test_a_refused_column_has_no_dot_and_an_empty_row():
    found = make_comparison(make_info(4), REQUEST, refused="No. There is none. Choose another.")
    card = comparison_card(found)
    assert len(card.figure.data[0].x) == 1
    assert [row[1:] for row in card.rows[2:]] == [("",) * 9] * 2


def test_a_perplexity_beyond_all_numbers_is_still_a_figure(comparison):
    found = by_hand(comparison, (1.0, 1.0), (5000.0, 5001.0))
    card = comparison_card(found)
    assert all(math.isfinite(c) for row in card.rows for c in row if isinstance(c, float))
    assert json.loads(card.figure.to_json())


def test_names_of_columns():
    def name(label, title=""):
        return column_name(ComparisonColumn(label, title))

    assert name("original", "Original") == "Original" and name("none", "Pruned") == "Pruned"
    assert name("ridge:ridge=0.01", "Ridge map") == "Pruned + Ridge map (ridge=0.01)"
    assert name("asc") == "Pruned + asc"


def test_the_note_says_model_text_part_seed_and_tokens(comparison):
    note = measured_note(comparison)
    for part in ("SmolLM2", "bfloat16", "16 × 512 tokens", "seed 42", "evaluation part",
                 "8176 tokens predicted"):  # fmt: skip
        assert part in note


@pytest.mark.parametrize("nasty", NASTY)
def test_foreign_text_is_neutral(nasty):
    markup = re.compile(r"<[^>]*>|&(?!#\d+;)|[$]|%{[^}]*}|[\x00-\x1f\u202e\ud800]")
    one, plain = titled(nasty), titled("p" * len(nasty))
    ours, theirs = (texts_of(card.figure.to_plotly_json()) for card in (one, plain))
    assert len(ours) > 8
    for text, expected in zip(ours, theirs, strict=True):
        assert markup.findall(text) == markup.findall(expected)
    page = one.html()
    page.encode("utf-8")
    assert page.count("<script") == 2


def titled(text: str) -> FigureCard:
    """The card of corrections and a data set with this name."""
    found = make_comparison(make_info(4), REQUEST, dataset=text)
    return comparison_card(replace(
        found, columns=tuple(replace(column, title=text) for column in found.columns)
    ))  # fmt: skip
