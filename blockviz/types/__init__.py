"""Plain frozen values that cross the rooms; each validates itself, each saved one has JSON."""

from blockviz.types.answers import Question, TaskAnswers, Timing
from blockviz.types.blocks import PARTS, UNITS, Block, BlockId, ModelInfo, Part, Unit
from blockviz.types.comparison import Comparison, ComparisonColumn
from blockviz.types.contest import Answered, Contest, Entry
from blockviz.types.data import (
    TABLE_ENDINGS,
    TEXT_ENDINGS,
    CalibrationBatch,
    CalibrationSet,
    DataOrigin,
    Provenance,
    short_revision,
)
from blockviz.types.events import Done, Events, Progress, passing, run
from blockviz.types.export import CheckRow, ExportReport
from blockviz.types.interactions import Interactions
from blockviz.types.judgement import Judgement, Measured
from blockviz.types.lens import Lens
from blockviz.types.plan import PruningPlan
from blockviz.types.repair import (
    CHANNELS,
    EXPORT_MODES,
    ExportMode,
    PlaceFit,
    RepairRow,
    RepairTable,
)
from blockviz.types.scores import (
    AblationTable,
    BlockStatistics,
    Matrix,
    NotFinite,
    Readout,
    Scores,
    ScoreTable,
    TaskTable,
    WeightTensors,
)
from blockviz.types.search import (
    Answer,
    Ask,
    Chosen,
    RemovedSet,
    Rescore,
    Searching,
    SearchRun,
    SearchStep,
    parts_of,
)
from blockviz.types.tasks import TASK_MODES, LetterPrompts, TaskRow, TaskSet
from blockviz.types.tokens import check_rows

__all__ = [
    "CHANNELS",
    "EXPORT_MODES",
    "PARTS",
    "TABLE_ENDINGS",
    "TASK_MODES",
    "TEXT_ENDINGS",
    "UNITS",
    "AblationTable",
    "Answer",
    "Answered",
    "Ask",
    "Block",
    "BlockId",
    "BlockStatistics",
    "CalibrationBatch",
    "CalibrationSet",
    "CheckRow",
    "Chosen",
    "Comparison",
    "ComparisonColumn",
    "Contest",
    "DataOrigin",
    "Done",
    "Entry",
    "Events",
    "ExportMode",
    "ExportReport",
    "Interactions",
    "Judgement",
    "Lens",
    "LetterPrompts",
    "Matrix",
    "Measured",
    "ModelInfo",
    "NotFinite",
    "Part",
    "PlaceFit",
    "Progress",
    "Provenance",
    "PruningPlan",
    "Question",
    "Readout",
    "RemovedSet",
    "RepairRow",
    "RepairTable",
    "Rescore",
    "ScoreTable",
    "Scores",
    "SearchRun",
    "SearchStep",
    "Searching",
    "TaskAnswers",
    "TaskRow",
    "TaskSet",
    "TaskTable",
    "Timing",
    "Unit",
    "WeightTensors",
    "check_rows",
    "parts_of",
    "passing",
    "run",
    "short_revision",
]
