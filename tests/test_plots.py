"""Palette, matrix, heat map and table: numbers worked by hand on two layers."""

from __future__ import annotations

import csv
import io
from itertools import pairwise

import numpy as np
import pytest
from fake_engine import make_info, make_table

from blockviz.plots import (
    MetricMatrix,
    cividis,
    csv_text,
    importance_heatmap,
    ramp,
    score_rows,
    scores_of,
)
from blockviz.plots.palette import CIVIDIS, TRANSPARENT
from blockviz.types import BlockId, Scores, ScoreTable

A0, M0, A1, M1 = (BlockId(i, p) for i in (0, 1) for p in ("attn", "mlp"))


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def table_of(**values: dict[BlockId, float]) -> ScoreTable:
    provenance = make_table(make_info(2)).provenance
    metrics = {name: Scores(name, name.upper(), v, v, "nats") for name, v in values.items()}
    return ScoreTable(provenance, metrics)


@pytest.fixture
def matrix() -> MetricMatrix:
    # Ranks by hand: 0.3 < 1.0 < 2.0 < 9.0.
    both = {A0: 9.0, M0: 2.0, A1: 0.3, M1: 1.0}
    attn = {A0: -1.0, A1: -3.0}
    layers = {BlockId(0, "layer"): 5.0, BlockId(1, "layer"): 4.0}
    return MetricMatrix.of(table_of(both=both, attn=attn, layers=layers), make_info(2))


def test_cividis_hits_its_stops_and_mixes_between_them():
    assert cividis(0) == CIVIDIS[0]
    assert cividis(1) == CIVIDIS[-1]
    assert cividis(0.5) == CIVIDIS[5]
    # Half way between #00224e and #123570: (0+18)/2, (34+53)/2 = 43.5, (78+112)/2.
    assert cividis(0.05) in ("#092b5f", "#092c5f")


def test_cividis_gets_lighter_all_the_way_and_clips():
    steps = [luminance(cividis(t / 50)) for t in range(51)]
    assert all(a < b for a, b in pairwise(steps))
    assert (cividis(-3), cividis(7)) == (CIVIDIS[0], CIVIDIS[-1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_tone_that_is_no_number_has_no_colour(bad):
    with pytest.raises(ValueError, match="finite"):
        cividis(bad)


def test_the_legend_has_every_stop_in_order():
    text = ramp()
    places = [text.index(stop) for stop in CIVIDIS]
    assert places == sorted(places)


def test_a_matrix_has_one_column_per_block_and_layer_scores_stand_for_both_parts(matrix):
    assert matrix.blocks == (A0, M0, A1, M1)
    np.testing.assert_array_equal(matrix.ranks[0], [4, 3, 1, 2])
    np.testing.assert_array_equal(matrix.values[2], [5, 5, 4, 4])
    np.testing.assert_array_equal(matrix.ranks[2], [2, 2, 1, 1])


def test_a_block_that_a_metric_does_not_score_is_nan(matrix):
    np.testing.assert_array_equal(np.isnan(matrix.values[1]), [False, True, False, True])
    np.testing.assert_array_equal(np.isnan(matrix.tones("rank")[1]), [False, True, False, True])


def test_rank_tones_run_evenly_from_first_to_go_to_last(matrix):
    np.testing.assert_allclose(matrix.tones("rank")[0], [1, 2 / 3, 0, 1 / 3])


def test_value_tones_are_clipped_at_the_row_percentiles(matrix):
    # Sorted 0.3 1 2 9; numpy's 5th percentile 0.3 + 0.15*0.7 = 0.405, 95th 2 + 0.85*7 = 7.95.
    expected = [1, (2 - 0.405) / 7.545, 0, (1 - 0.405) / 7.545]
    np.testing.assert_allclose(matrix.tones("value")[0], expected)


def test_a_row_of_equal_scores_has_one_middle_tone():
    flat = MetricMatrix.of(table_of(flat=dict.fromkeys((A0, M0, A1, M1), 2.0)), make_info(2))
    np.testing.assert_array_equal(flat.tones("value")[0], [0.5] * 4)


def test_wrong_shapes_and_shadings_are_refused(matrix):
    with pytest.raises(ValueError, match=r"values must be .* = \(3, 4\), not \(3, 3\)"):
        MetricMatrix(
            matrix.metrics, matrix.titles, matrix.units, matrix.blocks,
            matrix.values[:, :3], matrix.raw, matrix.ranks,
        )  # fmt: skip
    with pytest.raises(ValueError, match="shade"):
        matrix.tones("hue")


def test_scores_of_falls_back_to_the_layer():
    scores = Scores("x", "X", {BlockId(1, "layer"): 4.0}, {BlockId(1, "layer"): 7.0})
    assert scores_of(scores, A1) == (4.0, 7.0, 1)
    assert scores_of(scores, A0) is None


def test_the_heat_map_draws_the_tones_and_names_every_cell(matrix):
    figure = importance_heatmap(matrix, shade="rank")
    attn, mlp = (t for t in figure.data if t.type == "heatmap")
    np.testing.assert_allclose(np.array(attn.z, float)[0], [1, 0])
    np.testing.assert_allclose(np.array(mlp.z, float)[0], [2 / 3, 1 / 3])
    assert [list(row) for row in attn.customdata] == [["0.attn", "1.attn"]] * 3
    assert "rank 4 of 4" in attn.text[0][0]
    assert mlp.text[1][0] == ""
    assert list(figure.layout.yaxis.ticktext) == ["BOTH", "ATTN", "LAYERS"]


def test_the_heat_map_crosses_what_is_removed_in_every_row(matrix):
    figure = importance_heatmap(matrix, shade="rank", removed=(M1,))
    mlp = next(t for t in figure.data if t.type == "heatmap" and t.customdata[0][0] == "0.mlp")
    for cross in (t for t in figure.data if t.type == "scatter"):
        assert list(cross.x) == [mlp.x[1]] * 3
        assert list(cross.y) == [0, 1, 2]
    empty = importance_heatmap(matrix, shade="rank")
    assert all(not t.x for t in empty.data if t.type == "scatter")


def test_the_heat_map_lies_on_any_background(matrix):
    layout = importance_heatmap(matrix, shade="value").layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == TRANSPARENT


def test_deep_models_get_fewer_ticks():
    info = make_info(80)
    figure = importance_heatmap(MetricMatrix.of(make_table(info), info), shade="rank")
    assert list(figure.layout.xaxis.ticktext) == [str(i) for i in range(0, 80, 10)] * 2


def test_the_table_twin_has_the_numbers_of_the_map(matrix):
    headers, rows = score_rows(matrix, make_info(2))
    assert headers[:4] == ["block", "parameters", "BOTH (nats)", "rank by BOTH"]
    assert rows[0] == ["0.attn", 885_312, 9.0, 4, -1.0, 2, 5.0, 2]
    assert rows[1][4:6] == ["", ""]
    assert [row[0] for row in rows] == ["0.attn", "0.mlp", "1.attn", "1.mlp"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_csv_cell_cannot_be_a_formula(start):
    text = csv_text(["a"], [[f"{start}cmd|' /C calc'!A0"]])
    cell = list(csv.reader(io.StringIO(text)))[1][0]
    assert cell == f"'{start}cmd|' /C calc'!A0"


def test_csv_numbers_stay_numbers():
    assert csv_text(["a", "b"], [[-0.5, 'x,"y"']]) == 'a,b\r\n-0.5,"x,""y"""\r\n'
