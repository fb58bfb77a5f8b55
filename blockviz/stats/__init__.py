"""One-pass statistics of the residual stream, accumulated window by window in float64."""

from blockviz.stats.running import BlockStatistic, RelativeSize, StreamCosine

__all__ = ["BlockStatistic", "RelativeSize", "StreamCosine"]
