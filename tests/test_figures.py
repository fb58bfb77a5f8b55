"""Figure cards: what is drawn is what was given, so is the table, and foreign text stays text."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pytest
from fake_engine import make_info, make_table

from blockviz.plots import (
    FigureCard,
    MetricMatrix,
    agreement_card,
    between_card,
    cka_card,
    cumulative_card,
    gromov_card,
    heatmap_card,
    importance_lines,
    label,
    lens_card,
    lens_tokens_card,
    provenance_note,
    singles_card,
    slug,
    small_multiples,
    stability_card,
    verdict_card,
    visible,
)
from blockviz.plots.downloads import plotly_js
from blockviz.plots.frame import DASHES, HUES, SYMBOLS, Stroke
from blockviz.plots.lines import raw_rises
from blockviz.rankings.agreement import Agreement
from blockviz.rankings.stability import Between, Stability
from blockviz.rankings.verdict import MetricVerdict
from blockviz.types import (
    Block,
    BlockId,
    DataOrigin,
    Matrix,
    ModelInfo,
    Provenance,
    Scores,
    ScoreTable,
)
from blockviz.types.judgement import Judgement, Measured
from blockviz.types.lens import Lens
from blockviz.ui.figure_card import card_names, card_update

ORIGIN = DataOrigin("BoolQ <b>passages</b>", "calibration", "stream", 32, 128, 4096, 42, "0")
PROVENANCE = Provenance(ORIGIN, "tiny</script>", "12fd25f77366", "", "float32", "cpu", 2, {})
NASTY = (
    "<b>bold</b>", "$x^2$", "<a href='javascript:alert(1)'>x</a>", "\u202egnp.exe", "\n\n",
    "=1+1", "<br>", "&lt;", "</script><script>alert(1)</script>", "\x00", "%{z}", "\ud800",
)  # fmt: skip
# What plotly reads as markup when it finds it in a text.
MARKUP = ("<", ">", "$", "%", "\u202e", "\x00", "\n")


@pytest.fixture(autouse=True)
def short_plotly_js(monkeypatch):
    """A page without its 5 MB of plotly.js, which no test but one needs."""
    monkeypatch.setattr("blockviz.plots.card.plotly_js", lambda: "/* plotly.js */")


def info_of(n_layers: int) -> ModelInfo:
    blocks = tuple(
        Block(BlockId(i, part), 10, f"layers.{i}.{part}")
        for i in range(n_layers)
        for part in ("attn", "mlp")
    )
    return ModelInfo("tiny", "1", "llama", "float32", "cpu", n_layers, 8, 16, 32, 999, blocks)


def blocks_of(n_layers: int) -> list[BlockId]:
    return [b.id for b in info_of(n_layers).blocks]


def scores_of_blocks(n_layers: int, *, title: str = "Influence", sign: int = 1, **more) -> Scores:
    values = {b: 0.5 + ((7 * i) % 11) / 10 for i, b in enumerate(blocks_of(n_layers))}
    raw = {b: sign * v for b, v in values.items()}
    return Scores("bi", title, values, raw, "nats", **more)


def windowed(n_layers: int, *, sign: int = 1) -> Scores:
    """Layer l of a run of n weighs l + 10 n, so that layer 0 is always the first choice."""
    layers = {BlockId(i, "layer"): float(i) for i in range(n_layers)}
    windows = {
        (first, n): sign * float(first + 10 * n)
        for n in range(1, n_layers)
        for first in range(n_layers - n + 1)
    }
    raw = {b: sign * v for b, v in layers.items()}
    return Scores("ang_win", "Angle", layers, raw, windows=windows)


def judged(n_windows: int = 3) -> Judgement:
    def lost(blocks: tuple[BlockId, ...], rise: float) -> Measured:
        return Measured(blocks, tuple(2 + rise + 0.1 * i for i in range(n_windows)))

    a, b = BlockId(0, "attn"), BlockId(1, "mlp")
    singles = {block: lost((block,), 0.01 * (i + 1)) for i, block in enumerate(blocks_of(4))}
    curves = {"bi": (lost((a,), 0.1), lost((a, b), 0.4)), "rm": (lost((b,), 0.2),)}
    return Judgement(PROVENANCE, lost((), 0.0), singles, curves)


def lens_of(n_layers: int = 2, tokens: tuple[str, ...] = (" the", "x")) -> Lens:
    depths = ("embedding", *(str(b) for b in blocks_of(n_layers)))
    n, k = len(depths), len(tokens)
    chances = tuple(0.5 / (i + 1) for i in range(k))
    return Lens(
        PROVENANCE, ("The", " end"), 1, depths, (tokens,) * n, (chances,) * n,
        tuple(3 - i / n for i in range(n)), tuple(range(n, 0, -1)), tuple(i / 7 for i in range(n)),
    )  # fmt: skip


def agreed(titles: tuple[str, ...], tau: list[list[float]], order: tuple[int, ...]) -> Agreement:
    n = len(titles)
    return Agreement(titles, titles, np.array(tau), np.full((n, n), 8), order, (order,))


def steady(metric: str, mean: tuple[float, ...], title: str | None = None) -> Stability:
    low, high = (tuple(m + d for m in mean) for d in (-0.1, 0.05))
    return Stability(metric, title or metric, 8, 8, 20, 0, (1, 2, 4), mean, low, high)


def every_card(title: str = "Influence", n_layers: int = 4) -> list[FigureCard]:
    """One of each, all texts that may come from elsewhere set to `title`."""
    info = info_of(n_layers)
    blocks = scores_of_blocks(n_layers, title=title, baseline=0.4)
    runs = windowed(n_layers)
    runs = Scores(runs.metric, title, runs.values, runs.raw, title, windows=runs.windows)
    square = tuple(tuple(1 / (1 + abs(i - j)) for j in range(3)) for i in range(3))
    depths = Scores("cka", title, {}, {}, matrix=Matrix((title, "1", "2"), square))
    table = ScoreTable(PROVENANCE, {"bi": blocks, "ang_win": runs})
    tau = [[1.0, 0.5], [0.5, 1.0]]
    between = Between((title, "b"), ("bi",), (title,), np.array([tau]), np.array([0.5]))
    verdict = MetricVerdict("bi", title, "block", 8, 0.5, 0.4, 0.6)
    judgement = judged()
    return [
        importance_lines(blocks, info, provenance=PROVENANCE),
        small_multiples(table, info),
        gromov_card(runs, provenance=PROVENANCE),
        cka_card(depths, provenance=PROVENANCE),
        agreement_card(agreed((title, "b"), tau, (0, 1)), provenance=PROVENANCE),
        stability_card([steady("bi", (0.5, 0.6, 0.7), title)], provenance=PROVENANCE),
        between_card(between),
        verdict_card([verdict], provenance=PROVENANCE),
        singles_card(table, judgement, "bi"),
        cumulative_card(judgement, {"bi": title}),
        lens_card(lens_of(tokens=(title, "b"))),
        lens_tokens_card(lens_of(tokens=(title, "b"))),
    ]


# The card


def card(**more: object) -> FigureCard:
    parts = {
        "key": "a-figure", "title": "A figure", "reading": "Low = removable.", "citation": (),
        "figure": go.Figure(), "headers": ("block", "number"), "rows": (("0.attn", 0.5),),
    }  # fmt: skip
    return FigureCard(**{**parts, **more})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"reading": ""}, "one sentence"),
        ({"reading": "Low = removable"}, "one sentence"),
        ({"reading": "Low = removable. High = keep."}, "one sentence"),
        ({"title": " "}, "title"),
        ({"key": "../a"}, "key"),
        ({"rows": (("0.attn",),)}, "2 cells"),
        ({"rows": (("0.attn", math.nan),)}, "empty string"),
        ({"citation": (("x", "javascript:alert(1)"),)}, "http address"),
    ],
)
def test_a_card_checks_itself(wrong, said):
    with pytest.raises(ValueError, match=said):
        card(**wrong)


def test_a_number_in_a_reading_does_not_end_it():
    assert card(reading="Below 0.5 = unrelated.").reading == "Below 0.5 = unrelated."


def test_csv_guards_formulas_and_keeps_numbers():
    text = card(headers=("=x", "n"), rows=(("=1+1", -0.5), ("@a", ""))).csv()
    assert list(csv.reader(io.StringIO(text))) == [["'=x", "n"], ["'=1+1", "-0.5"], ["'@a", ""]]


class Page(HTMLParser):
    """Tags, texts outside scripts, and scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        (self.scripts if self._open == "script" else self.texts).append(data)


def test_the_page_asks_nobody_for_anything():
    for one in every_card():
        page = Page(one.html())
        names = [tag for tag, _ in page.tags]
        assert not {"link", "img", "iframe", "object", "base"} & set(names)
        assert all("src" not in attrs for _, attrs in page.tags)
        assert names.count("script") == 2
        policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
        assert "default-src 'none'" in policy
        assert "http" not in policy
        assert all(attrs["href"].startswith("http") for t, attrs in page.tags if t == "a")


def test_the_page_holds_the_figure_and_all_that_belongs_to_it():
    for one in every_card():
        page = Page(one.html())
        begin = page.scripts[-1].index("const drawings = ") + len("const drawings = ")
        drawings, _ = json.JSONDecoder().raw_decode(page.scripts[-1], begin)
        assert drawings == [["figure", json.loads(one.figure.to_json())]]
        cells = [str(c) for c in (one.title, one.reading, *one.headers, *sum(one.rows, ()))]
        shown = " ".join(page.texts)
        assert all(cell in shown for cell in cells)
        assert all(name in shown for name, _ in one.citation)
        assert one.provenance_note in shown


def test_the_page_carries_all_of_plotly_js_and_nothing_in_it_ends_the_script(monkeypatch):
    monkeypatch.setattr("blockviz.plots.card.plotly_js", plotly_js)
    text = card().html()
    assert plotly_js() in text
    assert len(plotly_js()) > 1_000_000
    assert "</script" not in plotly_js().lower()


# Foreign text


def test_labels_are_neither_markup_nor_formulas():
    assert label("<b>&$") == "&#60;b&#62;&#38;&#36;"
    assert label("&lt;") == "&#38;\u2060lt;"
    assert label("a" * 30, 20) == "a" * 19 + "…"
    for text in NASTY:
        assert not any(mark in label(text, 20) for mark in MARKUP)


def test_invisible_characters_are_shown():
    assert visible(" Paris") == "␣Paris"
    assert visible("\n") == "↵"
    assert visible("a\u202eb\x00") == "a⟨202E⟩b⟨0000⟩"
    assert visible("\ud800\u200b") == "⟨D800⟩⟨200B⟩"
    assert visible("\u00a0x") == "␣x"
    assert visible("a b") == "a b"


def test_a_slug_is_a_file_name():
    assert [slug(t) for t in ("lds:K=50", "../etc", "", "ümlaut")] == [
        "lds-k-50", "etc", "figure", "mlaut",
    ]  # fmt: skip


def texts_of(value: object, key: str = "") -> list[str]:
    """Every string of a figure that plotly draws as text."""
    if isinstance(value, dict):
        return [t for k, v in value.items() if k != "template" for t in texts_of(v, k)]
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in texts_of(v, key)]
    drawn = ("text", "ticktext", "name", "customdata", "hovertext", "hovertemplate")
    return [value] if isinstance(value, str) and key in drawn else []


@pytest.fixture(scope="module")
def plain_cards() -> list[FigureCard]:
    return every_card("plain")


@pytest.mark.parametrize("nasty", NASTY)
def test_foreign_text_is_neutral_in_every_figure_page_and_table(nasty, plain_cards):
    markup = re.compile(r"<[^>]*>|&(?!#\d+;)|[$]|%{[^}]*}|[\x00-\x1f\u202e\ud800]")
    for one, plain in zip(every_card(nasty), plain_cards, strict=True):
        ours, theirs = (texts_of(c.figure.to_plotly_json()) for c in (one, plain))
        for text, expected in zip(ours, theirs, strict=True):
            assert markup.findall(text) == markup.findall(expected), one.key
        page = one.html()
        page.encode("utf-8")
        assert [tag for tag, _ in Page(page).tags].count("script") == 2
        assert "\u202e" not in page
        rows = list(csv.reader(io.StringIO(one.csv())))
        assert not any(cell.startswith(("=", "@", "+")) for row in rows for cell in row)


# Lines and panels


def drawn_lines(figure: go.Figure) -> dict[str, tuple]:
    return {t.name: tuple(t.y) for t in figure.data}


@pytest.mark.parametrize("n_layers", [4, 30, 80])
def test_importance_lines_draw_the_raw_numbers(n_layers):
    scores = scores_of_blocks(n_layers, stderr={b: 0.1 for b in blocks_of(n_layers)})
    one = importance_lines(scores, info_of(n_layers))
    expected = {
        name: tuple(scores.raw[BlockId(i, part)] for i in range(n_layers))
        for part, name in (("attn", "attention"), ("mlp", "MLP"))
    }
    assert drawn_lines(one.figure) == expected
    assert tuple(one.figure.data[0].error_y.array) == (0.1,) * n_layers
    assert [(b, n) for b, n, _ in one.rows] == [
        (str(b), pytest.approx(scores.raw[b])) for b in blocks_of(n_layers)
    ]
    assert one.figure.data[0].line.dash != one.figure.data[1].line.dash


def test_a_block_without_a_score_is_a_gap():
    whole = scores_of_blocks(4)
    raw = {b: v for b, v in whole.raw.items() if b != BlockId(2, "attn")}
    one = importance_lines(Scores("bi", "Influence", raw, raw), info_of(4))
    assert drawn_lines(one.figure)["attention"][2] is None
    assert "2.attn" not in [row[0] for row in one.rows]


def test_layers_are_bars_and_the_baseline_a_dashed_line():
    scores = windowed(4)
    scores = Scores("x", "X", scores.values, scores.raw, baseline=2.5)
    figure = importance_lines(scores, info_of(4)).figure
    assert isinstance(figure.data[0], go.Bar)
    assert (figure.layout.shapes[0].y0, figure.layout.shapes[0].line.dash) == (2.5, "dash")


def test_two_decades_call_for_a_log_axis_and_a_zero_forbids_it():
    blocks = blocks_of(2)
    wide = dict(zip(blocks, (0.01, 0.1, 1.0, 10.0), strict=True))
    assert importance_lines(Scores("x", "X", wide, wide), info_of(2)).figure.layout.yaxis.type
    with_zero = {**wide, blocks[0]: 0.0}
    figure = importance_lines(Scores("x", "X", with_zero, with_zero), info_of(2)).figure
    assert figure.layout.yaxis.type is None


def test_low_means_removable_also_where_the_paper_s_number_falls():
    rising, falling = scores_of_blocks(4), scores_of_blocks(4, sign=-1)
    assert (raw_rises(rising), raw_rises(falling)) == (True, False)
    one = importance_lines(falling, info_of(4))
    assert one.figure.layout.yaxis.autorange == "reversed"
    assert "turned round" in one.reading
    assert importance_lines(rising, info_of(4)).figure.layout.yaxis.autorange is True


def test_scores_beyond_the_model_are_refused():
    with pytest.raises(ValueError, match=r"3\.attn"):
        importance_lines(scores_of_blocks(4), info_of(3))


@pytest.mark.parametrize("n_layers", [4, 30, 80])
@pytest.mark.parametrize("columns", [1, 3])
def test_twenty_panels_draw_twenty_metrics(n_layers, columns):
    metrics = {f"m{i}": scores_of_blocks(n_layers, title=f"M{i}") for i in range(20)}
    one = small_multiples(ScoreTable(PROVENANCE, metrics), info_of(n_layers), columns=columns)
    assert len(one.figure.data) == 40
    attn = tuple(metrics["m0"].raw[BlockId(i, "attn")] for i in range(n_layers))
    assert tuple(one.figure.data[0].y) == attn
    assert len({t.yaxis for t in one.figure.data}) == 20
    assert sum(bool(t.showlegend) for t in one.figure.data) == 2
    assert one.figure.layout.height >= 100 * math.ceil(20 / columns)
    assert one.headers == ("block", *(f"M{i} (nats)" for i in range(20)))
    assert len(one.rows) == 2 * n_layers
    assert [a.text for a in one.figure.layout.annotations] == [f"M{i}" for i in range(20)]


# Maps


def test_the_map_of_runs_is_blank_beyond_the_last_layer():
    one = gromov_card(windowed(4))
    heat = one.figure.data[0]
    assert (list(heat.x), list(heat.y)) == ([0, 1, 2, 3], [1, 2, 3])
    assert [list(row) for row in heat.z] == [
        [10, 11, 12, 13], [20, 21, 22, None], [30, 31, None, None],
    ]  # fmt: skip
    assert one.rows[2] == (3, 30.0, 31.0, "", "", 0)


@pytest.mark.parametrize(("sign", "best"), [(1, 0), (-1, 0)])
def test_the_run_to_cut_first_is_outlined(sign, best):
    """Where the raw number measures redundancy, the highest one is the most removable."""
    one = gromov_card(windowed(4, sign=sign))
    assert {(s.x0, s.x1, s.y0) for s in one.figure.layout.shapes} == {
        (best - 0.5, best + 0.5, n - 0.5) for n in (1, 2, 3)
    }
    assert one.figure.data[0].reversescale is (sign < 0)
    assert [row[-1] for row in one.rows] == [best] * 3


@pytest.mark.parametrize("n_layers", [4, 30, 80])
def test_maps_of_deep_models_stay_within_a_screen(n_layers):
    one = gromov_card(windowed(n_layers))
    assert len(one.rows) == n_layers - 1
    assert 100 < one.figure.layout.height < 900
    assert len(one.figure.layout.xaxis.tickvals) <= 12


def test_a_metric_without_runs_or_matrix_is_refused():
    with pytest.raises(ValueError, match="runs of layers"):
        gromov_card(scores_of_blocks(4))
    with pytest.raises(ValueError, match="no matrix"):
        cka_card(scores_of_blocks(4))


def test_the_map_of_depths_is_square_and_says_each_number():
    values = ((1.0, 0.2, math.nan), (0.2, 1.0, 0.5), (math.nan, 0.5, 1.0))
    one = cka_card(Scores("cka", "CKA", {}, {}, matrix=Matrix(("0", "1", "2"), values)))
    heat = one.figure.data[0]
    assert [list(r) for r in heat.z] == [[1, 0.2, None], [0.2, 1, 0.5], [None, 0.5, 1]]
    assert one.figure.layout.yaxis.scaleanchor == "x"
    assert one.rows[0] == ("0", 1.0, 0.2, "")


def test_agreement_follows_the_clustered_order():
    tau = [[1.0, -0.2, 0.9], [-0.2, 1.0, math.nan], [0.9, math.nan, 1.0]]
    one = agreement_card(agreed(("a", "b", "c"), tau, (0, 2, 1)))
    heat = one.figure.data[0]
    assert [list(r) for r in heat.z] == [[1, 0.9, -0.2], [0.9, 1, None], [-0.2, None, 1]]
    assert list(one.figure.layout.xaxis.ticktext) == ["a", "c", "b"]
    assert (heat.zmin, heat.zmax, heat.texttemplate) == (-1, 1, "%{z:.2f}")
    assert one.headers == ("metric", "a", "c", "b")
    assert one.rows[1] == ("c", 0.9, 1.0, "")


def test_many_metrics_leave_no_room_for_numbers_and_a_wrong_order_is_refused():
    titles = tuple(f"m{i}" for i in range(20))
    one = agreement_card(agreed(titles, np.eye(20).tolist(), tuple(range(20))))
    assert one.figure.data[0].texttemplate is None
    with pytest.raises(ValueError, match="every metric once"):
        agreement_card(agreed(("a", "b"), np.eye(2).tolist(), (0, 0)))


# Stability and verdicts


def test_stability_draws_mean_and_band_on_an_axis_that_doubles():
    one = stability_card([steady("a", (0.2, 0.3, 0.4)), steady("b", (0.5, 0.6, 0.7))])
    lines = {t.name: t for t in one.figure.data if t.name}
    assert list(lines) == ["b", "a"]  # the best at the most windows comes first
    assert tuple(lines["a"].y) == (0.2, 0.3, 0.4)
    band = next(t for t in one.figure.data if t.fill == "toself" and t.legendgroup == "a")
    assert list(band.x) == [1, 2, 4, 4, 2, 1]
    assert list(band.y) == pytest.approx([0.25, 0.35, 0.45, 0.3, 0.2, 0.1])
    assert one.figure.layout.xaxis.type == "log"
    assert list(one.figure.layout.xaxis.tickvals) == [1, 2, 4]
    assert one.rows[3] == ("a", 1, 0.2, 0.1, 0.25)
    assert lines["a"].line.dash != lines["b"].line.dash


def test_twenty_eight_lines_differ_in_hue_or_dash():
    strokes = [Stroke.of(i) for i in range(28)]
    assert len({(s.hue, s.dash) for s in strokes}) == 28
    assert {s.symbol for s in strokes} == set(SYMBOLS)
    assert math.gcd(len(HUES), len(DASHES)) == 1


def test_runs_are_compared_pair_by_pair():
    square = np.array([[1, 0.4, math.nan], [0.4, 1, 0.8], [math.nan, 0.8, 1]])
    between = Between(("A", "B", "C"), ("bi",), ("Bi",), square[None], np.array([0.6]))
    one = between_card(between)
    assert [tuple(t.x) for t in one.figure.data] == [(0.4,), (None,), (0.8,), (0.6,)]
    assert one.headers == ("metric", "mean tau-b", "A and B", "A and C", "B and C")
    assert one.rows == (("Bi", 0.6, 0.4, "", 0.8),)


def test_the_best_metric_stands_on_top_with_its_interval():
    given = [
        MetricVerdict("a", "A", "block", 8, 0.2, 0.1, 0.4),
        MetricVerdict("b", "B", "block", 8, 0.7),
        MetricVerdict("c", "C", "layer", 0),
    ]
    one = verdict_card(given)
    dots = one.figure.data[0]
    assert list(dots.x) == [0.7, 0.2]
    assert list(dots.error_x.array) == [None, pytest.approx(0.2)]
    assert list(dots.error_x.arrayminus) == [None, pytest.approx(0.1)]
    assert list(one.figure.layout.yaxis.ticktext) == ["B", "A"]
    assert one.figure.layout.yaxis.range[0] > one.figure.layout.yaxis.range[1]
    assert one.rows == (("B", 0.7, "", "", 8), ("A", 0.2, 0.1, 0.4, 8), ("C", "", "", "", 0))


def test_single_cuts_are_set_against_importance():
    scores, judgement = scores_of_blocks(4), judged()
    one = singles_card(ScoreTable(PROVENANCE, {"bi": scores}), judgement, "bi")
    attn = one.figure.data[0]
    assert list(attn.text) == ["0.attn", "1.attn", "2.attn", "3.attn"]
    assert list(attn.x) == [scores.values[BlockId(i, "attn")] for i in range(4)]
    assert list(attn.y) == pytest.approx([0.01, 0.03, 0.05, 0.07])
    assert attn.marker.symbol != one.figure.data[1].marker.symbol
    assert one.rows[1][0] == "0.mlp"
    assert one.rows[1][2] == pytest.approx(0.02)
    named = {a.text for a in one.figure.layout.annotations}
    assert {"0.attn", "3.mlp"} <= named


def test_a_ruinous_cut_is_named_at_the_edge_and_flattens_nothing():
    judgement = judged()
    whole, ruin = judgement.whole.nll, BlockId(0, "mlp")
    singles = {
        **judgement.singles,
        BlockId(0, "attn"): Measured((BlockId(0, "attn"),), tuple(x - 0.01 for x in whole)),
        ruin: Measured((ruin,), tuple(x + 9 for x in whole)),
    }
    judgement = Judgement(PROVENANCE, judgement.whole, singles, {})
    table = ScoreTable(PROVENANCE, {"bi": scores_of_blocks(4)})
    one = singles_card(table, judgement, "bi")
    assert one.figure.layout.yaxis.range[1] < 1
    assert "0.mlp: 9 ↑" in [a.text for a in one.figure.layout.annotations]
    assert max(one.figure.data[1].y) == pytest.approx(9)


def test_cumulative_cuts_join_measured_points_only():
    judgement = judged()
    one = cumulative_card(judgement, {"bi": "Influence"})
    lines = {t.name: t for t in one.figure.data}
    # Losses 2.1, 2.2, 2.5 on average: a window adds 0.0, 0.1, 0.2, so 0.1 on average.
    assert list(lines["Influence"].x) == [0, 1, 2]
    assert list(lines["Influence"].y) == pytest.approx([math.exp(n) for n in (2.1, 2.2, 2.5)])
    assert list(lines["rm"].x) == [0, 1]
    assert one.figure.layout.yaxis.type == "log"
    assert cumulative_card(judgement, {}, log_y=False).figure.layout.yaxis.type is None
    assert one.figure.layout.shapes[0].y0 == pytest.approx(math.exp(2.1))
    assert one.rows[2][:3] == ("Influence", 2, "1.mlp")
    assert lines["Influence"].line.dash != lines["rm"].line.dash


def test_a_removed_layer_counts_as_its_two_blocks():
    layer = BlockId(1, "layer")
    curve = (Measured((layer,), (2.5,)),)
    one = cumulative_card(Judgement(PROVENANCE, Measured((), (2.0,)), {}, {"x": curve}), {})
    assert list(one.figure.data[0].x) == [0, 2]


# The lens


def test_the_lens_draws_entropy_and_divergence_as_given():
    lens = lens_of()
    one = lens_card(lens)
    entropy, kl, strip = one.figure.data
    assert tuple(entropy.y) == lens.entropy
    assert tuple(kl.y) == lens.kl
    assert [tuple(row) for row in strip.z] == [lens.entropy]
    assert [row[0] for row in one.rows] == list(lens.depths)
    assert one.rows[0][1:] == (3.0, 0.0, 5)


def test_the_tokens_of_each_depth_stand_in_its_row():
    one = lens_tokens_card(lens_of(tokens=(" the", "<b>")))
    heat, dots = one.figure.data
    assert list(heat.text[0]) == ["␣the", "&#60;b&#62;"]
    assert list(heat.z[0]) == [0.5, 0.25]
    assert one.rows[0] == ("embedding", "␣the", 0.5, "<b>", 0.25)
    assert list(dots.y) == [0, 1, 2, 3, 4]  # the final token is on top at every depth


@pytest.mark.parametrize(("n_layers", "rows"), [(4, 9), (30, 61), (80, 81)])
def test_deep_models_get_one_row_a_layer(n_layers, rows):
    one = lens_tokens_card(lens_of(n_layers))
    assert len(one.rows) == len(one.figure.data[0].z) == rows
    assert one.rows[-1][0] == f"{n_layers - 1}.mlp"


def test_a_lens_survives_its_json():
    lens = lens_of()
    text = json.dumps(lens.to_json())
    assert json.loads(text)["schema"] == "blockviz/lens/1"
    assert Lens.from_json(json.loads(text)) == lens


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"entropy": (1.0,)}, "entropy must have one entry"),
        ({"position": 5}, "context"),
        ({"probabilities": ((0.2, 0.5),) * 5}, "likeliest"),
        ({"probabilities": ((1.5, 0.5),) * 5}, r"\[0, 1\]"),
        ({"kl": (math.nan,) * 5}, "finite"),
        ({"rank_of_final": (0,) * 5}, "begin at 1"),
        ({"tokens": (("a",),) * 5}, "must be"),
    ],
)
def test_a_lens_checks_itself(wrong, said):
    lens = lens_of()
    parts = {name: getattr(lens, name) for name in lens.__dataclass_fields__}
    with pytest.raises(ValueError, match=said):
        Lens(**{**parts, **wrong})


# All of them


def test_every_card_is_a_see_through_figure_of_fixed_height_with_reading_and_source():
    cards = every_card()
    assert len({one.key for one in cards}) == len(cards)
    for one in cards:
        layout = one.figure.layout
        assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0, 0, 0, 0)"
        assert layout.height
        assert layout.width is None
        assert one.citation
        assert one.rows


def test_the_note_says_where_numbers_come_from():
    note = provenance_note(PROVENANCE)
    assert note.startswith("tiny</script> · 12fd25f · float32 · cpu · BoolQ")
    assert "seed 42" in note
    assert provenance_note(None) == ""


def test_a_card_on_the_page_gets_figure_table_and_texts():
    one = every_card()[0]
    update = card_update("lines", one)
    head, plot, foot = card_names("lines")
    assert update[plot] is one.figure
    assert update[head]["csv"] == one.csv()
    assert update[head]["height"] == one.figure.layout.height
    assert "Plotly.newPlot" in update[head]["after"]
    assert len(update[head]["before"] + update[head]["after"]) < 100_000  # without plotly.js
    assert update[foot]["rows"] == [list(row) for row in one.rows]
    json.dumps({key: value for key, value in update.items() if key != plot})
    empty = card_update("lines", None)
    assert (empty[plot], empty[head]["title"], empty[foot]["rows"]) == (None, "", [])


@pytest.mark.parametrize("shade", ["rank", "value"])
def test_the_map_of_every_metric_is_a_card_of_its_own(shade):
    info = make_info(4)
    table = make_table(info)
    card = heatmap_card(table, info, shade=shade, cite=(("A paper", "https://example.org"),))
    tones = MetricMatrix.of(table, info).tones(shade)
    drawn = [trace for trace in card.figure.data if trace.type == "heatmap"]
    assert np.hstack([trace.z for trace in drawn]).shape == tones.shape
    by_block = {
        name: z for t in drawn for name, z in zip(t.customdata[0], np.transpose(t.z), strict=True)
    }
    for column, block in enumerate(info.blocks):
        assert by_block[str(block.id)] == pytest.approx(tones[:, column])
    assert len(card.rows) == len(info.blocks)
    assert dict(zip(card.headers, card.rows[0], strict=True))["rank by Perplexity if cut"] >= 1
