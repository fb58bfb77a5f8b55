"""Which blocks to remove: pure rules that ask for what they need and are sent its value."""

# In the order in which strategies are listed everywhere.
# isort: off
from blockviz.search.greedy import Greedy
from blockviz.search.oneshot import OneShot
from blockviz.search.window import Window
from blockviz.search.beam import Beam
from blockviz.search.swap import Swap
from blockviz.search.repaired import Iterative, RepairGreedy
from blockviz.search.tale import AccuracyStep, Tale, TaleResult, tale
from blockviz.search.bonsai import Bonsai
from blockviz.search.merging import Laco, SlidingMerge
from blockviz.search.policy import Policy

# isort: on
from blockviz.search.base import STRATEGIES, Goal, Space, Strategy
from blockviz.search.presets import PRESETS, Preset, preset
from blockviz.search.race import Look, Raced, race

__all__ = [
    "PRESETS",
    "STRATEGIES",
    "AccuracyStep",
    "Beam",
    "Bonsai",
    "Goal",
    "Greedy",
    "Iterative",
    "Laco",
    "Look",
    "OneShot",
    "Policy",
    "Preset",
    "Raced",
    "RepairGreedy",
    "SlidingMerge",
    "Space",
    "Strategy",
    "Swap",
    "Tale",
    "TaleResult",
    "Window",
    "preset",
    "race",
    "tale",
]
