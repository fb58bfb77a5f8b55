"""Fitting a correction: laws that hold for every one of them, and fits worked out another way."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from blockviz.corrections import (
    CORRECTIONS,
    Asc,
    Correction,
    Fit,
    Mean,
    NormRidge,
    Repair,
    ReplaceMe,
    Ridge,
    WriterRefit,
    fit,
    repaired_model,
)
from blockviz.corrections.base import Pair, Place, SelfFitted, Where, Writing
from blockviz.corrections.places import stretches_of
from blockviz.errors import BadInput, UnsupportedModel
from blockviz.models.model import BlockModel
from blockviz.models.modeling_blockviz import Residual, Shift
from blockviz.models.repaired import RepairedModel
from blockviz.models.stage import Stage
from blockviz.models.writers import watch_inputs, watch_writers, writer, writer_weight
from blockviz.settings import label_of
from blockviz.stats.pairs import ChannelMoments, LeastSquares
from blockviz.types import BlockId, CalibrationSet, Done, Progress, run

pytestmark = pytest.mark.usefixtures("one_thread")

SCATTERED = ("1.attn", "2.mlp")
PLANS = (
    SCATTERED,
    ("0.layer", "2.layer"),
    ("0.attn",),
    ("3.mlp",),
    ("2.mlp", "3.layer"),
    ("0.mlp", "1.mlp"),
    ("0.layer", "1.layer", "2.layer", "3.attn"),
    ("1.attn", "1.mlp", "2.attn", "2.mlp", "3.attn", "3.mlp", "0.mlp"),
)
named = pytest.mark.parametrize("names", PLANS, ids="+".join)
POST_NORMED = ("gemma3", "gemma3-softcap")
CASES = ("llama", "mistral", "qwen2", "qwen3", "gemma3", "phi3", "gpt2", "neox", "neox-serial")

shared = functools.cache(tiny.model)


def variants() -> dict[str, Correction]:
    """Every correction that is met place by place, and one more for each other site."""
    found: dict[str, Correction] = {}
    for cls in (c for c in CORRECTIONS.classes() if not issubclass(c, SelfFitted)):
        found[cls.name] = cls()
        for setting in fields(cls):
            for choice in setting.metadata.get("choices", ()):
                other = cls(**{setting.name: choice})
                if setting.name in ("site", "writers") and other != cls():
                    found[f"{cls.name}-{choice}"] = other
    return found


VARIANTS = variants()
every = pytest.mark.parametrize("correction", VARIANTS.values(), ids=VARIANTS)


def every_in(cases: Iterable[str], *, but: Callable[..., bool] = lambda case, c: False) -> Any:
    """Every variant in every family that can have it: writers in front of a norm are refused."""
    found = [
        pytest.param(case, correction, id=f"{case}-{name}")
        for case in cases
        for name, correction in VARIANTS.items()
        if not (case in POST_NORMED and correction.where == "writer") and not but(case, correction)
    ]
    return pytest.mark.parametrize(("case", "correction"), found)


# One of each place, and in parallel.
FEW = (Mean(), Asc(site="norm_out"), Asc(site="every_block"), WriterRefit(),
       Ridge(is_sequential=False), ReplaceMe(is_sequential=False))  # fmt: skip
few = pytest.mark.parametrize("correction", FEW, ids=label_of)


@functools.cache
def windows(n: int = 16, seq: int = 20, seed: int = 1) -> CalibrationSet:
    return tiny.windows(n, seq, seed=seed)


def fitted(case: str, names: tuple[str, ...], correction: Correction, **how: object) -> Repair:
    text = how.pop("windows", None) or windows()
    return run(fit(shared(case), tiny.plan(*names), correction, text, **how))


def logits(case: str, repair: Repair) -> torch.Tensor:
    return repaired_model(shared(case), repair).logits(tiny.batch())


def mse(moments: ChannelMoments) -> float:
    return float(moments.mse.mean())


@dataclass(frozen=True)
class Spy(Correction):
    """Keeps what it is told and puts in what changes nothing, or what it is given."""

    name = "spy"
    title = meaning = "for tests"
    at: Where = "gap"
    seen: ClassVar[list[tuple[Place, list[Pair]]]] = []

    @property
    def where(self) -> Where:
        return self.at

    def changes(self, block: BlockId, gap: tuple[BlockId, ...]) -> bool:
        return True

    def fitter(self, place: Place) -> _SpyFitter:
        self.seen.append((place, []))
        return _SpyFitter(*self.seen[-1])


class _SpyFitter:
    def __init__(self, place: Place, pairs: list[Pair]) -> None:
        self._place, self._pairs = place, pairs

    def add(self, pair: Pair) -> None:
        self._pairs.append(pair)

    def result(self) -> nn.Module | Writing:
        if self._place.weight is not None:
            return Writing(self._place.weight)
        return Shift(torch.zeros(self._place.hidden_size))


def spied(case: str, names: tuple[str, ...], **how: object) -> list[tuple[Place, Pair]]:
    """What a fitter is told of each place, the pairs of all batches put together."""
    settings = {k: how.pop(k) for k in ("at", "tokens", "is_sequential") if k in how}
    Spy.seen.clear()
    fitted(case, names, Spy(**settings), **how)
    found = [(place, _joined(pairs)) for place, pairs in Spy.seen]
    Spy.seen.clear()
    return found


def _joined(pairs: list[Pair]) -> Pair:
    names = [f.name for f in fields(Pair) if getattr(pairs[0], f.name) is not None]
    return Pair(**{name: torch.cat([getattr(p, name) for p in pairs]) for name in names})


def stream_behind(
    model: BlockModel, block: BlockId, text: CalibrationSet, *, is_parallel: bool
) -> torch.Tensor:
    """(batch, seq, hidden) of a plain forward, by watching it."""
    found = {}

    def note(b: BlockId, before: torch.Tensor, update: torch.Tensor) -> None:
        found[b] = before + update

    with model.watch(note):
        model.logits(next(text.batches(len(text))))
    return found[BlockId(block.layer, "layer") if is_parallel else block]


def counted(stream: torch.Tensor) -> torch.Tensor:
    """The rows that count of unpadded windows, position 0 left out."""
    return stream[:, 1:].flatten(0, 1)


# --- laws of every registered correction ----------------------------------------------------------


@every_in(CASES)
def test_t_wr_1_an_empty_plan_changes_nothing(case: str, correction: Correction):
    repair = fitted(case, (), correction)
    assert (repair.maps, repair.inputs, repair.writers, repair.fits) == ({}, {}, {}, ())
    assert torch.equal(logits(case, repair), shared(case).logits(tiny.batch()))
    assert repair.passes == 0
    assert repair.n_tokens == 16 * (20 if correction.tokens == "all" else 19)


@every_in(CASES)
def test_t_wr_2_the_repaired_model_gives_the_streams_that_the_fit_ended_with(case, correction):
    """Moments of its streams, watched in plain forwards, are the fit's own `after`."""
    repair = fitted(case, SCATTERED, correction, held=windows(3, 20, 9))
    found, is_parallel = repaired_model(shared(case), repair), shared(case).family.is_parallel
    assert repair.fits
    for text, name in ((windows(), "after"), (windows(3, 20, 9), "held_after")):
        for met in repair.fits:
            moments, skip = getattr(met, name), int(repair.correction.tokens != "all")
            assert moments.n == len(text) * (20 - skip)
            if met.block in repair.inputs:
                stream = _read(found, met.block, text)
            else:
                stream = stream_behind(found, met.block, text, is_parallel=is_parallel)
            u = stream[:, skip:].flatten(0, 1).double()
            torch.testing.assert_close(moments.mean_u, u.mean(0), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(
                moments.var_u, u.var(0, unbiased=False), rtol=1e-4, atol=1e-4
            )


def _read(model: BlockModel, block: BlockId, text: CalibrationSet) -> torch.Tensor:
    read = {}
    with watch_inputs(model, [block], read.__setitem__):
        model.logits(next(text.batches(len(text))))
    return read[block]


@every_in(["llama", "gemma3", "gpt2", "neox"])
def test_a_fit_leaves_the_model_bitwise_as_it_was(case: str, correction: Correction):
    model = shared(case)
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    repair = fitted(case, SCATTERED, correction)
    repaired_model(model, repair).logits(tiny.batch())
    after = model.module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    _is_unmarked(model)


def _is_unmarked(model: BlockModel) -> None:
    for module in model.module.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
        assert "forward" not in module.__dict__


@few
@named
def test_three_passes_are_enough_and_are_reported(monkeypatch, correction, names):
    """Layers that really ran, each counted as its blocks that were not left out."""
    ran = []
    layer, masked = Stage.layer, BlockModel.masked

    def noted(self: Stage, index: int, stream: torch.Tensor) -> torch.Tensor:
        ran.append(2)
        return layer(self, index, stream)

    def unmasked(self: BlockModel, removed):
        removed = tuple(removed)
        ran.append(-len(removed))
        return masked(self, removed)

    monkeypatch.setattr(Stage, "layer", noted)
    monkeypatch.setattr(BlockModel, "masked", unmasked)
    repair = run(fit(shared("llama"), tiny.plan(*names), correction, windows(), batch_tokens=80))
    n_batches, n_blocks = 4, 8
    assert repair.passes == pytest.approx(sum(ran) / (n_batches * n_blocks))
    assert 0 < repair.passes <= (3 if correction.where == "writer" else 2)


@few
@named
def test_every_step_is_seen_and_the_last_one_is_all(correction, names):
    """Progress goes up to its total; every batch and every solve is a step of its own."""
    events = list(fit(shared("llama"), tiny.plan(*names), correction, windows(), batch_tokens=80))
    *steps, done = events
    assert isinstance(done, Done) and all(isinstance(s, Progress) for s in steps)
    shares = [s.done for s in steps if s.total]
    assert shares == sorted(shares) and all(s.done <= s.total for s in steps)
    assert steps[-1].done == steps[-1].total
    assert {s.stage for s in steps} == {f"fitting {correction.name}"}


@few
@named
def test_any_gap_of_any_place_is_met(correction: Correction, names: tuple[str, ...]):
    """Gaps at the front, at the end, with one block between, and all but one block: no number is
    lost, and there is a place or a note for each gap."""
    for case in ("llama", "neox"):
        repair = fitted(case, names, correction)
        assert logits(case, repair).isfinite().all()
        is_parallel = shared(case).family.is_parallel
        stretches = stretches_of(tiny.plan(*names), tiny.LAYERS, is_parallel=is_parallel)
        gaps = {s.gap for s in stretches if s.gap}
        assert {met.gap for met in repair.fits} - {()} == gaps
        assert all(m.after.mse.isfinite().all() for m in repair.fits)


@every
def test_held_windows_never_change_what_is_fitted(correction: Correction):
    alone = fitted("llama", SCATTERED, correction)
    for held in (windows(3, 20, 9), tiny.windows(5, 30, seed=4)):
        beside = fitted("llama", SCATTERED, correction, held=held)
        assert torch.equal(logits("llama", alone), logits("llama", beside))
        for a, b in zip(alone.fits, beside.fits, strict=True):
            assert torch.equal(a.after.mse, b.after.mse) and a.held_after is None
            assert b.held_after.n in (3 * 19, 3 * 20, 5 * 29, 5 * 30)
            assert not torch.equal(b.held_after.mse, b.after.mse)


@every_in(["llama", "neox"])
def test_float32_results_do_not_hang_on_the_batch(case: str, correction: Correction):
    """One, 4 and all 16 windows at once, and once more."""
    results = [
        logits(case, fitted(case, SCATTERED, correction, batch_tokens=tokens))
        for tokens in (1, 80, 320, 320)
    ]
    assert torch.equal(results[2], results[3])
    for found in results[:2]:
        assert tiny.distance(found, results[2]) < 1e-5


@every_in(["llama"])
def test_padding_never_enters_a_statistic(case: str, correction: Correction):
    lengths = (20, 7, 13, 2, 20, 19, 18, 9, 1, 11)
    text = tiny.windows(10, 20, lengths=lengths)
    junk = torch.where(text.attention_mask, text.input_ids, 61 - text.input_ids)
    junk[1, 9:] = torch.arange(11) + 3
    other = CalibrationSet(junk, text.attention_mask, text.origin)
    found, expected = (fitted(case, SCATTERED, correction, windows=w) for w in (other, text))
    assert tiny.distance(logits(case, found), logits(case, expected)) < 1e-6
    assert found.n_tokens == sum(lengths) - (0 if correction.tokens == "all" else 10)
    for a, b in zip(found.fits, expected.fits, strict=True):
        assert a.after.n == b.after.n == found.n_tokens
        torch.testing.assert_close(a.before.mean_u, b.before.mean_u, rtol=1e-6, atol=1e-6)


@every_in(["llama", "gemma3", "gpt2", "neox"])
def test_a_bfloat16_model_is_fitted(case: str, correction: Correction):
    """Close to what the same model in float32 gets: within what bfloat16 streams differ by."""
    wide = tiny.model(case)
    narrow = tiny.model(case)
    narrow.module.bfloat16()
    found = [run(fit(m, tiny.plan(*SCATTERED), correction, windows())) for m in (narrow, wide)]
    made = repaired_model(narrow, found[0])
    assert made.logits(tiny.batch()).dtype == torch.bfloat16
    a, b = (np.array([mse(met.after) for met in r.fits]) for r in found)
    np.testing.assert_allclose(a, b, rtol=0.1, atol=1e-3)


@few
def test_a_fit_that_is_closed_leaves_nothing_behind(correction: Correction):
    model = tiny.model("llama")
    expected = model.logits(tiny.batch())
    n_steps = len(list(fit(model, tiny.plan(*SCATTERED), correction, windows(), batch_tokens=80)))
    for stop in (1, n_steps // 2, n_steps - 1):
        events = fit(model, tiny.plan(*SCATTERED), correction, windows(), batch_tokens=80)
        for _ in range(stop):
            next(events)
            _is_unmarked(model)
        events.close()
        _is_unmarked(model)
    assert torch.equal(model.logits(tiny.batch()), expected)


# --- what a fitter is told ------------------------------------------------------------------------


@named
@pytest.mark.parametrize("case", ["llama", "gpt2", "neox"])
def test_pairs_of_a_gap_are_both_models_streams_there(case: str, names: tuple[str, ...]):
    """Nothing is put in, so that the pruned model's are the masked model's."""
    model = shared(case)
    is_parallel = model.family.is_parallel
    told = spied(case, names, batch_tokens=80)
    stretches = stretches_of(tiny.plan(*names), tiny.LAYERS, is_parallel=is_parallel)
    assert [(p.block, p.gap) for p, _ in told] == [(s.last, s.gap) for s in stretches if s.gap]
    for place, pair in told:
        y = stream_behind(model, place.block, windows(), is_parallel=is_parallel)
        with model.masked(tiny.plan(*names)):
            u = stream_behind(model, place.block, windows(), is_parallel=is_parallel)
        torch.testing.assert_close(pair.u, counted(u), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(pair.y, counted(y), rtol=1e-5, atol=1e-5)
        assert pair.window.tolist() == [w for w in range(16) for _ in range(19)]
        slot = next((b for b in reversed(place.gap) if b.part == "mlp"), place.gap[-1])
        norm = model.layers[slot.layer].get_submodule(model.family.norms(slot.part)[0])
        torch.testing.assert_close(place.norm(pair.u), norm(pair.u))


def test_all_positions_or_all_but_the_first_are_told():
    (_, skipped), (_, whole) = (
        spied("llama", ("1.attn",), tokens=tokens)[0] for tokens in ("skip_first", "all")
    )
    assert len(whole.u) == 16 * 20
    kept = whole.u.unflatten(0, (16, 20))
    torch.testing.assert_close(skipped.u, kept[:, 1:].flatten(0, 1))
    assert not torch.isclose(kept[:, :1], skipped.u[:1]).all(-1).any()


@pytest.mark.parametrize("case", ["llama", "neox", "gpt2"])
def test_every_block_is_every_stream_that_a_survivor_reads_from_the_first_gap_on(case: str):
    """Behind the last block there is none, so that only a gap there is met."""
    told = spied(case, ("1.attn", "2.layer"), at="every_block")
    expected = ["2.mlp"] if case == "neox" else ["1.attn", "2.mlp", "3.attn"]
    assert [str(p.block) for p, _ in told] == expected
    told = spied(case, ("1.attn", "3.mlp"), at="every_block")
    assert str(told[-1][0].block) == "3.mlp"


@pytest.mark.parametrize("case", ["llama", "gemma3", "gpt2", "neox"])
def test_what_a_reader_reads_is_told_behind_its_norm(case: str):
    model = shared(case)
    told = spied(case, ("1.layer",), at="norm_out")
    readers = ["2.attn", "2.mlp"] if model.family.is_parallel else ["2.attn"]
    assert [str(p.block) for p, _ in told] == readers
    for place, pair in told:
        y = _read(model, place.block, windows())
        with model.masked(tiny.plan("1.layer")):
            u = _read(model, place.block, windows())
        torch.testing.assert_close(pair.u, counted(u), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(pair.y, counted(y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["llama", "phi3", "gpt2", "neox", "neox-serial"])
def test_of_a_writer_features_update_and_streams_are_told(case: str):
    model, names = shared(case), ("1.layer", "2.attn")
    is_parallel = model.family.is_parallel
    for place, pair in spied(case, names, at="writer"):
        weight, bias = writer_weight(model, place.block), writer(model, place.block).bias
        assert torch.equal(place.weight, weight)
        assert (place.bias is None) == (bias is None)
        read = {}
        with (
            model.masked(tiny.plan(*names)),
            watch_writers(model, [place.block], read.__setitem__),
        ):
            u = stream_behind(model, place.block, windows(), is_parallel=is_parallel)
        last = place.gap[-1] if place.gap else place.block
        y = stream_behind(model, last, windows(), is_parallel=is_parallel)
        features = counted(read[place.block])
        torch.testing.assert_close(pair.features, features, rtol=1e-5, atol=1e-5)
        made = features @ weight.T + (0 if bias is None else bias)
        torch.testing.assert_close(pair.update, made, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(pair.u, counted(u), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(pair.y, counted(y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weigh", ["none", "size"])
def test_positions_that_weigh_by_size_are_rows_divided_by_it(weigh: str):
    draw = torch.Generator().manual_seed(0)
    read, u, y, old = (torch.randn(n, m, generator=draw) for n, m in ((200, 6), (200, 4), (200, 4),
                                                                      (4, 6)))  # fmt: skip
    y = y * torch.logspace(-1, 1, 200)[:, None]
    place = Place(4, BlockId(0, "mlp"), (), weight=old)
    fitter = WriterRefit(ridge=0.0, weigh=weigh).fitter(place)
    fitter.add(Pair(u, y, torch.zeros(200, dtype=torch.int64), update=u, features=read))
    size = (y**2).mean(1, keepdim=True).sqrt() if weigh == "size" else torch.ones(200, 1)
    change = np.linalg.lstsq((read / size).numpy(), ((y - u) / size).numpy(), rcond=None)[0]
    np.testing.assert_allclose(fitter.result().weight, old + torch.tensor(change).T, atol=1e-4)


# --- sequential and parallel ----------------------------------------------------------------------


def ridge_by_numpy(u: np.ndarray, y: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and shift of u + (u - mean u) A + mean(y - u), A by stacked rows."""
    x, t = u - u.mean(0), (y - u) - (y - u).mean(0)
    weight = np.sqrt(ridge * (x**2).sum() / x.shape[1])
    x = np.vstack([x, weight * np.eye(x.shape[1])])
    a = np.linalg.lstsq(x, np.vstack([t, np.zeros((len(x) - len(t), t.shape[1]))]), rcond=None)[0]
    return a, (y - u).mean(0) - u.mean(0) @ a


def _of_gaps(case: str, *, is_sequential: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ridge maps behind 1.attn and behind 2.mlp (parallel layers: 1 and 2), the streams taken from
    plain forwards with hooks."""
    model, found = shared(case), []
    is_parallel = model.family.is_parallel
    places = [BlockId(1, "mlp" if is_parallel else "attn"), BlockId(2, "mlp")]
    made = RepairedModel(model, tiny.plan(*SCATTERED))
    alone = [RepairedModel(model, tiny.plan(name)) for name in SCATTERED]
    for i, block in enumerate(places):
        u = stream_behind(
            made if is_sequential else alone[i], block, windows(), is_parallel=is_parallel
        )
        y = stream_behind(model, block, windows(), is_parallel=is_parallel)
        matrix, shift = ridge_by_numpy(
            counted(u).double().numpy(), counted(y).double().numpy(), 1e-3
        )
        found.append((matrix, shift))
        made.put_map(block, Residual(torch.tensor(matrix), torch.tensor(shift)))
    return found


@pytest.mark.parametrize("is_sequential", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_t_ridge_maps_of_two_gaps_are_those_of_numpy(case: str, is_sequential: bool):  # noqa: FBT001
    repair = fitted(case, SCATTERED, Ridge(tokens="skip_first", is_sequential=is_sequential))
    expected = _of_gaps(case, is_sequential=is_sequential)
    for module, (matrix, shift) in zip(repair.maps.values(), expected, strict=True):
        np.testing.assert_allclose(module.matrix, matrix, rtol=1e-3, atol=2e-4)
        np.testing.assert_allclose(module.shift, shift, rtol=1e-3, atol=2e-4)


def goes_on(case: str, correction: Correction) -> bool:
    """Whether it fits something behind its gap as well."""
    return getattr(correction, "site", "") == "every_block" or correction.name == "writer_refit"


@pytest.mark.parametrize("names", [("1.mlp", "2.attn"), ("0.layer",), ("3.mlp",)])
@every_in(["llama", "gemma3", "gpt2", "neox-serial"], but=goes_on)
def test_for_one_gap_sequential_and_parallel_are_one(case, names, correction):
    """Where nothing is fitted behind it: there the pruned stream is the whole model's."""
    other = type(correction)(
        **{**correction.parameters(), "is_sequential": not correction.is_sequential}
    )
    a, b = (logits(case, fitted(case, names, c)) for c in (correction, other))
    assert tiny.distance(a, b) < 1e-5


@pytest.mark.parametrize("correction", [Mean(), ReplaceMe(), WriterRefit(writers="gap")])
@pytest.mark.parametrize("case", ["llama", "gpt2", "neox"])
def test_for_two_gaps_the_first_fit_is_one_and_the_second_is_not(case, correction):
    other = type(correction)(**{**correction.parameters(), "is_sequential": False})
    a, b = (fitted(case, SCATTERED, c) for c in (correction, other))
    first, second = _put_in(a), _put_in(b)
    assert first.keys() == second.keys() and len(first) == 2
    near, far = (tiny.distance(first[key], second[key]) for key in first)
    assert near < 1e-5 and far > 1e-3


def _put_in(repair: Repair) -> dict[BlockId, torch.Tensor]:
    return {
        **{b: m.shift for b, m in repair.maps.items()},
        **{b: w.weight for b, w in repair.writers.items()},
    }


@pytest.mark.parametrize("case", ["llama", "neox"])
def test_in_parallel_the_whole_models_streams_are_told(case: str):
    """u: its own stream in front of the gap, here with only this gap's blocks left out."""
    model = shared(case)
    is_parallel = model.family.is_parallel
    for place, pair in spied(case, SCATTERED, is_sequential=False):
        with model.masked(place.gap):
            u = stream_behind(model, place.block, windows(), is_parallel=is_parallel)
        torch.testing.assert_close(pair.u, counted(u), rtol=1e-5, atol=1e-5)


# --- laws of least squares ------------------------------------------------------------------------


def never_above(met: Fit) -> bool:
    return mse(met.after) <= mse(met.before) * (1 + 1e-5)


@named
@pytest.mark.parametrize(
    "correction",
    [
        *(WriterRefit(writers=w, ridge=r) for w in ("gap", "mlp", "all") for r in (0.0, 0.1)),
        *(ReplaceMe(ridge=r, is_sequential=s) for r in (0.0, 0.01) for s in (True,)),
        *(Ridge(ridge=r) for r in (0.0, 0.1)),
        NormRidge(),
        Mean(),
    ],
    ids=label_of,
)
def test_t_wr_3_the_error_on_the_fit_set_is_never_above_none(names, correction):
    for case in ("llama", "gpt2", "neox"):
        repair = fitted(case, names, correction)
        assert all(map(never_above, repair.fits))
        is_fitted = {*repair.maps, *repair.writers}
        assert any(mse(m.after) < mse(m.before) for m in repair.fits) == bool(is_fitted)


@pytest.mark.parametrize("correction", [WriterRefit(), WriterRefit(ridge=0.0), ReplaceMe()])
@pytest.mark.parametrize("case", ["llama", "gpt2", "neox"])
def test_t_wr_4_where_nothing_is_missing_the_writer_stays(case: str, correction: Correction):
    """The removed block wrote zeros."""
    model, block = tiny.model(case), BlockId(1, "mlp")
    with torch.no_grad():
        module = writer(model, block)
        module.weight.zero_()
        if module.bias is not None:
            module.bias.zero_()
    repair = run(fit(model, tiny.plan("1.mlp"), correction, windows()))
    assert repair.writers
    for written, found in repair.writers.items():
        torch.testing.assert_close(
            found.weight, writer_weight(model, written), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("correction", [WriterRefit(ridge=1e6), ReplaceMe(ridge=1e6)])
@pytest.mark.parametrize("case", ["llama", "gpt2", "neox"])
def test_t_wr_5_a_huge_ridge_leaves_the_writer(case: str, correction: Correction):
    repair = fitted(case, SCATTERED, correction)
    assert repair.writers
    for block, found in repair.writers.items():
        assert tiny.distance(found.weight, writer_weight(shared(case), block)) < 1e-4


UNANCHORED = WriterRefit(tokens="skip_first", writers="gap")


@pytest.mark.parametrize("case", ["llama", "gpt2"])
def test_a_refitted_writer_is_numpys_least_squares(case: str):
    """The last writer in front of the only gap, its features and streams told by a spy."""
    told = {p.block: pair for p, pair in spied(case, ("2.attn",), at="writer")}
    block = BlockId(1, "mlp")
    pair = told[block]
    a, t = pair.features.double().numpy(), (pair.y - pair.u).double().numpy()
    means = a.mean(0), t.mean(0)
    a, t = a - means[0], t - means[1]
    weight = np.sqrt(0.1 * (a**2).sum() / a.shape[1])
    more = np.vstack([a, weight * np.eye(a.shape[1])])
    zeros = np.zeros((a.shape[1], t.shape[1]))
    change = np.linalg.lstsq(more, np.vstack([t, zeros]), rcond=None)[0]
    found = fitted(case, ("2.attn",), UNANCHORED).writers[block]
    expected = writer_weight(shared(case), block).double().numpy() + change.T
    np.testing.assert_allclose(found.weight, expected, rtol=1e-4, atol=1e-5)
    bias = writer(shared(case), block).bias.detach().double().numpy()
    shift = means[1] - means[0] @ change
    np.testing.assert_allclose(found.bias, bias + shift, rtol=1e-4, atol=1e-5)


def test_a_writer_without_a_bias_gets_none_and_least_squares_through_zero():
    case = "qwen3"
    told = {p.block: pair for p, pair in spied(case, ("2.attn",), at="writer")}
    block = BlockId(1, "mlp")
    pair = told[block]
    a, t = pair.features.double().numpy(), (pair.y - pair.u).double().numpy()
    weight = np.sqrt(0.1 * (a**2).sum() / a.shape[1])
    more = np.vstack([a, weight * np.eye(a.shape[1])])
    zeros = np.zeros((a.shape[1], t.shape[1]))
    change = np.linalg.lstsq(more, np.vstack([t, zeros]), rcond=None)[0]
    found = fitted(case, ("2.attn",), UNANCHORED).writers[block]
    expected = writer_weight(shared(case), block).double().numpy() + change.T
    np.testing.assert_allclose(found.weight, expected, rtol=1e-4, atol=1e-5)
    assert found.bias is None


@pytest.mark.parametrize("is_centred", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 0.01])
def test_anchors_are_rows_that_move_neither_means_nor_ridge(is_centred: bool, ridge: float):  # noqa: FBT001
    """Held against numpy: the same rows, the means and the ridge of the others alone."""
    rng = np.random.default_rng(3)
    x, t = rng.normal(size=(400, 12)) + 2, rng.normal(size=(400, 5))
    far, aim = 1e3 * rng.normal(size=(3, 12)), rng.normal(size=(3, 5))
    sums = LeastSquares(12, 5)
    sums.add(torch.from_numpy(x), torch.from_numpy(t))
    sums.anchor(torch.from_numpy(far), torch.from_numpy(aim))
    found = sums.solve(ridge, is_centred=is_centred).numpy()
    means = (x.mean(0), t.mean(0)) if is_centred else (np.zeros(12), np.zeros(5))
    own = x - means[0]
    root = np.sqrt(ridge * (own**2).sum() / 12) * np.eye(12)
    rows = np.vstack([own, far - means[0], root])
    aims = np.vstack([t - means[1], aim - means[1], np.zeros((12, 5))])
    np.testing.assert_allclose(found, np.linalg.lstsq(rows, aims, rcond=None)[0], atol=1e-8)
    torch.testing.assert_close(sums.mean_x, torch.from_numpy(x.mean(0)))


@pytest.mark.parametrize("correction", [WriterRefit(), ReplaceMe(), Ridge()], ids=label_of)
def test_a_first_position_a_thousand_times_larger_stays_as_it_is(correction: Correction):
    """It lies in a direction that other positions hardly have, which a fit that has not seen it
    turns into anything; what is missing there is as little as elsewhere."""
    size = tiny.HIDDEN
    noise = torch.Generator().manual_seed(4)
    rows = torch.randn(600, size, generator=noise)
    rows[:, 0] *= 1e-3
    large = torch.randn(4, size, generator=noise)
    large[:, 0] = 1e4
    missing, its = (torch.randn(n, size, generator=noise) for n in (600, 4))
    place = Place(size, BlockId(1, "mlp"), (BlockId(2, "attn"),), weight=torch.eye(size))
    anchor = Pair(large, large + its, torch.arange(4), update=large, features=large)
    pair = Pair(rows, rows + missing, torch.arange(600), update=rows, features=rows)

    def added(pair: Pair) -> torch.Tensor:
        """What it does to the large position beside what was there."""
        fitter = replace(correction, ridge=1e-9).fitter(place)
        fitter.add(pair)
        found = fitter.result()
        if isinstance(found, Writing):
            return large @ found.weight.T - large
        return found(large) - large

    assert added(pair).abs().max() > 100
    assert added(replace(pair, anchor=anchor)).abs().max() < 5


# --- refusals and memory --------------------------------------------------------------------------


@pytest.mark.parametrize("correction", [WriterRefit(), ReplaceMe()], ids=label_of)
@pytest.mark.parametrize("case", POST_NORMED)
def test_writers_in_front_of_a_norm_are_refused_before_the_first_pass(
    monkeypatch, case, correction
):
    model = shared(case)
    monkeypatch.setattr(Stage, "__init__", None)
    with pytest.raises(UnsupportedModel, match=r"writes was to be changed\. In Gemma 3 a norm"):
        run(fit(model, tiny.plan(*SCATTERED), correction, windows()))


def test_more_streams_than_memory_are_refused_before_the_first_pass(monkeypatch):
    """Two models' streams of 16 + 3 windows of 20 positions, 32 float32 numbers each."""
    plan, wanted = tiny.plan("1.attn"), 2 * 19 * 20 * 32 * 4
    how = {"held": windows(3, 20, 9)}
    run(fit(shared("llama"), plan, Mean(), windows(), memory_bytes=wanted, **how))
    monkeypatch.setattr(Stage, "__init__", None)
    with pytest.raises(BadInput) as caught:
        run(fit(shared("llama"), plan, Mean(), windows(), memory_bytes=wanted - 1, **how))
    assert caught.value.asked == "A correction was to be fitted on 380 tokens."
    assert caught.value.found.startswith("Both models' streams of them take 0.1 MiB, and 0.1 MiB")
    assert caught.value.todo == "Fit on fewer tokens, or allow more memory."


def test_without_a_position_that_counts_it_is_refused():
    text = tiny.windows(3, 5, lengths=(1, 1, 1))
    with pytest.raises(BadInput, match=r"with tokens=skip_first, no position is left\. Fit on lon"):
        run(fit(shared("llama"), tiny.plan("1.attn"), Mean(), text))
    run(fit(shared("llama"), tiny.plan("1.attn"), Mean(tokens="all"), text))


def _live_streams(seq: int) -> int:
    """How many windows' streams there are, each storage counted once."""
    found = {}
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor and thing.ndim == 3 and thing.shape[1:] == (seq, 32):
            found[thing.untyped_storage().data_ptr()] = len(thing)
    return sum(found.values())


@few
def test_two_streams_of_the_fit_set_are_held_and_no_more(correction: Correction):
    """Between steps; one batch, and what its writer reads, is on its way beside them. The length is
    used by no other test."""
    text = tiny.windows(16, 23)
    events = fit(shared("llama"), tiny.plan(*SCATTERED), correction, text, batch_tokens=92)
    gc.collect()
    gc.freeze()  # what is there already is not looked through at every step
    most = max(_live_streams(23) for _ in events)
    assert 16 < most <= 2 * 16 + 2 * 4


def test_a_fit_on_a_repaired_model_comes_on_top():
    """Its maps stay where they are."""
    model = shared("llama")
    first = fitted("llama", ("1.attn",), Ridge())
    made = repaired_model(model, first)
    again = run(fit(made, tiny.plan("2.mlp"), Mean(), windows()))
    both = repaired_model(made, again)
    expected = RepairedModel(model, tiny.plan("1.attn", "2.mlp"))
    expected.put_map(BlockId(1, "attn"), first.maps[BlockId(1, "attn")])
    expected.put_map(BlockId(2, "mlp"), again.maps[BlockId(2, "mlp")])
    assert tiny.distance(both.logits(tiny.batch()), expected.logits(tiny.batch())) < 1e-6
