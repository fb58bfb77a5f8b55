"""Repairs of what a plan cut, in closed form or trained: one file a method, one interface."""

from blockviz.corrections.applied import repaired_model
from blockviz.corrections.asc import Asc
from blockviz.corrections.base import CORRECTIONS, Correction, Fit, Repair
from blockviz.corrections.diag_ls import DiagLeastSquares
from blockviz.corrections.distilled import Distilled
from blockviz.corrections.fitting import fit
from blockviz.corrections.fold_asc import FoldAsc
from blockviz.corrections.hadamard_distilled import HadamardDistilled
from blockviz.corrections.linearpatch import Diag, Hadamard
from blockviz.corrections.mean import Mean
from blockviz.corrections.merge import Merge
from blockviz.corrections.replaceme import ReplaceMe
from blockviz.corrections.ridge import LowRank, NormRidge, Ridge
from blockviz.corrections.scalar import Scalar
from blockviz.corrections.streamline import LlmStreamline
from blockviz.corrections.training import Trained
from blockviz.corrections.writer_distilled import WriterDistilled
from blockviz.corrections.writer_refit import WriterRefit

__all__ = [
    "CORRECTIONS",
    "Asc",
    "Correction",
    "Diag",
    "DiagLeastSquares",
    "Distilled",
    "Fit",
    "FoldAsc",
    "Hadamard",
    "HadamardDistilled",
    "LlmStreamline",
    "LowRank",
    "Mean",
    "Merge",
    "NormRidge",
    "Repair",
    "ReplaceMe",
    "Ridge",
    "Scalar",
    "Trained",
    "WriterDistilled",
    "WriterRefit",
    "fit",
    "repaired_model",
]
