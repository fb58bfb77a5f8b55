"""Plain data -> figures and tables; no model, no session, no widgets."""

from blockviz.plots.agreement import agreement_card
from blockviz.plots.card import Citation, FigureCard, provenance_note
from blockviz.plots.cka import cka_card
from blockviz.plots.comparison import can_draw, column_name, comparison_card, measured_note
from blockviz.plots.contest import contest_card
from blockviz.plots.curves import CurveLine, CurvePoint, removal_curves
from blockviz.plots.gromov import gromov_card
from blockviz.plots.heatmap import SHADE_NOTES, heatmap_card, importance_heatmap
from blockviz.plots.hurts import can_draw_hurts, hurts_card
from blockviz.plots.interactions import pairs_card, stand_ins_card, surrogate_card
from blockviz.plots.labels import label, prose, slug, visible
from blockviz.plots.lens import lens_card, lens_tokens_card
from blockviz.plots.lines import importance_lines, small_multiples
from blockviz.plots.matrix import SHADES, MetricMatrix, Shade, scores_of
from blockviz.plots.palette import cividis, ramp
from blockviz.plots.repair import fit_card, place_name, repairs_card, row_name, size_card
from blockviz.plots.repair_channels import has_channels, moment_card, rho_card
from blockviz.plots.search import search_grid, search_progress
from blockviz.plots.stability import between_card, stability_card
from blockviz.plots.table import csv_text, score_rows
from blockviz.plots.verdict import cumulative_card, singles_card, verdict_card
from blockviz.plots.word_classes import WORD_CLASSES, word_classes

__all__ = [
    "SHADES",
    "SHADE_NOTES",
    "WORD_CLASSES",
    "Citation",
    "CurveLine",
    "CurvePoint",
    "FigureCard",
    "MetricMatrix",
    "Shade",
    "agreement_card",
    "between_card",
    "can_draw",
    "can_draw_hurts",
    "cividis",
    "cka_card",
    "column_name",
    "comparison_card",
    "contest_card",
    "csv_text",
    "cumulative_card",
    "fit_card",
    "gromov_card",
    "has_channels",
    "heatmap_card",
    "hurts_card",
    "importance_heatmap",
    "importance_lines",
    "label",
    "lens_card",
    "lens_tokens_card",
    "measured_note",
    "moment_card",
    "pairs_card",
    "place_name",
    "prose",
    "provenance_note",
    "ramp",
    "removal_curves",
    "repairs_card",
    "rho_card",
    "row_name",
    "score_rows",
    "scores_of",
    "search_grid",
    "search_progress",
    "singles_card",
    "size_card",
    "slug",
    "small_multiples",
    "stability_card",
    "stand_ins_card",
    "surrogate_card",
    "verdict_card",
    "visible",
    "word_classes",
]
