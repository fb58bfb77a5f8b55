"""Plain data -> figures and tables; no model, no session, no widgets."""

from blockviz.plots.heatmap import SHADE_NOTES, importance_heatmap
from blockviz.plots.matrix import SHADES, MetricMatrix, Shade, scores_of
from blockviz.plots.palette import cividis, ramp
from blockviz.plots.table import csv_text, score_rows

__all__ = [
    "SHADES",
    "SHADE_NOTES",
    "MetricMatrix",
    "Shade",
    "cividis",
    "csv_text",
    "importance_heatmap",
    "ramp",
    "score_rows",
    "scores_of",
]
