"""Figures of corrections: what is drawn is what was fitted, and harm is said in words."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from fake_engine import make_info
from fake_repair import NONE, ORIGINAL, make_fit, make_repair
from test_figures import NASTY, texts_of

from blockviz.plots import (
    FigureCard,
    fit_card,
    has_channels,
    moment_card,
    place_name,
    repairs_card,
    rho_card,
    row_name,
    size_card,
)
from blockviz.plots.repair import nice_ticks
from blockviz.plots.repair_channels import MOST_POINTS, worse_when_matched
from blockviz.session import ScoreRequest
from blockviz.session.repair_views import RepairRequest
from blockviz.types import CHANNELS, BlockId, PlaceFit, PruningPlan, RepairRow, RepairTable


@pytest.fixture(autouse=True)
def short_plotly_js(monkeypatch):
    monkeypatch.setattr("blockviz.plots.card.plotly_js", lambda: "/* plotly.js */")


def ids(*names: str) -> tuple[BlockId, ...]:
    return tuple(BlockId.parse(name) for name in names)


def table_of(n_gaps: int = 3, *, n_channels: int = 32, **more) -> RepairTable:
    info = make_info(max(4, 2 * n_gaps))
    removed = tuple(BlockId(2 * i, "attn") for i in range(n_gaps))
    text = ScoreRequest(n_samples=8, seq_len=64)
    names = ("asc", "mean", "replaceme", "fold_asc")
    request = RepairRequest(PruningPlan(removed), names, text)
    return make_repair(info, request, n_channels=n_channels, **more)


def fit_of(**changes) -> PlaceFit:
    usual = {
        "block": BlockId(3, "attn"), "gap": ids("3.attn"), "before": 0.4, "after": 0.1,
        "held_before": 0.4, "held_after": 0.2, "size_before": 1.0, "size_after": 1.9,
        "size_whole": 2.0,
    }  # fmt: skip
    return PlaceFit(**{**usual, **changes})


def channels(**rows: tuple[float, ...]) -> dict[str, tuple[float, ...]]:
    n = len(next(iter(rows.values())))
    usual = {name: (1.0 if name.startswith("std") else 0.0,) * n for name in CHANNELS}
    return {**usual, **rows}


def with_fits(*fits: PlaceFit, **more) -> tuple[RepairTable, RepairRow]:
    table = table_of()
    row = replace(table.rows[2], fits=fits, **more)
    return replace(table, rows=(*table.rows[:2], row)), row


def every_card(table: RepairTable) -> list[FigureCard]:
    row = table.rows[2]
    cards = [repairs_card(table), fit_card(table, row), size_card(table, row)]
    if has_channels(row.fits[0]):
        cards += [moment_card(table, row, row.fits[0], kind) for kind in ("mean", "std")]
        cards += [rho_card(table, row, row.fits[0])]
    return cards


@pytest.mark.parametrize("n_gaps", [1, 3, 40])
@pytest.mark.parametrize("n_channels", [1, 32, 8192])
def test_every_card_is_a_see_through_figure_of_fixed_height(n_gaps, n_channels):
    if n_gaps == 40 and n_channels == 8192:
        n_gaps = 2  # the fake takes its time, and the figures do not grow with both
    for card in every_card(table_of(n_gaps, n_channels=n_channels)):
        layout = card.figure.layout
        assert layout.height >= 98 and layout.width is None
        assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0, 0, 0, 0)"
        assert "perplexity on Wikipedia passages" in card.provenance_note
        assert "seed 42" in card.provenance_note and "bfloat16" in card.provenance_note
        assert json.loads(card.figure.to_json())
        assert len(card.rows) <= MOST_POINTS


@pytest.mark.parametrize("nasty", NASTY)
def test_foreign_text_is_neutral(nasty):
    markup = re.compile(r"<[^>]*>|&(?!#\d+;)|[$]|%{[^}]*}|[\x00-\x1f\u202e\ud800]")
    for one, plain in zip(titled(nasty), titled("p" * len(nasty)), strict=True):
        ours, theirs = (texts_of(c.figure.to_plotly_json()) for c in (one, plain))
        for text, expected in zip(ours, theirs, strict=True):
            assert markup.findall(text) == markup.findall(expected), one.key
        page = one.html()
        page.encode("utf-8")
        assert page.count("<script") == 2


def titled(text: str) -> list[FigureCard]:
    """Every card of corrections and a data set with this name and these settings."""
    table = table_of(2, n_channels=4, dataset=text)
    rows = [replace(row, title=text, correction=f"{i}:{text}") for i, row in enumerate(table.rows)]
    return every_card(replace(table, rows=tuple(rows), best=f"2:{text}"))


# Bars


def test_a_bar_runs_from_the_bare_plan_to_its_correction():
    table = table_of()
    bars = repairs_card(table).figure.data[0]
    ends = [b + x for b, x in zip(bars.base, bars.x, strict=True)]
    assert bars.base == (NONE,) * 4
    wanted = [row.nll for row in table.rows[2:5]]
    assert ends[:3] == pytest.approx(wanted)
    # Beyond the figure a bar is cut, and says so.
    assert ends[3] == pytest.approx(NONE + 0.6 * (NONE - ORIGINAL))
    assert ends[3] < table.rows[5].nll
    card = repairs_card(table)
    assert "goes on beyond" in card.reading
    said = [a.text for a in card.figure.layout.annotations]
    assert f"{table.rows[5].perplexity:.4g} →" in said
    assert "original 32.9" in said and "nothing repaired 96.7" in said


def test_a_correction_that_harms_is_hatched_and_of_another_hue():
    bars = repairs_card(table_of()).figure.data[0]
    assert bars.marker.pattern.shape == ("", "/", "", "/")
    assert bars.marker.color[0] == bars.marker.color[2] != bars.marker.color[1]


def test_the_best_is_named_so_and_refused_ones_stand_in_the_table_only():
    table = table_of()
    assert table.best == "replaceme"
    card = repairs_card(table)
    assert "<b>ReplaceMe · best</b>" in [a.text for a in card.figure.layout.annotations]
    refused = RepairRow("asc:site=gap", "ASC", refused="No bias. None. Leave it out.")
    card = repairs_card(replace(table, rows=(*table.rows, refused)))
    assert len(card.figure.data[0].x) == 4
    assert card.rows[-1][0] == "ASC (site=gap)"
    assert card.rows[-1][1] == "" and card.rows[-1][-1].startswith("No bias.")


def test_the_table_gives_the_error_of_the_change_and_not_of_its_logarithm():
    table = table_of()
    mean = replace(table.rows[2], rise=math.log(3), rise_stderr=0.1)
    row = repairs_card(replace(table, rows=(*table.rows[:2], mean))).rows[2]
    # Three times the perplexity: up by 2, to 3 x 0.1.
    assert row[4:6] == (2.0, pytest.approx(0.3))


def test_the_share_of_the_gap_stands_beside_each_number():
    table = table_of()
    shares = {row[0]: row[6] for row in repairs_card(table).rows}
    assert shares["Original"] == 1.0 and shares["Nothing repaired"] == 0.0
    assert shares["ReplaceMe"] == pytest.approx(0.575)
    assert shares["Mean shift"] == pytest.approx(-0.08)


def test_nothing_is_drawn_before_both_ends_are_measured():
    table = table_of()
    with pytest.raises(ValueError, match="bare plan"):
        repairs_card(replace(table, rows=table.rows[:1]))
    unmeasured = replace(table.rows[1], nll=math.nan)
    with pytest.raises(ValueError, match="bare plan"):
        repairs_card(replace(table, rows=(table.rows[0], unmeasured, *table.rows[2:])))


@pytest.mark.parametrize(
    ("low", "high"), [(30, 100), (9.9, 10.1), (5, 1e9), (1, 1.2), (1e-300, 1e300), (50, 50.00001)]
)
def test_ticks_are_a_few_round_numbers_between_the_ends(low, high):
    ticks = nice_ticks(math.log(low), math.log(high))
    assert 2 <= len(ticks) <= 9
    assert all(low * 0.999 <= t <= high * 1.001 for t in ticks)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (31.9, 99, [40, 50, 60, 70, 80, 90]),
        (31.9, 102, [40, 60, 80, 100]),
        (17.9, 22.4, [18, 19, 20, 21, 22]),
        (29.9, 301, [30, 50, 70, 100, 150, 200, 300]),
        (33, 33.07, [33, 33.02, 33.04, 33.06]),
        (20, 20, [20, 20]),
    ],
)
def test_ticks_are_as_round_as_the_room_between_the_ends_allows(low, high, expected):
    assert nice_ticks(math.log(low), math.log(high)) == pytest.approx(expected)


# Along depth


def test_places_stand_at_their_depth_in_order():
    table, row = with_fits(
        fit_of(block=BlockId(5, "mlp"), gap=ids("4.mlp", "5.attn", "5.mlp")), fit_of()
    )
    for card in (fit_card(table, row), size_card(table, row)):
        assert card.figure.data[0].x == (3.0, 5.5)
        assert [r[0] for r in card.rows] == ["3.attn", "4.mlp to 5.mlp"]


def test_a_place_that_is_not_its_gap_names_both():
    assert place_name(fit_of(block=BlockId(2, "mlp"))) == "3.attn, in 2.mlp"
    assert place_name(fit_of(block=BlockId(2, "mlp"), gap=())) == "2.mlp"


def test_held_out_harm_is_marked_in_the_figure_and_in_words():
    """Better on what it was fitted on, worse on what it has not seen."""
    table, row = with_fits(fit_of(held_after=0.5), fit_of(block=BlockId(6, "mlp")))
    card = fit_card(table, row)
    crosses = card.figure.data[-1]
    assert crosses.name == "worse than doing nothing"
    assert (crosses.x, crosses.y) == ((3.0,), (0.5,))
    assert [r[-1] for r in card.rows] == ["worse than doing nothing", "closer"]


def test_without_held_out_windows_the_fitted_ones_decide():
    table, row = with_fits(fit_of(after=0.6, held_before=None, held_after=None))
    card = fit_card(table, row)
    assert [t.name for t in card.figure.data] == [
        "before, fitted", "repaired, fitted", "worse than doing nothing"
    ]  # fmt: skip
    assert card.rows[0][3:5] == ("", "")


def test_the_size_of_the_bare_plan_is_drawn_where_it_is_known():
    table, row = with_fits(fit_of())
    names = [t.name for t in size_card(table, row).figure.data]
    assert names == ["whole model", "before its repair", "repaired"]
    bare = replace(table.rows[1], fits=(fit_of(size_after=0.7),))
    known = replace(table, rows=(table.rows[0], bare, row))
    line = size_card(known, row).figure.data[1]
    assert (line.name, line.y) == ("nothing repaired", (0.7,))


# Channels


def test_a_scatter_sets_every_channel_against_the_whole_model():
    rows = channels(mean_whole=(1.0, -2.0), mean_before=(0.5, -1.0), mean_after=(1.0, -1.9))
    table, row = with_fits(fit_of(channels=rows))
    card = moment_card(table, row, row.fits[0], "mean")
    _, before, after = card.figure.data
    assert (before.x, before.y) == ((1.0, -2.0), (0.5, -1.0))
    assert after.y == (1.0, -1.9)
    assert card.rows == ((0, 1.0, 0.5, 1.0), (1, -2.0, -1.0, -1.9))


def test_one_huge_channel_does_not_press_the_others_together():
    values = (*np.linspace(-1, 1, 63), 1000.0)
    table, row = with_fits(
        fit_of(channels=channels(mean_whole=values, mean_before=values, mean_after=values))
    )
    card = moment_card(table, row, row.fits[0], "mean")
    assert "pressed together" in card.reading
    x = card.figure.data[1].x
    assert x[62] - x[0] > 0.2 * (x[63] - x[0])
    axis = card.figure.layout.xaxis
    assert "0" in axis.ticktext and len(axis.tickvals) == len(axis.ticktext)


def test_many_channels_are_thinned_and_that_is_said():
    values = tuple(float(i) for i in range(5000))
    table, row = with_fits(
        fit_of(channels=channels(mean_whole=values, mean_before=values, mean_after=values))
    )
    card = moment_card(table, row, row.fits[0], "mean")
    assert f"{MOST_POINTS} of 5000 channels" in card.reading
    assert len(card.figure.data[1].x) == MOST_POINTS
    assert (card.rows[0][0], card.rows[-1][0]) == (0, 4999)


def test_asc_is_foretold_to_harm_where_rho_is_low():
    """By hand: matched leaves 2 s_y² (1 - rho); nothing leaves s_u² + s_y² - 2 rho s_u s_y + d².

    Channel 0: 8 against 5. Channel 1: 0.8 against 1.4. Channel 2: 8 against 5 + 9.
    """
    rows = channels(
        std_whole=(2.0, 2.0, 2.0), std_before=(1.0, 1.0, 1.0), rho_before=(0.0, 0.9, 0.0),
        mean_before=(0.0, 0.0, 3.0),
    )  # fmt: skip
    fit = fit_of(channels=rows)
    assert worse_when_matched(fit) == (1, 3)
    table, row = with_fits(fit)
    assert "on 1 of 3 channels here it would be worse" in rho_card(table, row, fit).reading


def test_the_foretold_harm_is_that_of_matched_samples():
    """Another road: samples are matched and their distances compared."""
    draw = np.random.default_rng(0)
    y = draw.normal(1.0, 2.0, (4000, 12))
    u = y * np.linspace(0.05, 0.9, 12) + draw.normal(0, 0.8, y.shape)
    matched = (u - u.mean(0)) / u.std(0) * y.std(0) + y.mean(0)
    harmed = ((matched - y) ** 2).mean(0) > ((u - y) ** 2).mean(0)
    rho = [np.corrcoef(a, b)[0, 1] for a, b in zip(u.T, y.T, strict=True)]
    rows = channels(
        std_whole=tuple(y.std(0)), std_before=tuple(u.std(0)), rho_before=tuple(rho),
        mean_whole=tuple(y.mean(0)), mean_before=tuple(u.mean(0)),
    )  # fmt: skip
    assert 0 < harmed.sum() < 12
    assert worse_when_matched(fit_of(channels=rows)) == (int(harmed.sum()), 12)


def test_rho_is_drawn_lowest_first_and_coinciding_lines_are_explained():
    rows = channels(rho_before=(0.9, 0.1, 0.5), rho_after=(0.9, 0.1, 0.5))
    table, row = with_fits(fit_of(channels=rows))
    card = rho_card(table, row, row.fits[0])
    assert card.figure.data[0].y == (0.1, 0.5, 0.9)
    assert "two lines coincide" in card.reading
    moved = channels(rho_before=(0.9, 0.1, 0.5), rho_after=(0.9, 0.4, 0.6))
    table, row = with_fits(fit_of(channels=moved))
    card = rho_card(table, row, row.fits[0])
    assert card.figure.data[1].y == (0.4, 0.6, 0.9)
    assert "coincide" not in card.reading


def test_numbers_that_are_none_leave_holes_and_no_error():
    rows = channels(
        rho_before=(math.nan, 0.1), rho_after=(math.nan, 0.2), mean_before=(math.inf, 0.0),
        std_whole=(0.0, 1.0),
    )  # fmt: skip
    table, _ = with_fits(fit_of(channels=rows, size_before=math.inf))
    for card in every_card(table):
        assert json.loads(card.figure.to_json())
    empty = channels(**dict.fromkeys(CHANNELS, (math.nan,)))
    table, _ = with_fits(fit_of(channels=empty))
    assert every_card(table)


def test_a_place_without_channels_is_refused():
    table, row = with_fits(fit_of(channels={"mean_whole": (1.0,)}))
    assert not has_channels(row.fits[0])
    with pytest.raises(ValueError, match="no numbers"):
        rho_card(table, row, row.fits[0])


def test_a_table_survives_its_json_as_the_same_figures():
    table = table_of()
    again = RepairTable.from_json(json.loads(json.dumps(table.to_json())))
    for one, other in zip(every_card(table), every_card(again), strict=True):
        assert one.rows == other.rows and one.figure == other.figure


def test_settings_stand_behind_the_title():
    assert row_name(RepairRow("ridge:ridge=0.01", "Ridge map")) == "Ridge map (ridge=0.01)"
    assert row_name(RepairRow("own", "")) == "own"


def test_the_fake_s_places_are_in_its_own_gaps():
    fit = make_fit(ids("3.attn", "3.mlp"), 0.5)
    assert fit.block == BlockId(3, "mlp") and has_channels(fit)
