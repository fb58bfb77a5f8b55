"""Plain frozen values that cross the rooms; each validates itself, each saved one has JSON."""

from blockviz.types.blocks import PARTS, UNITS, Block, BlockId, ModelInfo, Part, Unit
from blockviz.types.data import CalibrationBatch, CalibrationSet, DataOrigin, Provenance
from blockviz.types.events import Done, Events, Progress, passing, run
from blockviz.types.plan import PruningPlan
from blockviz.types.scores import AblationTable, BlockStatistics, Readout, Scores, ScoreTable

__all__ = [
    "PARTS",
    "UNITS",
    "AblationTable",
    "Block",
    "BlockId",
    "BlockStatistics",
    "CalibrationBatch",
    "CalibrationSet",
    "DataOrigin",
    "Done",
    "Events",
    "ModelInfo",
    "Part",
    "Progress",
    "Provenance",
    "PruningPlan",
    "Readout",
    "ScoreTable",
    "Scores",
    "Unit",
    "passing",
    "run",
]
