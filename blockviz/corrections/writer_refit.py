"""Writer refit: the last linear map of surviving blocks learns to write what is missing."""

from __future__ import annotations

from dataclasses import dataclass, field

from blockviz.corrections.base import ANCHORED, CORRECTIONS, Correction, Pair, Place, Where, Writing
from blockviz.corrections.ridge import RIDGE
from blockviz.stats.pairs import LeastSquares
from blockviz.types import BlockId


@CORRECTIONS.register
@dataclass(frozen=True)
class WriterRefit(Correction):
    """W <- W + dW^T, dW = (A^T A + ridge tr(A^T A)/n I)^-1 A^T (y - u), A what the writer reads.

    writers: only those in front of a gap, of every MLP, or of every block, from the first gap on.
    The ridge draws the weight towards what it was. A writer that has a bias gets the best one with
    it: then A and y - u are taken around their means. weigh=size: a position counts by the inverse
    of its stream's mean square, since every block reads the stream divided by its size; then biases
    stay as they are.
    """

    tokens: str = field(default="anchored", metadata=ANCHORED)
    writers: str = field(
        default="all",
        metadata={"label": "Writers that are refitted", "choices": ("gap", "mlp", "all")},
    )
    ridge: float = field(default=0.1, metadata=RIDGE)
    weigh: str = field(
        default="none", metadata={"label": "Positions weigh", "choices": ("none", "size")}
    )

    name = "writer_refit"
    title = "Writer refit"
    meaning = "Surviving blocks learn, by least squares, to write what the removed ones did."
    formula = (
        "W ← W + ΔW^T,  ΔW = ( A^T A + λ · tr(A^T A)/n · I )^{−1} A^T ( y − u )\n"
        "A: what the block's last matrix W reads, one row a token, n wide; y − u: what the "
        "stream behind it lacks; λ = 0.1 unless set."
    )
    sees = (
        "What a block's inner features know of what is missing, which is more than its output "
        "does. From the first gap on each surviving block takes up what those in front have "
        "left over."
    )
    misses = (
        "The prediction: it is fitted to the stream, where large channels and tokens outweigh "
        "the rest. It sees one text only; on another kind of text part of the gain is gone."
    )
    cost = (
        "Nothing more is stored, nothing runs slower. The fit solves a system as wide as the "
        "widest matrix that writes."
    )
    citation = "blockviz; with a block's own output as its features it is ReplaceMe"
    folds = "weights of surviving blocks"

    @property
    def where(self) -> Where:
        return "writer"

    def changes(self, block: BlockId, gap: tuple[BlockId, ...]) -> bool:
        wanted = {"gap": bool(gap), "mlp": block.part == "mlp", "all": True}
        return wanted[self.writers]

    def fitter(self, place: Place) -> _Fitter:
        return _Fitter(place, self.ridge, is_weighed=self.weigh == "size")


class _Fitter:
    def __init__(self, place: Place, ridge: float, *, is_weighed: bool) -> None:
        self._place, self._ridge, self._is_weighed = place, ridge, is_weighed
        self._sums = LeastSquares(place.weight.shape[1], place.hidden_size)

    def add(self, pair: Pair) -> None:
        missing = pair.y - pair.u
        if pair.anchor is not None:
            self._sums.anchor(pair.anchor.features, pair.anchor.y - pair.anchor.u)
        if not self._is_weighed:
            self._sums.add(pair.features, missing)
            return
        weight = pair.y.square().mean(dim=1, keepdim=True).clamp_min(1e-12).rsqrt()
        self._sums.add(weight * pair.features, weight * missing)

    def result(self) -> Writing:
        place, has_bias = self._place, self._place.bias is not None and not self._is_weighed
        change = self._sums.solve(self._ridge, is_centred=has_bias)
        weight = (place.weight.double() + change.T).float()
        if not has_bias:
            return Writing(weight)
        shift = self._sums.mean_t - self._sums.mean_x @ change
        return Writing(weight, (place.bias.double() + shift).float())
