"""Writer refit, refined: the writers are trained until the model predicts as the whole one does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from blockviz.corrections.base import CORRECTIONS, TOKENS, Correction, Repair
from blockviz.corrections.distilled import Distilled
from blockviz.corrections.student import WriterStudent
from blockviz.corrections.training import EPOCHS, RATE, Tensors
from blockviz.corrections.writer_refit import WriterRefit
from blockviz.models.model import BlockModel
from blockviz.types import CalibrationSet

# The share of the windows that the refit starts on.
FIRST = 1 / 4


@CORRECTIONS.register
@dataclass(frozen=True)
class WriterDistilled(Distilled):
    """The weights of `writer_refit` from the first windows, trained on the others.

    What a closed form was fitted on teaches little more: there it is nearly right. p and q count
    all words but the `top` likeliest of the whole model as one.
    """

    tokens: str = field(default="skip_first", metadata=TOKENS)
    epochs: int = field(default=2, metadata=EPOCHS)
    lr: float = field(default=4e-4, metadata=RATE)

    name = "writer_distilled"
    title = "Writer refit, distilled"
    meaning = (
        "A writer refit, then trained to predict what the whole model predicts. Takes minutes to "
        "hours: every window goes forward and back through the model."
    )
    formula = (
        "min over W of mean_t KL( p_t ‖ q_t ),  W of every writer starting as the refit's\n"
        "p_t: what the whole model gives its 50 likeliest words at position t, and all others "
        "together; q_t: what the repaired model gives them."
    )
    sees = (
        "The prediction, through everything that lies behind: large channels of the stream count "
        "only as far as words hang on them."
    )
    misses = "Text unlike that it is trained on."
    cost = "Minutes to hours of training; nothing more is stored, nothing runs slower."
    citation = "blockviz"
    folds = WriterRefit.folds

    decay, clip, trains = 0.0, 1.0, "matrices"

    def closed_form(self) -> Correction:
        return WriterRefit(is_sequential=self.is_sequential)

    def texts(self, windows: CalibrationSet) -> tuple[CalibrationSet, CalibrationSet]:
        n = max(1, round(len(windows) * FIRST))
        first, text = (
            CalibrationSet(windows.input_ids[p], windows.attention_mask[p], windows.origin)
            for p in (slice(n), slice(n, None))
        )
        return first, text if len(text) else first

    def student(self, model: BlockModel, start: Repair) -> WriterStudent:
        return WriterStudent(model, start)

    def learned(self, start: Repair, tensors: Tensors) -> Repair:
        writers = {b: replace(start.writers[b], weight=tensors[b].cpu()) for b in tensors}
        return replace(start, writers=writers)
