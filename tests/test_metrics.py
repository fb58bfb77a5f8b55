"""Every metric by hand, by numpy from its formula, and by the laws it must obey."""

from __future__ import annotations

import json
import math
import re
from dataclasses import Field, fields

import numpy as np
import pytest
import tiny
import torch
from metric_checks import CHECKS, FAMILIES

from blockviz.engine import sweep
from blockviz.errors import BadInput, UnknownName
from blockviz.evaluate import measure_perplexity
from blockviz.metrics import METRICS, parse_metric, parse_metrics
from blockviz.metrics.base import ActivationMetric, mean_and_error, weighted_mean_and_error
from blockviz.metrics.bi import BlockInfluence
from blockviz.metrics.lds import LogitDisruption
from blockviz.metrics.ppl import MaskedPerplexity
from blockviz.metrics.rm import RelativeMagnitude
from blockviz.models.model import BlockModel
from blockviz.stats import BlockStatistic, RelativeSize, StreamCosine, UpdateCosine
from blockviz.types import AblationTable, BlockId, BlockStatistics, Readout, Scores, run

pytestmark = pytest.mark.usefixtures("one_thread")

A, B = BlockId(0, "attn"), BlockId(0, "mlp")
TWO_TOKENS = torch.full((2,), 2, dtype=torch.float64)


def readout(logits: object, targets: list[int] | None = None) -> Readout:
    """The readout of (position, vocab) logits; every position has a target (word 0 by default)."""
    z = torch.as_tensor(logits, dtype=torch.float32)
    t = torch.tensor(targets or [0] * len(z))
    nll = z.logsumexp(-1) - z.gather(1, t[:, None])[:, 0]
    return Readout(logits=z, nll=nll, targets=t, has_target=torch.ones_like(t, dtype=torch.bool))


def scored(metric: object, model: BlockModel, **how: object) -> Scores:
    """The metric's scores of every block of a tiny model, by the sweep."""
    windows = how.pop("windows", None) or tiny.windows()
    return sweep_scores([metric], model, windows, **how)[0]


def sweep_scores(metrics: list, model: BlockModel, windows: object, **how: object) -> list[Scores]:
    ablation = [m for m in metrics if not isinstance(m, ActivationMetric)]
    dense = [m for m in metrics if isinstance(m, ActivationMetric)]
    blocks, layers = model.info.units("block"), model.info.units("layer")
    found = run(
        sweep(
            model,
            windows,
            ablation,
            candidates=blocks,
            statistics={kind: blocks for m in dense for kind in m.needs},
            passes={
                asked: layers if m.unit_for("block") == "layer" else blocks
                for m in dense
                for asked in m.passes()
            },
            **how,
        )
    )
    tables = dict(zip(map(id, ablation), found.tables, strict=True))
    return [m.score(tables.get(id(m), found.statistics)) for m in metrics]


def no_op(model: BlockModel, case: str, name: str) -> BlockModel:
    """The model, whose block `name` writes zeros from now on."""
    part = BlockId.parse(name)
    writer = model.part(part).get_submodule(tiny.WRITERS[case][part.part == "mlp"])
    with torch.no_grad():
        writer.weight.zero_()
        if writer.bias is not None:
            writer.bias.zero_()
    return model


# --- perplexity -----------------------------------------------------------------------------------


def test_ppl_by_hand():
    # Window 1: p(target) = 1/2 and 1/8, so its mean is (ln 2 + ln 8) / 2 = 2 ln 2.
    # Window 2: p(target) = 1/4 and 1/16: 3 ln 2. Mean of both 2.5 ln 2: perplexity 2 ** 2.5.
    first = readout(np.log([[2, 1, 1], [1, 5, 2]]))
    second = readout(np.log([[1, 2, 1], [1, 8, 7]]))
    ppl = MaskedPerplexity()
    nll = [ppl.per_position(r, {}).mean().item() for r in (first, second)]
    assert nll == pytest.approx([2 * math.log(2), 3 * math.log(2)], rel=1e-6)
    table = AblationTable(
        baseline=torch.tensor([math.log(2), math.log(8)], dtype=torch.float64),
        values={A: torch.tensor(nll, dtype=torch.float64)},
        counts=TWO_TOKENS,
    )
    scores = ppl.score(table)
    assert scores.raw[A] == scores.values[A] == pytest.approx(2**2.5, rel=1e-6)
    assert scores.baseline == pytest.approx(4)
    # The windows lie ln(2)/2 around their mean: their sample deviation is ln(2)/sqrt(2), the error
    # of the mean ln(2)/2, and that of its exponential is that many times itself.
    assert scores.stderr[A] == pytest.approx(2**2.5 * math.log(2) / 2, rel=1e-6)


def test_ppl_counts_only_positions_that_have_a_next_token():
    r = readout([[0.0, 0.0], [0.0, 0.0]])
    r = Readout(r.logits, r.nll, r.targets, torch.tensor([True, False]))
    assert MaskedPerplexity().positions(r).tolist() == [True, False]
    assert LogitDisruption().positions(r).tolist() == [True, True]


def _numpy_window_nll(model: BlockModel, names: tuple[str, ...], windows) -> np.ndarray:
    """(n_windows,) float64: mean next-token loss of each window, one at a time, by numpy."""
    out = []
    for ids, mask in zip(windows.input_ids, windows.attention_mask, strict=True):
        ids = ids[: int(mask.sum())]
        with model.masked(tiny.ids(*names)), torch.inference_mode():
            z = model.module(input_ids=ids[None], use_cache=False).logits[0].double().numpy()
        log_sum = np.log(np.exp(z).sum(-1))
        out.append(np.mean([log_sum[i] - z[i, ids[i + 1]] for i in range(len(ids) - 1)]))
    return np.array(out)


@pytest.mark.parametrize("summation", ["exact", "published"])
def test_ppl_equals_a_plain_numpy_loop(summation: str):
    model, windows = tiny.model("llama"), tiny.windows(3, 20, lengths=(20, 13, 5))
    scores = scored(MaskedPerplexity(summation=summation), model, windows=windows)
    for block in model.info.units("block"):
        nll = _numpy_window_nll(model, (str(block),), windows)
        assert scores.raw[block] == pytest.approx(np.exp(nll.mean()), rel=1e-5)
        error = np.exp(nll.mean()) * nll.std(ddof=1) / np.sqrt(3)
        assert scores.stderr[block] == pytest.approx(error, rel=1e-4)
    whole = _numpy_window_nll(model, (), windows)
    assert scores.baseline == pytest.approx(np.exp(whole.mean()), rel=1e-5)  # T-PPL-1


@pytest.mark.parametrize("case", ["llama", "neox"])
def test_t_ppl_1_masking_nothing_gives_the_models_own_perplexity(case: str):
    model, windows = tiny.model(case), tiny.windows()
    scores = scored(MaskedPerplexity(), model, windows=windows)
    assert scores.baseline == pytest.approx(run(measure_perplexity(model, windows)).value, rel=1e-6)


def test_t_ppl_2_uniform_logits_give_the_size_of_the_vocabulary():
    model = tiny.model("llama")
    with torch.no_grad():
        model.module.lm_head.weight.zero_()
    scores = scored(MaskedPerplexity(), model)
    assert list(scores.raw.values()) == pytest.approx([tiny.VOCAB] * 8, rel=1e-6)
    assert max(scores.stderr.values()) < 1e-4


def test_t_ppl_2_perplexity_is_at_least_one():
    certain = readout([[60.0, 0.0, 0.0]])
    assert MaskedPerplexity().per_position(certain, {}).item() >= 0


def test_t_ppl_3_equal_windows_weigh_every_token_alike():
    model, windows = tiny.model("llama"), tiny.windows(4, 12)
    scores = scored(MaskedPerplexity(), model, windows=windows)
    with model.masked((A,)), torch.inference_mode():
        z = model.module(input_ids=windows.input_ids, use_cache=False).logits[:, :-1].double()
    targets = windows.input_ids[:, 1:, None]
    token_mean = (z.logsumexp(-1, keepdim=True) - z.gather(-1, targets)).mean().item()
    assert math.log(scores.raw[A]) == pytest.approx(token_mean, rel=1e-6)


@pytest.mark.parametrize("case", ["llama", "gemma3", "gpt2", "neox"])
@pytest.mark.parametrize("name", ["0.attn", "2.mlp"])
def test_t_ppl_4_t_lds_1_a_block_that_adds_nothing_scores_nothing(case: str, name: str):
    """T-PPL-4, T-LDS-1, T-BI-1: at its lowest under every metric, and the only one there."""
    model, block = no_op(tiny.model(case), case, name), BlockId.parse(name)
    metrics = list(parse_metrics(["bi", "rm", "ppl", "lds:k=64"]).values())
    found = {s.metric: s for s in sweep_scores(metrics, model, tiny.windows())}
    assert found["ppl"].raw[block] == pytest.approx(found["ppl"].baseline, rel=1e-6)
    assert found["bi"].raw[block] == found["rm"].raw[block] == 0
    assert abs(found["lds"].raw[block]) <= 1e-6
    for metric in ("bi", "rm", "lds"):
        others = [v for b, v in found[metric].raw.items() if b != block]
        assert min(others) > 1e-4, metric
        assert found[metric].ranks()[block] == 1


def test_summations_differ_by_rounding_only_on_a_small_vocabulary():
    r = readout(torch.randn(50, 64, generator=torch.Generator().manual_seed(0)))
    exact = MaskedPerplexity().per_position(r, {})
    assert tiny.distance(MaskedPerplexity(summation="published").per_position(r, {}), exact) < 1e-6


# --- logit disruption -----------------------------------------------------------------------------


def test_lds_by_hand():
    # Dense logits (4, 3, 0), K = 2: words 0 and 1 are kept. Masked: (3, -4, 9) there is (3, -4).
    # cos = (4*3 - 3*4) / (5*5) = 0, so 1 - 0 = 1. A second token turns by nothing: 0.
    lds = LogitDisruption(k=2)
    kept = lds.remember(readout([[4, 3, 0], [1, 5, 2]]))
    assert kept["index"].tolist() == [[0, 1], [1, 2]]
    assert kept["values"].tolist() == [[4, 3], [5, 2]]
    values = lds.per_position(readout([[3, -4, 9], [-7, 10, 4]]), kept)
    assert values.tolist() == pytest.approx([1, 0], abs=1e-6)


def test_centered_and_logprob_lds_by_hand():
    # Dense (3, 1, -9), masked (1, 5, 0), K = 2. Centred on the two kept words: (1, -1) and (-2, 2),
    # which point against each other: 1 - (-1) = 2.
    centered = LogitDisruption(k=2, space="centered")
    kept = centered.remember(readout([[3, 1, -9]]))
    assert centered.per_position(readout([[1, 5, 0]]), kept).item() == pytest.approx(2)
    # Log-probabilities of p = (1/2, 1/4, 1/4) and q = (1/4, 1/2, 1/4), in bits (1, 2) and (2, 1):
    # cos = 4/5. The third word counts in the sum of probabilities but is not kept.
    logprob = LogitDisruption(k=2, space="logprob")
    kept = logprob.remember(readout(np.log([[2, 1.001, 1]])))
    value = logprob.per_position(readout(np.log([[1, 2, 1]])), kept).item()
    assert value == pytest.approx(1 / 5, abs=1e-3)


def _random_pair(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(40, 64)) * 3, rng.normal(size=(40, 64)) * 3


def _numpy_lds(dense: np.ndarray, now: np.ndarray, k: int, space: str) -> np.ndarray:
    out = []
    for z0, z in zip(dense, now, strict=True):
        if space == "logprob":
            z0, z = z0 - np.log(np.exp(z0).sum()), z - np.log(np.exp(z).sum())
        chosen = np.argsort(-z0)[:k]
        a, b = z0[chosen], z[chosen]
        if space == "centered":
            a, b = a - a.mean(), b - b.mean()
        out.append(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return np.array(out)


@pytest.mark.parametrize("space", ["raw", "centered", "logprob"])
@pytest.mark.parametrize("k", [2, 10, 64, 100])  # 100 words are asked of 64
def test_t_lds_1_t_lds_2_lds_equals_numpy_and_stays_in_its_range(space: str, k: int):
    dense, now = _random_pair()
    lds = LogitDisruption(k=k, space=space)
    values = lds.per_position(readout(now), lds.remember(readout(dense))).numpy()
    np.testing.assert_allclose(values, _numpy_lds(dense, now, k, space), atol=2e-6)
    assert values.min() >= -1e-6 and values.max() <= 2 + 1e-6  # T-LDS-2
    same = lds.per_position(readout(dense), lds.remember(readout(dense)))
    assert same.abs().max() <= 1e-6  # T-LDS-1


def test_t_lds_3_scaling_the_masked_logits_changes_nothing():
    dense, now = _random_pair(1)
    lds = LogitDisruption(k=10)
    kept = lds.remember(readout(dense))
    expected = lds.per_position(readout(now), kept).numpy()
    for c in (0.01, 7.0):
        np.testing.assert_allclose(lds.per_position(readout(c * now), kept), expected, atol=1e-6)
    assert not np.allclose(lds.per_position(readout(-now), kept), expected, atol=0.1)


@pytest.mark.parametrize(
    ("space", "is_same"), [("raw", False), ("centered", True), ("logprob", True)]
)
def test_t_lds_4_a_shift_of_all_logits_of_a_token(space: str, is_same: bool):  # noqa: FBT001
    dense, now = _random_pair(2)
    lds = LogitDisruption(k=10, space=space)
    kept = lds.remember(readout(dense))
    shift = np.linspace(1, 9, 40)[:, None]
    gap = lds.per_position(readout(now + shift), kept) - lds.per_position(readout(now), kept)
    assert (gap.abs().max() < 1e-5) == is_same


def test_t_lds_5_all_raw_logits_give_the_plain_cosine():
    model, windows = tiny.model("gpt2"), tiny.windows()
    scores = scored(LogitDisruption(k=tiny.VOCAB), model, windows=windows)
    z0 = model.logits(next(windows.batches(3))).double()
    for block in model.info.units("block"):
        with model.masked((block,)):
            z = model.logits(next(windows.batches(3))).double()
        cosine = (z0 * z).sum(-1) / z0.norm(dim=-1) / z.norm(dim=-1)
        assert scores.raw[block] == pytest.approx(1 - cosine.mean().item(), rel=1e-5)
    assert scores.baseline == pytest.approx(0, abs=1e-6)


def test_lds_keeps_the_dense_models_words_also_when_blocks_are_gone_before():
    """The kept words and values are those of the model that the sweep starts from."""
    model, windows, gone = tiny.model("llama"), tiny.windows(), tiny.ids("1.attn")
    scores = scored(LogitDisruption(k=5), model, windows=windows, removed=gone)
    batch = next(windows.batches(3))
    with model.masked(gone):
        z0 = model.logits(batch).flatten(0, 1).double().numpy()
    with model.masked((*gone, B)):
        z = model.logits(batch).flatten(0, 1).double().numpy()
    assert scores.raw[B] == pytest.approx(_numpy_lds(z0, z, 5, "raw").mean(), rel=1e-4)


@pytest.mark.parametrize("case", FAMILIES)
@pytest.mark.parametrize("unit", ["block", "layer", "attn", "mlp"])
@pytest.mark.parametrize("text", ["ppl", "lds:k=10", "lds:k=9:space=centered", "bi", "rm"])
def test_the_first_four_equal_numpy_on_every_family(text: str, case: str, unit: str):
    metric = parse_metric(text)
    CHECKS[metric.name](metric, case, unit)


# --- block influence and relative magnitude -------------------------------------------------------


def statistics(before: object, update: object, mask: object = None) -> BlockStatistics:
    """What one block's statistics say of one batch (batch, seq, hidden)."""
    x, f = (torch.as_tensor(v, dtype=torch.float32) for v in (before, update))
    mask = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else torch.as_tensor(mask)
    values = {}
    for kind in (StreamCosine, RelativeSize):
        running = kind()
        running.add(x, f, mask)
        values.update({f"{kind.name}.{k}": v for k, v in running.result().items()})
    return BlockStatistics({A: values}, int(mask.sum()), x.shape[0])


def bi_rm(before: object, update: object, mask: object = None) -> tuple[float, float]:
    made = statistics(before, update, mask)
    return BlockInfluence().score(made).raw[A], RelativeMagnitude().score(made).raw[A]


def test_bi_and_rm_by_hand():
    # x = (3, 4), f = (1, -1): x + f = (4, 3), cos = 24/25; |f| = sqrt(2), |x + f| = 5.
    # x = (1, 0), f = (-2, 0): x + f = (-1, 0), cos = -1; |f| = 2, |x + f| = 1.
    bi, rm = bi_rm([[[3, 4], [1, 0]]], [[[1, -1], [-2, 0]]])
    assert bi == pytest.approx((1 / 25 + 2) / 2, rel=1e-6)
    assert rm == pytest.approx((math.sqrt(2) / 5 + 2) / 2, rel=1e-6)


def test_t_bi_1_an_update_of_zero_has_no_influence():
    x = torch.randn(2, 5, 16) * 1000
    assert bi_rm(x, torch.zeros_like(x)) == (0, 0)


def test_t_bi_2_an_update_along_the_stream_is_seen_by_rm_only():
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    for c in (0.5, 3.0):
        bi, rm = bi_rm(x, c * x)
        assert bi == pytest.approx(0, abs=1e-6)
        assert rm == pytest.approx(c / (1 + c), rel=1e-6)


def test_t_bi_3_influence_reaches_from_none_to_a_turn_about():
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    assert bi_rm(x, -2 * x)[0] == pytest.approx(2, rel=1e-6)
    assert 0 <= bi_rm(x, torch.randn_like(x))[0] <= 2


def test_t_bi_4_a_right_angle_of_equal_length():
    bi, rm = bi_rm([[[2, 0]]], [[[0, 2]]])
    assert bi == pytest.approx(0.29289, abs=1e-5) and rm == pytest.approx(0.70711, abs=1e-5)


def test_zero_vectors_are_no_turn_and_no_size():
    assert bi_rm([[[0, 0]]], [[[0, 0]]]) == (0, 0)


@pytest.mark.parametrize("case", FAMILIES)
@pytest.mark.parametrize("unit", ["block", "layer", "attn"])
def test_bi_without_the_residual_stream_equals_numpy(case: str, unit: str):
    """What a block reads beside what it adds; there is no such thing of a whole layer."""
    CHECKS["bi"](BlockInfluence(residual=False), case, unit)


def test_bi_without_the_residual_stream_by_hand():
    # Reads (3, 4) and adds (4, 3): 1 - 24/25. Reads (1, 0) and adds (0, 9): 1.
    running = UpdateCosine().start(tiny.model("llama"), (A,), tiny.windows())
    running.begin(tiny.batch(1, 2))
    running._read[A] = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]])
    running.on_block(A, torch.zeros(1, 2, 2), torch.tensor([[[4.0, 3.0], [0.0, 9.0]]]))
    made = BlockStatistics({}, 2, 1, {UpdateCosine(): running.result()})
    assert BlockInfluence(residual=False).score(made).raw == pytest.approx({A: (1 / 25 + 1) / 2})


@pytest.mark.parametrize("case", FAMILIES)
def test_t_bi_1_a_block_that_adds_nothing_has_no_influence_without_the_stream_either(case: str):
    block = BlockId(2, "attn")
    scores = scored(BlockInfluence(residual=False), no_op(tiny.model(case), case, "2.attn"))
    assert scores.raw[block] == 0 and scores.ranks()[block] == 1
    assert all(0 < v <= 2 for b, v in scores.raw.items() if b != block)


def test_t_bi_5_influence_hardly_depends_on_how_much_is_read():
    """Eight times the text moves no block by more than its error says, and hardly any rank."""
    model = tiny.model("llama")
    few, many = (scored(BlockInfluence(), model, windows=tiny.windows(n, 32)) for n in (6, 48))
    for block, value in many.raw.items():
        assert abs(few.raw[block] - value) < 4 * few.stderr[block]
        assert abs(few.ranks()[block] - many.ranks()[block]) <= 1


def test_a_small_turn_is_measured_to_its_last_digits():
    """1 - cos of an angle of 0.01 is 5e-5: plain float32 cosines would keep three digits of it."""
    angle, n = 0.01, 400
    phase = torch.linspace(0, 6, n, dtype=torch.float64)
    x = torch.stack([phase.cos(), phase.sin()], -1)[None]
    y = torch.stack([(phase + angle).cos(), (phase + angle).sin()], -1)[None]
    assert bi_rm(x, y - x)[0] == pytest.approx(1 - math.cos(angle), rel=1e-3)


def test_positions_of_padding_count_for_nothing_even_if_they_are_not_numbers():
    x = torch.tensor([[[3.0, 4.0], [math.nan, 1.0]]])
    f = torch.tensor([[[1.0, -1.0], [1.0, math.inf]]])
    bi, rm = bi_rm(x, f, [[True, False]])
    assert bi == pytest.approx(1 / 25, rel=1e-5)
    assert rm == pytest.approx(math.sqrt(2) / 5, rel=1e-6)


def test_bi_and_rm_equal_numpy_with_their_errors():
    rng = np.random.default_rng(0)
    x, f = rng.normal(size=(2, 6, 9, 32))
    mask = np.arange(9)[None] < np.array([9, 9, 7, 4, 2, 1])[:, None]
    y = x + f
    turn = 1 - (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
    size = np.linalg.norm(f, axis=-1) / np.linalg.norm(y, axis=-1)
    made = statistics(x, f, mask)
    for metric, values in ((BlockInfluence(), turn), (RelativeMagnitude(), size)):
        scores = metric.score(made)
        assert scores.raw[A] == pytest.approx(values[mask].mean(), rel=1e-5)
        # The error of a ratio of window sums over window lengths, as in survey sampling:
        # sqrt(sum (y_i - r n_i)^2 / (N (N-1))) / mean n.
        lengths, sums = mask.sum(1), (values * mask).sum(1)
        residual = sums - values[mask].mean() * lengths
        error = np.sqrt((residual**2).sum() / (6 * 5)) / lengths.mean()
        assert scores.stderr[A] == pytest.approx(error, rel=1e-4)


def test_bi_and_rm_of_a_model_equal_its_own_hidden_states():
    """Layer influence by the library's hidden states; block influence by the writers' outputs."""
    model, windows = tiny.model("mistral"), tiny.windows()
    blocks = (*model.info.units("layer"), *model.info.units("attn"))
    found = run(
        sweep(
            model,
            windows,
            (),
            candidates=(),
            statistics=dict.fromkeys((StreamCosine, RelativeSize), blocks),
        )
    ).statistics
    bi, rm = BlockInfluence().score(found), RelativeMagnitude().score(found)
    written: list[torch.Tensor] = []
    hooks = [
        layer.self_attn.o_proj.register_forward_hook(lambda _m, _a, out: written.append(out))
        for layer in model.module.model.layers
    ]
    with torch.inference_mode():
        states = model.module(input_ids=windows.input_ids, output_hidden_states=True).hidden_states
    for hook in hooks:
        hook.remove()
    for i in range(tiny.LAYERS):
        x, f = states[i].double().numpy(), written[i].double().numpy()
        pairs = [(BlockId(i, "attn"), x + f)]
        if i + 1 < tiny.LAYERS:  # the library norms the last state
            pairs.append((BlockId(i, "layer"), states[i + 1].double().numpy()))
        for block, y in pairs:
            norms = np.linalg.norm(x, axis=-1), np.linalg.norm(y, axis=-1)
            turn = (1 - (x * y).sum(-1) / norms[0] / norms[1]).mean()
            size = (np.linalg.norm(y - x, axis=-1) / norms[1]).mean()
            assert bi.raw[block] == pytest.approx(turn, rel=1e-5), block
            assert rm.raw[block] == pytest.approx(size, rel=1e-5), block


def test_a_statistic_must_say_what_it_measures():
    with pytest.raises(TypeError, match="BlockStatistic does not say"):
        BlockStatistic().add(torch.ones(1, 1, 2), torch.ones(1, 1, 2), torch.ones(1, 1).bool())


# --- what holds for all ---------------------------------------------------------------------------

EVERY = [
    *("bi", "bi:residual=false", "rm", "ang_win", "ang_win:tokens=all", "cos_win"),
    *("cos_win:cos_axis=channel", "tabp_ssn", "tabp_ssn:stat=key", "tabp_ddf", "cka", "cvr"),
    *("ppl", "lds:k=10", "norm", "ang", "kl", "js", "shapley_loo"),
]
# What these say of several texts is no mean of what they say of each.
OF_THE_WHOLE = ("cka", "cvr")


@pytest.mark.parametrize("case", ["llama", "gemma3", "neox"])
def test_scores_do_not_depend_on_batches_or_padding(case: str):
    """Eight texts at once, padded; one at a time, padded; and each alone without its padding."""
    lengths = (20, 13, 5, 20, 2, 8, 17, 11)
    windows, model = tiny.windows(8, 20, lengths=lengths), tiny.model(case)
    metrics = [parse_metric(text) for text in EVERY]
    together = sweep_scores(metrics, model, windows, batch_tokens=160)
    one_by_one = sweep_scores(metrics, model, windows, batch_tokens=20)
    # Two tokens alone are too few samples for CKA, which is not asked here.
    asked = [m if m.name != "cka" else parse_metric("bi") for m in metrics]
    alone = [
        sweep_scores(asked, model, _cut(windows, i, length)) for i, length in enumerate(lengths)
    ]
    for k, (a, b) in enumerate(zip(together, one_by_one, strict=True)):
        assert a.raw.keys() == b.raw.keys() and len(a.raw) >= 4
        for block in a.raw:
            assert a.raw[block] == pytest.approx(b.raw[block], rel=1e-4, abs=1e-6), (
                EVERY[k],
                block,
            )
            if a.stderr is not None:
                assert a.stderr[block] == pytest.approx(b.stderr[block], rel=1e-3, abs=1e-6)
            if a.metric in OF_THE_WHOLE:
                continue
            parts = np.array([scores[k].raw[block] for scores in alone])
            if a.metric == "ppl":
                expected = np.exp(np.log(parts).mean())
            elif a.metric in ("bi", "rm"):
                expected = np.average(parts, weights=lengths)  # positions weigh alike
            else:
                expected = parts.mean()  # windows weigh alike
            assert a.raw[block] == pytest.approx(expected, rel=1e-4, abs=1e-6), (EVERY[k], block)


def _cut(windows, row: int, length: int):
    made = tiny.windows(1, length)
    made.input_ids.copy_(windows.input_ids[row : row + 1, :length])
    return made


def test_the_order_of_windows_changes_no_score():
    windows, model = tiny.windows(4, 12), tiny.model("qwen2")
    turned = tiny.windows(4, 12)
    turned.input_ids.copy_(windows.input_ids.flip(0))
    metrics = [parse_metric(text) for text in EVERY]
    for a, b in zip(*(sweep_scores(metrics, model, w) for w in (windows, turned)), strict=True):
        for block, value in a.raw.items():
            assert b.raw[block] == pytest.approx(value, rel=1e-4, abs=1e-6), (a.metric, block)


@pytest.mark.parametrize("case", ["llama", "gemma3", "gpt2", "neox"])
def test_both_roads_give_every_metric_the_same_numbers(case: str):
    windows, model = tiny.windows(3, 20, lengths=(20, 13, 5)), tiny.model(case)
    metrics = [parse_metric(text) for text in EVERY]
    fast, plain = (sweep_scores(metrics, model, windows, engine=e) for e in ("fast", "reference"))
    for text, a, b in zip(EVERY, fast, plain, strict=True):
        assert a.raw.keys() == b.raw.keys()
        for block, value in a.raw.items():
            assert b.raw[block] == pytest.approx(value, rel=1e-4, abs=1e-6), (text, block)
        if a.windows is not None:
            assert a.windows == pytest.approx(b.windows, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("text", EVERY)
def test_numbers_a_window_tell_the_score_and_its_error(text: str):
    """Of equal windows the numbers' mean is the score (of ppl its logarithm), and its error."""
    metric = parse_metric(text)
    (scores,) = sweep_scores([metric], tiny.model("llama"), tiny.windows(4, 12))
    if metric.name in OF_THE_WHOLE:
        assert scores.per_window is None and scores.stderr is None
        return
    assert scores.per_window.keys() == scores.values.keys() == scores.stderr.keys()
    for block, value in scores.values.items():
        numbers = np.array(scores.per_window[block])
        error = numbers.std(ddof=1) / 2
        if metric.name == "ppl":
            value, error = math.log(value), error * value
        assert numbers.shape == (4,) and numbers.mean() == pytest.approx(value, rel=1e-5, abs=1e-9)
        assert scores.stderr[block] == pytest.approx(error, rel=1e-5, abs=1e-9)


def test_a_model_with_blocks_taken_out_is_scored_like_the_small_model_it_is():
    """What is scored of the kept blocks does not depend on how the others were removed."""
    model, gone = tiny.model("llama"), tiny.ids("1.mlp", "2.layer")
    pruned = model.prune(tiny.plan("1.mlp", "2.layer"))
    metrics = [parse_metric(t) for t in ("ppl", "lds:k=10", "norm", "ang", "kl", "js")]
    masked = sweep_scores(metrics, model, tiny.windows(), removed=gone)
    taken_out = sweep_scores(metrics, pruned, tiny.windows())
    # Layer 3 is layer 2 once layer 2 is gone.
    pairs = {"0.attn": "0.attn", "0.mlp": "0.mlp", "1.attn": "1.attn", "3.attn": "2.attn"}
    for a, b in zip(masked, taken_out, strict=True):
        for old, new in (*pairs.items(), ("3.mlp", "2.mlp")):
            one, other = a.raw[BlockId.parse(old)], b.raw[BlockId.parse(new)]
            assert one == pytest.approx(other, rel=1e-4, abs=1e-6), (a.metric, old)


@pytest.mark.parametrize("text", [t for t in EVERY if t != "cvr"])
def test_a_part_that_is_missing_scores_what_nothing_scores(text: str):
    """A half layer keeps a stand-in that adds nothing; cvr has no weights there and says so."""
    metric = parse_metric(text)
    pruned = tiny.model("llama").prune(tiny.plan("1.mlp", "2.attn"))
    (scores,) = sweep_scores([metric], pruned, tiny.windows())
    if metric.unit_for("block") == "layer":
        assert len(scores.raw) == 4
        return
    nothing = scores.baseline if metric.name == "ppl" else 0
    for name in ("1.mlp", "2.attn"):
        assert scores.raw[BlockId.parse(name)] == pytest.approx(nothing, rel=1e-6, abs=2e-6)


@pytest.mark.parametrize("n", [2, 3, 50])
def test_the_error_of_a_mean_is_numpys(n: int):
    values = np.random.default_rng(n).normal(size=n)
    mean, error = mean_and_error(torch.tensor(values))
    assert (mean, error) == pytest.approx((values.mean(), values.std(ddof=1) / np.sqrt(n)))
    count = torch.full((n,), 7)  # equal windows: the ratio's error is the plain one
    assert weighted_mean_and_error(torch.tensor(values) * 7, count) == pytest.approx((mean, error))


def test_one_window_has_no_error():
    assert mean_and_error(torch.tensor([2.0])) == (2.0, 0.0)
    assert weighted_mean_and_error(torch.tensor([6.0]), torch.tensor([3])) == (2.0, 0.0)


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("case", ["attn", "mlp"])
def test_a_model_that_gives_no_numbers_raises(case: str, text: str):
    model, metric = tiny.model("llama"), parse_metric(text)
    block = BlockId(2, case)
    with torch.no_grad():
        # Of a writer's matrix, so that the weights that cvr looks at have it too.
        model.part(block).get_submodule(tiny.WRITERS["llama"][case == "mlp"]).weight[0, 0] = (
            math.nan
        )
    with pytest.raises(ValueError, match=f"{metric.name} is not finite"):
        sweep_scores([metric], model, tiny.windows())


def test_an_infinite_loss_is_refused_and_a_huge_one_is_a_number():
    huge = torch.tensor([900.0, 1100.0], dtype=torch.float64)
    found = MaskedPerplexity().score(AblationTable(huge, {A: huge, B: huge - 1}, TWO_TOKENS))
    assert found.raw[A] == found.baseline == math.exp(700)
    infinite = torch.tensor([1.0, math.inf], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"ppl is not finite for 0\.mlp"):
        MaskedPerplexity().score(AblationTable(huge, {A: huge, B: infinite}, TWO_TOKENS))


# --- registry and settings ------------------------------------------------------------------------


LISTED = (
    "ppl lds norm ang kl js bi rm ang_win cos_win tabp_ssn tabp_ddf taylor mag cka "
    "shapley_loo shapley_perm shapley_random cvr acc"
)


def test_every_metric_says_what_it_is():
    assert METRICS.names() == tuple(LISTED.split())
    assert len({cls.title for cls in METRICS.classes()}) == len(METRICS.classes())
    for cls in METRICS.classes():
        assert cls.title and cls.unit_label and cls.cost and cls.reference.startswith("https://")
        assert cls.meaning.endswith(".") and re.search(r"\b20\d\d\b", cls.citation), cls.name
        assert json.loads(json.dumps(cls().parameters())) == cls().parameters()


def test_metrics_are_read_in_the_order_given_with_their_settings():
    assert list(parse_metrics(["ppl", " lds:k=50:space=centered ", "", "bi"]).items()) == [
        ("ppl", MaskedPerplexity()),
        ("lds", LogitDisruption(k=50, space="centered")),
        ("bi", BlockInfluence()),
    ]
    assert parse_metric("lds: k = 50") == LogitDisruption(k=50)
    assert parse_metric("bi:residual=no") == BlockInfluence(residual=False)
    assert parse_metric("cvr:alpha=1").parameters() == {"alpha": 1.0}


def test_a_metric_asked_for_twice_goes_by_its_settings():
    chosen = parse_metrics(["lds:k=7", "lds", "lds:k=9:space=centered", "lds:k=7"])
    assert chosen == {
        "lds:k=7": LogitDisruption(k=7),
        "lds": LogitDisruption(),
        "lds:k=9:space=centered": LogitDisruption(k=9, space="centered"),
    }
    assert list(parse_metrics(["ppl", "lds:k=7"])) == ["ppl", "lds"]


def test_all_stands_for_every_metric_and_keeps_settings():
    chosen = parse_metrics(["lds:k=7", "all"], has_tasks=True)
    assert sorted(m.name for m in chosen.values()) == sorted(METRICS.names())
    assert chosen["lds"] == LogitDisruption(k=7)
    assert list(parse_metrics(["all"], has_tasks=True)) == list(METRICS.names())


def test_all_leaves_out_what_needs_a_task_where_there_is_none():
    assert list(parse_metrics(["all"])) == [n for n in METRICS.names() if n != "acc"]


def every_setting() -> list[tuple[str, Field]]:
    return [(cls.name, setting) for cls in METRICS.classes() for setting in fields(cls)]


@pytest.mark.parametrize(("name", "setting"), every_setting(), ids=lambda v: getattr(v, "name", v))
def test_every_setting_has_a_label_and_keeps_to_its_range(name: str, setting: Field):
    rules, cls = setting.metadata, METRICS.get(name)
    assert rules["label"] and setting.type in ("str", "int", "float", "bool")
    assert ("choices" in rules) == (setting.type == "str")
    if setting.type == "str":
        assert setting.default in rules["choices"]
        with pytest.raises(BadInput, match=f"{setting.name} has no such value"):
            cls(**{setting.name: "nonsense"})
    if setting.type in ("int", "float"):
        for bound, step in (("min", -1), ("max", 1)):
            if bound in rules:
                with pytest.raises(BadInput, match=f"{setting.name} must be (from|at least) "):
                    cls(**{setting.name: rules[bound] + step})
                assert cls(**{setting.name: rules[bound]}).parameters()
        assert "min" in rules, "no number may be below anything"
    if setting.type == "float":
        for value in (math.nan, math.inf):
            with pytest.raises(BadInput, match=f"{setting.name} must be a finite number"):
                cls(**{setting.name: value})


@pytest.mark.parametrize("text", ["acc", "tabp_ssn:form=choices", "tabp_ddf:form=choices"])
def test_what_needs_a_task_is_refused_without_one(text: str):
    with pytest.raises(BadInput, match=r"and none was named\. Name one with --tasks"):
        parse_metrics([text])
    assert list(parse_metrics([text], has_tasks=True)) == [text.split(":")[0]]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "pll",
            UnknownName,
            r"The metric 'pll' was asked for\. .*Did you mean 'ppl'.*Choose from:",
        ),
        ("zzzz", UnknownName, r"No name is close to it\. Choose from: ppl, lds, norm, ang, kl"),
        ("lds:j=3", BadInput, r"lds has no setting 'j=3'\. Its parameters: k, space"),
        ("lds:k", BadInput, r"no setting 'k'"),
        ("rm:k=3", BadInput, r"Its parameters: none"),
        ("lds:k=many", BadInput, r"'many' is no int\. Give a number\."),
        ("lds:k=1", BadInput, r"k must be from 2 to 100000\."),
        ("lds:space=round", BadInput, r"no such value\. Use raw, centered, logprob\."),
        ("ppl:summation=fast", BadInput, r"Use exact, published\."),
    ],
)
def test_what_is_no_metric_is_refused_in_three_sentences(text: str, error: type, message: str):
    with pytest.raises(error, match=message) as caught:
        parse_metrics([text])
    assert all((caught.value.asked, caught.value.found, caught.value.todo))


def test_no_metric_is_refused():
    with pytest.raises(BadInput, match="None was named"):
        parse_metrics([" ", ""])
