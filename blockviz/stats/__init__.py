"""One-pass statistics of the dense model: running numbers per block, and across depths."""

from blockviz.stats.cosines import LayerCosines
from blockviz.stats.gram import StreamCka
from blockviz.stats.lens import LENS_STATISTICS, EarlyExit
from blockviz.stats.passes import PassStatistic, RunningPass
from blockviz.stats.running import BlockStatistic, RelativeSize, StreamCosine
from blockviz.stats.update_cosine import UpdateCosine
from blockviz.stats.writers import WriterInputs

__all__ = [
    "LENS_STATISTICS",
    "BlockStatistic",
    "EarlyExit",
    "LayerCosines",
    "PassStatistic",
    "RelativeSize",
    "RunningPass",
    "StreamCka",
    "StreamCosine",
    "UpdateCosine",
    "WriterInputs",
]
