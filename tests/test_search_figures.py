"""Figures of searches and interactions: what is drawn is what was given, and nothing unmeasured."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from test_figures import NASTY, PROVENANCE, texts_of

from blockviz.errors import BadPlan
from blockviz.plots import (
    CurveLine,
    CurvePoint,
    FigureCard,
    pairs_card,
    removal_curves,
    search_grid,
    search_progress,
    stand_ins_card,
    surrogate_card,
)
from blockviz.plots.hover import in_lines
from blockviz.rankings import StandIn, Surrogate, clustered
from blockviz.types import BlockId, Interactions, SearchRun, SearchStep


@pytest.fixture(autouse=True)
def short_plotly_js(monkeypatch):
    monkeypatch.setattr("blockviz.plots.card.plotly_js", lambda: "/* plotly.js */")


def ids(*names: str) -> tuple[BlockId, ...]:
    return tuple(BlockId.parse(name) for name in names)


def interactions_of(n_layers: int) -> Interactions:
    """Every third pair is within its error; two in three are positive."""
    blocks = [BlockId(i, part) for i in range(n_layers) for part in ("attn", "mlp")]
    pairs = {p: 0.01 * (i % 9 - 2) for i, p in enumerate(combinations(blocks, 2))}
    stderr = {p: 1.0 if i % 3 == 0 else 0.001 for i, p in enumerate(pairs)}
    singles = {b: 0.1 + 0.01 * i for i, b in enumerate(blocks)}
    return Interactions(PROVENANCE, 2.0, singles, pairs, stderr, 8)


def step(*names: str, number: float | None = 20.0, confidence: float = 1.0) -> SearchStep:
    return SearchStep(ids(*names), number, 3.5, 14, confidence, 1.25)


def searched(*steps: SearchStep, **more) -> SearchRun:
    given = {"objective": "ppl", "unit_label": "perplexity", "strategy": "greedy", "unit": "block"}
    return SearchRun(PROVENANCE, **{**given, **more}, baseline=14.0, steps=steps)


SWAPPED = searched(
    step("3.attn", number=15.0, confidence=0.99),
    step("3.attn", "1.mlp", number=None),
    step("3.attn", "1.mlp", "0.mlp", number=18.0),
    step("1.mlp", "0.mlp", "2.attn", number=17.0),
    step("1.mlp", "0.mlp", "2.attn", "3.attn", number=math.inf),
)


def curve(label: str = "greedy") -> CurveLine:
    return CurveLine(
        label,
        (
            CurvePoint(0.05, 15.0, ("3.attn",)),
            CurvePoint(0.1, None, ("3.attn", "1.mlp")),
            CurvePoint(0.2, 18.0, ("3.attn", "1.mlp", "0.mlp")),
        ),
    )


CURRENT = CurvePoint(0.12, 16.0, ("2.mlp", "0.attn"), is_measured=False, low=15.0, high=19.0)


def sets_of(known: Interactions) -> dict[frozenset[BlockId], float]:
    blocks = sorted(known.singles)
    return {frozenset(blocks[i : i + 3]): 2.5 + 0.1 * i for i in range(len(blocks) - 2)}


def every_card(text: str = "greedy") -> list[FigureCard]:
    known = interactions_of(4)
    run = replace(SWAPPED, strategy=text, objective=text, unit_label=text)
    pair = StandIn(*ids("0.attn", "1.mlp"), 0.5, 0.1)
    return [
        pairs_card(known),
        pairs_card(known, order=clustered(known)),
        stand_ins_card([pair], provenance=PROVENANCE),
        surrogate_card(Surrogate(known), sets_of(known)),
        removal_curves([curve(text)], baseline=14.0, unit_label=text, current=CURRENT),
        search_progress(run),
        search_grid(run, n_layers=4),
    ]


# All of them


def test_every_card_is_a_see_through_figure_of_fixed_height_with_source():
    cards = every_card()
    assert len({one.key for one in cards}) == len(cards)
    for one in cards:
        layout = one.figure.layout
        assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0, 0, 0, 0)"
        assert layout.height
        assert layout.width is None
        assert one.citation
        assert one.rows
        assert one.title in one.html()


@pytest.mark.parametrize("nasty", NASTY)
def test_foreign_text_is_neutral(nasty):
    markup = re.compile(r"<[^>]*>|&(?!#\d+;)|[$]|%{[^}]*}|[\x00-\x1f\u202e\ud800]")
    for one, plain in zip(every_card(nasty), every_card("p" * len(nasty)), strict=True):
        ours, theirs = (texts_of(c.figure.to_plotly_json()) for c in (one, plain))
        for text, expected in zip(ours, theirs, strict=True):
            assert markup.findall(text) == markup.findall(expected), one.key
        page = one.html()
        page.encode("utf-8")
        assert page.count("<script") == 2


def test_long_lists_of_blocks_become_short_lines():
    assert in_lines(()) == "nothing"
    assert in_lines(["0.mlp"] * 7) == ", ".join(["0.mlp"] * 6) + ",<br>0.mlp"
    assert in_lines(["0.mlp"] * 60).endswith("<br>and 12 more")


# Pairs


def drawn_pairs(one: FigureCard) -> tuple[dict, dict]:
    """(block, block) -> number of the cells that are told from 0, and of the faded ones."""
    found = []
    for faded, trace in zip((True, False), one.figure.data[:2], strict=True):
        cells = {
            (y, x): z
            for y, row in zip(trace.y, trace.z, strict=True)
            for x, z in zip(trace.x, row, strict=True)
            if z is not None
        }
        assert (trace.opacity < 0.5) is faded
        found.append(cells)
    return found[1], found[0]


@pytest.mark.parametrize("n_layers", [2, 15, 40])
@pytest.mark.parametrize("is_clustered", [False, True])
def test_every_pair_is_drawn_twice_and_faded_within_its_error(n_layers, is_clustered):
    known = interactions_of(n_layers)
    one = pairs_card(known, order=clustered(known) if is_clustered else None)
    clear, faded = drawn_pairs(one)
    assert not clear.keys() & faded.keys()
    assert len(clear) + len(faded) == 2 * len(known.pairs)
    for (a, b), value in known.pairs.items():
        cells = clear if abs(value) >= 2 * known.stderr[a, b] and value else faded
        assert cells[str(a), str(b)] == cells[str(b), str(a)] == pytest.approx(value)
    heat = one.figure.data[1]
    assert heat.zmin == -heat.zmax
    assert list(one.figure.layout.xaxis.categoryarray) == list(heat.x)
    assert list(heat.x) == [
        str(b) for b in (clustered(known) if is_clustered else sorted(known.singles))
    ]
    assert len(one.rows) == len(known.singles) + len(known.pairs)


def test_the_table_of_pairs_has_single_cuts_then_the_strongest_pairs():
    known = replace(
        interactions_of(1), pairs={ids("0.attn", "0.mlp"): -0.25},
        stderr={ids("0.attn", "0.mlp"): 0.125}, is_partial=True,
    )  # fmt: skip
    assert pairs_card(known).rows == (
        ("0.attn", "alone", 0.1, ""),
        ("0.mlp", "alone", 0.11, ""),
        ("0.attn", "0.mlp", -0.25, 0.125),
    )


def test_pairs_not_measured_yet_are_blank():
    known = replace(interactions_of(2), is_partial=True)
    first = dict(list(known.pairs.items())[:2])
    clear, faded = drawn_pairs(pairs_card(replace(known, pairs=first)))
    assert len(clear) + len(faded) == 4
    nothing = pairs_card(replace(known, pairs={}, stderr={}))
    assert nothing.figure.data[1].zmax == 1


def test_an_order_names_every_block_once():
    known = interactions_of(2)
    with pytest.raises(ValueError, match="every block"):
        pairs_card(known, order=sorted(known.singles)[1:])


def test_stand_ins_are_bars_with_errors_in_their_order():
    pairs = [StandIn(*ids("0.attn", "9.mlp"), 0.5, 0.1), StandIn(*ids("1.mlp", "2.mlp"), 0.2, 0.05)]
    one = stand_ins_card(pairs)
    (bars,) = one.figure.data
    assert tuple(bars.x) == (0.5, 0.2)
    assert tuple(bars.error_x.array) == (0.1, 0.05)
    assert tuple(one.figure.layout.yaxis.ticktext) == ("0.attn and 9.mlp", "1.mlp and 2.mlp")
    assert one.figure.layout.yaxis.range[0] > one.figure.layout.yaxis.range[1]
    assert one.rows[1] == ("1.mlp", "2.mlp", 0.2, 0.05)
    none = stand_ins_card([])
    assert none.figure.layout.annotations[0].text == "no pair can be told from 0"
    assert none.rows == ()


def test_the_check_sets_foretold_against_measured_and_says_tau():
    known = interactions_of(4)
    measured = {**sets_of(known), frozenset(ids("0.attn", "3.mlp", "3.attn")): math.inf}
    surrogate = Surrogate(known)
    one = surrogate_card(surrogate, measured)
    line, dots = one.figure.data
    assert tuple(line.x) == tuple(line.y) == (min(dots.x), max(dots.x))
    finite = {s: v for s, v in measured.items() if math.isfinite(v)}
    assert tuple(dots.x) == pytest.approx([math.exp(v) for v in finite.values()])
    foretold = [surrogate.predict(s) for s in finite]
    assert tuple(dots.y) == pytest.approx([p.perplexity for p in foretold])
    high = [a + b for a, b in zip(dots.y, dots.error_y.array, strict=True)]
    assert high == pytest.approx([math.exp(p.nll + 2 * p.stderr) for p in foretold])
    assert f"{surrogate.rank_agreement(finite).tau:.2f}" in one.reading
    assert f"{len(finite)} sets" in one.reading
    with pytest.raises(ValueError, match="can be foretold"):
        surrogate_card(surrogate, {frozenset(ids("9.mlp")): 2.0})


# Curves


def test_only_measured_points_are_drawn_and_joined_from_the_whole_model_on():
    one = removal_curves([curve()], baseline=14.0)
    (line,) = one.figure.data
    assert tuple(line.x) == (0, 0.05, 0.1, 0.2)
    assert tuple(line.y) == (14.0, 15.0, None, 18.0)
    assert line.connectgaps is False
    assert tuple(line.customdata) == ("", "3.attn", "3.attn,1.mlp", "3.attn,1.mlp,0.mlp")
    assert one.figure.layout.shapes[0].y0 == 14.0
    foretold = CurveLine("x", (CurvePoint(0.1, 15.0, ("3.attn",), is_measured=False),))
    assert tuple(removal_curves([foretold]).figure.data[0].y) == (None,)
    assert one.rows[1] == ("greedy", 0.05, 15.0, "", "", "3.attn")
    assert one.rows[2][2] == ""


def test_a_line_that_has_the_whole_model_keeps_its_own():
    own = CurveLine("x", (CurvePoint(0, 13.0, ()), CurvePoint(0.1, 15.0, ("3.attn",))))
    assert tuple(removal_curves([own], baseline=14.0).figure.data[0].y) == (13.0, 15.0)


def test_lines_differ_in_hue_dash_and_marker():
    traces = removal_curves([curve("a"), curve("b")]).figure.data
    assert traces[0].line.dash != traces[1].line.dash
    assert traces[0].line.color != traces[1].line.color
    assert traces[0].marker.symbol != traces[1].marker.symbol


def test_few_short_names_stand_at_their_lines_apart_and_others_in_a_legend():
    few = removal_curves([curve("a"), curve("b"), curve("c")])
    texts = [(a.text[-1], a.yshift) for a in few.figure.layout.annotations]
    assert [text for text, _ in texts] == ["a", "b", "c"]
    shifts = [shift for _, shift in texts]
    assert [b - a for a, b in pairwise(shifts)] == pytest.approx([15, 15])
    assert few.figure.layout.showlegend is False
    two_rows = removal_curves([curve("a, 3 blocks"), curve("b")]).figure.layout
    assert [a.text.endswith("a,<br>3 blocks") for a in two_rows.annotations] == [True, False]
    assert two_rows.annotations[1].yshift - two_rows.annotations[0].yshift == pytest.approx(22.5)
    assert two_rows.margin.r < removal_curves([curve("a: 3 blocks")]).figure.layout.margin.r
    assert removal_curves([curve("a" * 40)]).figure.layout.showlegend is True
    assert removal_curves([curve(str(i)) for i in range(9)]).figure.layout.showlegend is True


@pytest.mark.parametrize("is_log", [True, False])
def test_the_view_holds_all_numbers_on_either_scale(is_log):
    axis = removal_curves(
        [curve()], baseline=14.0, is_log=is_log, current=replace(CURRENT, number=100.0)
    ).figure.layout.yaxis
    low, high = (10**v if is_log else v for v in axis.range)
    assert axis.type == ("log" if is_log else None)
    assert low < 14 < 100 < high


def ending_at(*numbers: float) -> list[CurveLine]:
    return [CurveLine(f"m{i}", (CurvePoint(0.1, n, ("3.attn",)),)) for i, n in enumerate(numbers)]


@pytest.mark.parametrize("is_log", [True, False])
def test_a_few_of_many_lines_leave_the_figure_and_it_says_so(is_log):
    def drawn(*ends: float, own: float | None = None) -> tuple[float, str]:
        current = None if own is None else CurvePoint(0.1, own, ("0.mlp",))
        layout = removal_curves(
            ending_at(*ends), baseline=14.0, is_log=is_log, current=current
        ).figure.layout
        end = layout.yaxis.range[1]
        told = " ".join(a.text for a in layout.annotations)
        return 10**end if is_log else end, told

    end, told = drawn(*range(20, 27), 1e5, 1e8)
    assert 26 < end < 100
    assert "2 lines go on above" in told
    end, told = drawn(*range(20, 27), 1e5, 1e8, own=5e5)
    assert 5e5 < end < 1e8
    assert "1 line goes on above" in told
    for ends in ((20, 21, 1e8), (*range(20, 27), 200, 250), (20, 21, 22, 23, *[1e5] * 5)):
        end, told = drawn(*ends)
        assert end > max(ends)
        assert "above" not in told


def test_the_name_of_the_whole_model_stands_where_no_curve_ends():
    def side(*ends: float) -> str:
        marks = removal_curves(ending_at(*ends), baseline=14.0).figure.layout.annotations
        return next(a.yanchor for a in marks if a.text == "nothing removed")

    assert side(15.0, 16.0) == "top"
    assert side(13.0, 16.0) == "bottom"


def test_the_set_of_now_is_hollow_until_it_is_measured():
    lines = [curve()]
    foretold = removal_curves(lines, current=CURRENT)
    mark = foretold.figure.data[-1]
    assert (tuple(mark.x), tuple(mark.y), tuple(mark.customdata)) == (
        (0.12,),
        (16.0,),
        ("2.mlp,0.attn",),
    )
    assert mark.marker.symbol == "diamond-open"
    assert (tuple(mark.error_y.array), tuple(mark.error_y.arrayminus)) == ((3.0,), (1.0,))
    assert foretold.rows[-1] == ("your set, foretold", 0.12, 16.0, 15.0, 19.0, "2.mlp, 0.attn")
    measured = removal_curves(
        lines, current=replace(CURRENT, is_measured=True, low=None, high=None)
    )
    assert measured.figure.data[-1].marker.symbol == "diamond"
    assert measured.rows[-1][0] == "your set"
    unknown = removal_curves(lines, current=replace(CURRENT, number=None))
    assert len(unknown.figure.data) == 1


def test_numbers_without_a_place_on_the_scale_are_left_out():
    points = tuple(CurvePoint(0.1 * i, n, ()) for i, n in enumerate((1.0, 0.0, math.inf, 2.0)))
    lines = [CurveLine("kl", points)]
    assert tuple(removal_curves(lines, baseline=0.0).figure.data[0].y) == (1.0, None, None, 2.0)
    linear = removal_curves(lines, baseline=0.0, is_log=False)
    assert tuple(linear.figure.data[0].y) == (1.0, 0.0, None, 2.0)
    assert removal_curves([], baseline=14.0).rows == ()


def test_a_point_checks_itself():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        CurvePoint(1.5, 10.0, ())
    with pytest.raises(BadPlan):
        CurvePoint(0.5, 10.0, ("<b>",))


# A search


def test_progress_draws_every_decision_and_breaks_where_nothing_was_measured():
    one = search_progress(SWAPPED)
    (line,) = one.figure.data
    assert tuple(line.x) == (0, 1, 2, 3, 4, 5)
    assert tuple(line.y) == (14.0, 15.0, None, 18.0, 17.0, None)
    assert line.connectgaps is False
    assert line.customdata[:3] == ("", "3.attn", "3.attn,1.mlp")
    assert "sure to 99 &#37;" in line.text[1]
    assert "3.5 of 14 evaluations" in line.text[1]
    assert [row[1] for row in one.rows] == [
        "3.attn", "1.mlp", "0.mlp", "2.attn, −3.attn", "3.attn",
    ]  # fmt: skip
    assert one.rows[0] == (1, "3.attn", 15.0, 3.5, 14, 0.99, 1.25)
    assert one.figure.layout.shapes[0].y0 == 14.0
    assert one.title == "What each decision cost: greedy on ppl"


def test_a_search_that_runs_is_drawn_from_its_first_moment():
    begun = search_progress(searched(is_partial=True))
    assert begun.title == "What each decision cost so far: greedy on ppl"
    assert tuple(begun.figure.data[0].y) == (14.0,)
    assert begun.rows == ()
    assert search_grid(searched(is_partial=True)).rows == ()


def drawn_steps(one: FigureCard) -> dict[str, int]:
    return {
        name: step
        for trace in one.figure.data[1::2]
        for names, row in zip(trace.customdata, trace.z, strict=True)
        for name, step in zip(names, row, strict=True)
        if step is not None
    }


def test_the_grid_shows_the_decision_since_which_a_block_is_gone_for_good():
    one = search_grid(SWAPPED, n_layers=4)
    assert drawn_steps(one) == {"1.mlp": 2, "0.mlp": 3, "2.attn": 4, "3.attn": 5}
    assert one.rows == (("1.mlp", 2), ("0.mlp", 3), ("2.attn", 4), ("3.attn", 5))
    (shown,) = [t for t in one.figure.data if t.texttemplate == "%{text}"]
    inks = {re.sub("<[^>]*>", "", t): t for row in shown.text for t in row if t}
    assert sorted(inks) == ["2", "3", "4", "5"]
    assert ["#ffffff" in inks[step] for step in "2345"] == [True, False, False, False]


def test_a_layer_is_its_two_blocks_in_the_grid():
    run = searched(step("2.layer"), step("2.layer", "0.layer"), unit="layer")
    assert drawn_steps(search_grid(run)) == {"2.attn": 1, "2.mlp": 1, "0.attn": 2, "0.mlp": 2}


@pytest.mark.parametrize(("n_layers", "n_strips"), [(4, 1), (16, 1), (30, 2), (80, 5)])
def test_the_grid_has_every_layer_once_in_strips_of_at_most_16(n_layers, n_strips):
    one = search_grid(searched(step("0.mlp")), n_layers=n_layers)
    strips = one.figure.data[::2]
    assert len(strips) == n_strips
    assert [x for trace in strips for x in trace.x] == list(range(n_layers))
    widths = {tuple(b - a for a, b in [axis.range]) for axis in one.figure.select_xaxes()}
    assert len(widths) == 1
    cells = [sum(z is not None for row in t.z for z in row) for t in one.figure.data]
    assert sum(cells) == 2 * n_layers


def test_the_grid_refuses_a_block_beyond_the_model():
    with pytest.raises(ValueError, match="beyond 2 layers"):
        search_grid(SWAPPED, n_layers=2)


def test_a_search_survives_its_json_as_the_same_figure():
    read = SearchRun.from_json(
        json.loads(json.dumps(replace(SWAPPED, steps=SWAPPED.steps[:4]).to_json()))
    )
    for draw in (search_progress, search_grid):
        expected = draw(replace(SWAPPED, steps=SWAPPED.steps[:4]))
        assert draw(read).figure.to_json() == expected.figure.to_json()
