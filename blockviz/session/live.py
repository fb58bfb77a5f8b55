"""The perplexity beside the switches: a small evaluation text, each plan measured once."""

from __future__ import annotations

from collections.abc import Iterable

from blockviz.evaluate import Perplexity, measure_perplexity
from blockviz.models.model import BlockModel
from blockviz.session.example import Example, live_key
from blockviz.session.opening import open_windows
from blockviz.session.views import LiveResult, ScoreRequest
from blockviz.store import Store, key
from blockviz.types import BlockId, CalibrationSet, Done, Events, PruningPlan, passing

LIVE_SAMPLES, LIVE_SEQ_LEN = 8, 128


class LiveText:
    """Perplexities of one model on the live windows: bundled, stored, or measured now."""

    def __init__(
        self, model: BlockModel, windows: CalibrationSet, store: Store, example: Example | None
    ) -> None:
        self._model, self.windows, self._store = model, windows, store
        info, origin = model.info, windows.origin
        same = (
            example is not None
            and (example.info.name, example.info.revision) == (info.name, info.revision)
            and example.info.dtype == info.dtype
            and example.origin.token_hash == origin.token_hash
        )
        self._bundled = example.live if same else {}

    def known(self, plan: PruningPlan) -> LiveResult | None:
        """The plan's perplexity if it was measured before, here or for the example."""
        wanted, baseline = live_key(plan.removed), self._baseline()
        if wanted in self._bundled:
            return self._result(self._bundled[wanted], baseline, "bundled")
        found = self._stored(wanted)
        if found is None or baseline is None:
            return None
        return self._result(found, baseline, "stored")

    def _baseline(self) -> Perplexity | None:
        """The original model's: the bundled one where there is one, so that every plan is counted
        from one number. Rounded otherwise on this machine, each plan differs, not this one alone.
        """
        whole = live_key(())
        return self._bundled.get(whole) or self._stored(whole)

    def measure(self, plan: PruningPlan) -> Events:
        """Done(LiveResult) of the plan, measured now unless it is known."""
        plan.check(self._model.info)
        known = self.known(plan)
        if known is not None:
            yield Done(known)
            return
        baseline = self._baseline() or (yield from self._perplexity(()))
        found = yield from self._perplexity(plan.removed)
        yield Done(self._result(found, baseline, "measured"))

    def _perplexity(self, removed: Iterable[BlockId]) -> Events:
        removed = tuple(removed)
        found = self._stored(live_key(removed))
        if found is None:
            events = measure_perplexity(
                self._model, self.windows, removed=removed, batch_tokens=512
            )
            found = yield from passing(events)
            self._store.put(self._key(live_key(removed)), found)
        return found

    def _stored(self, removed: tuple[str, ...]) -> Perplexity | None:
        return self._store.get(self._key(removed))

    def _key(self, removed: tuple[str, ...]) -> str:
        info = self._model.info
        token_hash = self.windows.origin.token_hash
        return key("live", info.name, info.revision, info.dtype, token_hash, list(removed))

    def _result(self, found: Perplexity, baseline: Perplexity, source: str) -> LiveResult:
        info = self._model.info
        return live_result(found, baseline, self.windows.origin.describe(), info.dtype, source)


def live_result(
    found: Perplexity, baseline: Perplexity, data: str, dtype: str, source: str
) -> LiveResult:
    """What the scoreboard shows of two perplexities on the same windows."""
    return LiveResult(
        perplexity=found.value,
        baseline=baseline.value,
        rise_stderr=found.rise_stderr(baseline),
        n_tokens=found.n_tokens,
        data=data,
        dtype=dtype,
        source=source,
    )


def open_live_windows(model: BlockModel, text: str = "demo") -> Events:
    """Done(CalibrationSet): 8 windows of 128 tokens of a text's evaluation part."""
    seq_len = min(LIVE_SEQ_LEN, model.info.max_seq_len)
    request = ScoreRequest(calibration=text, n_samples=LIVE_SAMPLES, seq_len=seq_len)
    windows = yield from passing(open_windows(model, request, "evaluation"))
    yield Done(windows)
