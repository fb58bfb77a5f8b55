"""The figure of a contest: what is drawn is what was measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from test_figures import NASTY, texts_of

from blockviz.plots import FigureCard
from blockviz.plots.contest import contest_card
from blockviz.types import Answered, Contest, Entry, Provenance


def entry(name: str, draw: int, nll: float, **more: object) -> Entry:
    usual = {"bare": nll + 0.5, "rise": nll - 3.0, "n_parameters": 90, "repair": "asc"}
    return Entry(name, name.title(), draw, nll=nll, **{**usual, **more})


@pytest.fixture
def contest() -> Contest:
    provenance = Provenance(None, "demo", "", "", "float32", "cpu", 1, {})
    entries = (
        Entry("original", "Original", 0, nll=3.0, rise=0.0, n_parameters=100,
              tasks={"piqa": Answered(0.6, 0.1, 10)}),
        entry("far", 1, 5.0), entry("near", 1, 4.0),
        entry("far", 2, 5.4), entry("near", 2, 4.2, repair=""),
        entry("none", 1, math.nan, refused="It cannot. There is none. Leave it."),
    )  # fmt: skip
    return Contest(provenance, 90, {"layers": 7, "n_samples": 32, "seq_len": 128}, entries, 99)


def test_rows_are_recipes_the_best_first_with_a_dot_a_draw(contest):
    card = contest_card(contest)
    unrepaired, draws, means = card.figure.data
    assert list(zip(draws.y, draws.x, strict=True)) == [(0, 4.0), (0, 4.2), (1, 5.0), (1, 5.4)]
    assert list(means.x) == pytest.approx([4.1, 5.2]) and list(means.y) == [0, 1]
    # What has no repair has no cross.
    assert list(zip(unrepaired.y, unrepaired.x, strict=True)) == [(0, 4.5), (1, 5.5), (1, 5.9)]
    low, high = card.figure.layout.xaxis.range
    assert low < 3.0 and high > 5.9
    assert len({t.marker.symbol for t in card.figure.data}) == 3
    assert "7 layers" in card.reading and "99 tokens" in card.provenance_note


def test_a_recipe_that_breaks_the_model_does_not_flatten_the_others(contest):
    """Of rises 1.1, 2.2 and 40 the median is 2.2: three times that, 9.6, is the edge."""
    broken = replace(contest, entries=(*contest.entries, entry("broken", 1, 43.0)))
    card = contest_card(broken)
    low, high = card.figure.layout.xaxis.range
    assert low < 3.0 and 5.9 < high < 7.0
    said = [a.text for a in card.figure.layout.annotations]
    # It met in one draw, the others in two.
    assert f"{math.exp(43.0):.4g} * →" in said and sum("→" in text for text in said) == 1
    assert sum("*" in text for text in said) == 1
    assert card.rows[-1][3] == pytest.approx(math.exp(43.0), rel=1e-5)


def test_the_table_has_every_number_and_no_refused_entry(contest):
    card = contest_card(contest)
    assert [row[0] for row in card.rows] == ["Original", "Far", "Near", "Far", "Near"]
    near = card.rows[2]
    assert near[3] == pytest.approx(math.exp(4.0), rel=1e-5)
    assert near[5] == pytest.approx(math.exp(4.5), rel=1e-5)
    assert card.rows[0][10] == 0.6 and card.rows[1][9:11] == ("", "")
    assert isinstance(card, FigureCard) and json.loads(card.figure.to_json())


def test_without_a_number_there_is_no_figure(contest):
    with pytest.raises(ValueError, match="a recipe with a number"):
        contest_card(replace(contest, entries=contest.entries[:1]))


def test_hostile_names_are_text(contest):
    entries = [replace(contest.entries[1], name=f"n{i}", title=t) for i, t in enumerate(NASTY)]
    card = contest_card(replace(contest, entries=(contest.entries[0], *entries)))
    texts = texts_of(card.figure.to_plotly_json())
    assert texts
    for text in texts:
        own = text.replace("<b>%{text}</b><br>", "").replace("<extra></extra>", "")
        assert "<" not in own
