"""Early-exit shifts: both sums of all seven numbers, by hand, against numpy, and by their laws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from metric_checks import (
    CHECKS,
    DESIRED,
    FAMILIES,
    early_exit_scores,
    lens_number,
    lettered,
    prompts,
    questions,
    readings,
    scores_of,
    shared,
    shifts,
)

from blockviz.data import letter_prompts
from blockviz.engine import sweep
from blockviz.errors import BadInput
from blockviz.metrics import parse_metric, tabp
from blockviz.metrics.tabp import ShiftDirection, ShiftSize
from blockviz.stats import LENS_STATISTICS, EarlyExit
from blockviz.stats.lens import last_positions
from blockviz.stats.lens import lens_number as our_number
from blockviz.types import BlockId, BlockStatistics, Scores, run

pytestmark = pytest.mark.usefixtures("one_thread")

A, B = BlockId(0, "attn"), BlockId(0, "mlp")
stats = pytest.mark.parametrize("stat", LENS_STATISTICS)
kinds = pytest.mark.parametrize("name", ["tabp_ssn", "tabp_ddf"])


def of_numbers(metric: ShiftSize | ShiftDirection, items: dict, windows: list[int]) -> Scores:
    """Scores where the numbers (item, 2) in front of and behind each block are given."""
    found = {b: torch.tensor(v, dtype=torch.float64) for b, v in items.items()}
    asked = metric.passes()[0]
    passes = {asked: {**found, "windows": torch.tensor(windows)}}
    return metric.score(BlockStatistics({}, len(windows), len(set(windows)), passes))


def exits(case: str, asked: EarlyExit, unit: str = "block", **how: object) -> dict:
    """What one pass of the model says of the statistic."""
    model = shared(case)
    letters = how.pop("prompts", None)
    windows = how.pop("windows", letters.windows if letters else tiny.windows())
    blocks = model.info.units(unit)
    events = sweep(
        model, windows, (), candidates=(), passes={asked: blocks}, prompts=letters, **how
    )
    return run(events).statistics.passes[asked]


# --- by hand --------------------------------------------------------------------------------------


def test_ssn_and_ddf_by_hand():
    # Block A shifts the entropy by -2, +1 (window 0), -3 (window 1); block B by +1, 0, 0.
    items = {A: [[3, 1], [1, 2], [4, 1]], B: [[1, 2], [5, 5], [0, 0]]}
    ssn = of_numbers(ShiftSize(), items, [0, 0, 1])
    assert ssn.raw == ssn.values == pytest.approx({A: (2 + 1 + 3) / 3, B: 1 / 3})
    assert ssn.per_window[A] == pytest.approx((1.5, 3))
    # p = 2: sqrt(4 + 1 + 9) / 3. Not a mean over items, so no error is known.
    squares = of_numbers(ShiftSize(p=2), items, [0, 0, 1])
    assert squares.raw == pytest.approx({A: math.sqrt(14) / 3, B: 1 / 3})
    assert squares.stderr is None
    # A falling entropy is desired: two of three items of A, none of B. An unmoved one is no hit.
    ddf = of_numbers(ShiftDirection(), items, [0, 0, 1])
    assert ddf.raw == ddf.values == pytest.approx({A: 2 / 3, B: 0})
    assert ddf.per_window[A] == pytest.approx((0.5, 1))
    # A rising confidence is.
    rising = of_numbers(ShiftDirection(stat="conf"), items, [0, 0, 1])
    assert rising.raw == pytest.approx({A: 1 / 3, B: 1 / 3})


def test_the_published_count_by_hand():
    items = {A: [[3, 1], [1, 2], [4, 1]], B: [[1, 2], [5, 5], [0, 0]]}
    text = of_numbers(ShiftDirection(ddf_code_compat=True), items, [0, 1, 2])
    assert text.raw == pytest.approx({A: 2 / 3, B: 0})  # desired shifts, and the largest goes
    assert text.values == pytest.approx({A: -2 / 3, B: 0})
    choices = ShiftDirection(form="choices", ddf_code_compat=True)
    found = of_numbers(choices, items, [0, 1, 2])
    assert found.raw == pytest.approx({A: 1 / 3, B: 1 / 3})  # undesired shifts, and the largest
    assert found.values == pytest.approx({A: -1 / 3, B: -1 / 3})
    assert found.per_window[A] == pytest.approx((0, -1, 0))


def test_an_error_by_hand():
    # One item a window, shifts 1 and 3: mean 2, sample deviation sqrt 2, error sqrt(2) / sqrt(2).
    scores = of_numbers(ShiftSize(), {A: [[0, 1], [0, 3]]}, [0, 1])
    assert scores.stderr[A] == pytest.approx(1)
    assert of_numbers(ShiftSize(), {A: [[0, 1], [0, 3]]}, [4, 4]).stderr[A] == 0


def test_the_seven_numbers_by_hand():
    q, p = [0.5, 0.25, 0.25, 0], [0.25, 0.5, 0.125, 0.125]
    ln2 = math.log(2)
    expected = {
        "ent": 1.5 * ln2,
        "conf": 0.5,
        "gap": 0.25,
        "key": 0.25,
    }
    for name, value in expected.items():
        assert ours(name, q, p, target=2) == pytest.approx(value)
    # -sum p log q of (1/2, 1/2) and (1/4, 3/4), and what is over the entropy ln 2 of p.
    p, q = [0.5, 0.5], [0.25, 0.75]
    ce = -(math.log(0.25) + math.log(0.75)) / 2
    assert ours("ce", q, p) == pytest.approx(ce)
    assert ours("kld", q, p) == pytest.approx(ce - ln2)
    m = [0.375, 0.625]
    jsd = sum(
        0.5 * (a * math.log(a / c) + b * math.log(b / c)) for a, b, c in zip(p, q, m, strict=True)
    )
    assert ours("jsd", q, p) == pytest.approx(jsd, rel=1e-5)


def ours(stat: str, q: list[float], p: list[float], *, target: int = 0, top: int = 0) -> float:
    asked = EarlyExit(statistic=stat, top=top)
    rows = [torch.as_tensor(np.array([v])).log() for v in (q, p)]
    return our_number(asked, *rows, torch.tensor([target])).item()


@stats
@pytest.mark.parametrize("top", [0, 2, 5, 8, 99])
def test_the_numbers_equal_numpy_also_among_the_top(stat: str, top: int):
    rng = np.random.default_rng(0)
    for _ in range(20):
        q, p = (np.exp(rng.normal(size=8) * 3) for _ in range(2))
        q, p = q / q.sum(), p / p.sum()
        expected = lens_number(stat, q, p, 3, top)
        assert ours(stat, q, p, target=3, top=top) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_positions_by_hand():
    mask = torch.arange(20)[None] < torch.tensor([20, 9, 2])[:, None]
    windows, places = last_positions(mask, 1)
    assert (windows.tolist(), places.tolist()) == ([0, 1, 2], [19, 8, 1])
    windows, places = last_positions(mask, 4)
    assert windows.tolist() == [0] * 4 + [1] * 4 + [2] * 2
    assert places.tolist() == [4, 9, 14, 19, 2, 4, 6, 8, 0, 1]


# --- against the library's own model --------------------------------------------------------------


@stats
@kinds
@pytest.mark.parametrize("form", ["text", "choices"])
def test_every_number_equals_numpy(name: str, stat: str, form: str):
    CHECKS[name](parse_metric(f"{name}:stat={stat}:form={form}"))


@kinds
@pytest.mark.parametrize("case", FAMILIES)
@pytest.mark.parametrize("unit", ["block", "layer", "attn"])
def test_every_family_and_unit_equals_numpy(name: str, case: str, unit: str):
    CHECKS[name](parse_metric(f"{name}:positions=9"), case, unit)
    CHECKS[name](parse_metric(f"{name}:form=choices:stat=kld"), case, unit)


@pytest.mark.parametrize(
    "text",
    [
        "tabp_ssn:lens_norm=false",
        "tabp_ssn:lens_norm=false:form=choices",
        "tabp_ssn:top=5",
        "tabp_ssn:top=5:stat=jsd:positions=3",
        "tabp_ssn:positions=7",
        "tabp_ssn:positions=99:stat=key",
        "tabp_ssn:p=2:stat=conf",
        "tabp_ddf:ddf_code_compat=true",
        "tabp_ddf:ddf_code_compat=true:form=choices",
        "tabp_ddf:positions=5:stat=gap",
    ],
)
def test_every_setting_equals_numpy(text: str):
    metric = parse_metric(text)
    CHECKS[metric.name](metric)


def test_the_cap_on_logits_is_part_of_the_lens():
    """Gemma 2 and 3 may squash their logits; the model's own output is then what the lens reads."""
    model = shared("gemma3-softcap")
    windows = tiny.windows()
    found = exits("gemma3-softcap", EarlyExit("conf"), "layer")[BlockId(3, "layer")][:, 1]
    z = model.logits(next(windows.batches(3)))[:, -1].double()
    np.testing.assert_allclose(found, z.softmax(-1).max(-1).values, rtol=1e-5)


@pytest.mark.parametrize("stat", ["ent", "key", "kld"])
def test_items_do_not_depend_on_batches(stat: str):
    windows = tiny.windows(5, 20, lengths=(20, 13, 5, 20, 2))
    asked = EarlyExit(stat, positions=3)
    together = exits("llama", asked, windows=windows, batch_tokens=100)
    alone = exits("llama", asked, windows=windows, batch_tokens=1)
    assert together.keys() == alone.keys()
    for key, values in together.items():
        torch.testing.assert_close(alone[key], values, rtol=1e-5, atol=1e-6)
    n_last = 1 if stat == "key" else 2
    assert together["windows"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * n_last


def test_prompts_do_not_depend_on_batches():
    asked = EarlyExit("key", on_prompts=True)
    together = exits("gpt2", asked, prompts=prompts(), batch_tokens=10_000)
    alone = exits("gpt2", asked, prompts=prompts(), batch_tokens=1)
    for key, values in together.items():
        torch.testing.assert_close(alone[key], values, rtol=1e-5, atol=1e-6)


def test_the_right_word_of_a_text_is_its_last_token():
    """`key` reads in front of it: behind it nobody knows what comes next."""
    windows = tiny.windows(2, 20, lengths=(20, 6))
    found = exits("llama", EarlyExit("key"), "layer", windows=windows)[BlockId(3, "layer")][:, 1]
    model = shared("llama")
    for row, length in enumerate((20, 6)):
        ids = windows.input_ids[row, :length]
        with torch.no_grad():
            z = model.module(input_ids=ids[None], use_cache=False).logits[0, length - 2]
        assert found[row].item() == pytest.approx(z.softmax(-1)[ids[-1]].item(), rel=1e-5)


# --- laws -----------------------------------------------------------------------------------------


@stats
@kinds
@pytest.mark.parametrize("case", FAMILIES)
def test_t_tabp_1_a_block_that_adds_nothing_shifts_nothing(name: str, stat: str, case: str):
    model, block = shared(case), BlockId(2, "attn")
    with tiny.zeroed(model, case, (block,)):
        text = scores_of(parse_metric(f"{name}:stat={stat}:positions=5"), case)
        choices = early_exit_scores(parse_metric(f"{name}:stat={stat}:form=choices"), case)
    for scores in (text, choices):
        assert scores.raw[block] == 0
        assert scores.values[block] == min(scores.values.values())
    assert sum(v > 0 for v in text.raw.values()) >= 4


def test_t_tabp_1_it_is_the_last_to_go_by_the_published_count_with_choices():
    model, block = shared("llama"), BlockId(2, "attn")
    metric = ShiftDirection(form="choices", ddf_code_compat=True)
    with tiny.zeroed(model, "llama", (block,)):
        scores = early_exit_scores(metric, "llama")
    assert scores.values[block] == max(scores.values.values())


def test_t_tabp_2_entropy_and_confidence_stay_in_their_range():
    asked = prompts()
    m = asked.n_options.double()[:, None]
    for case in FAMILIES:
        for block, values in exits(case, EarlyExit("ent", on_prompts=True), prompts=asked).items():
            if block != "windows":
                assert (values >= 0).all() and (values <= m.log() + 1e-6).all()
        for block, values in exits(case, EarlyExit("conf", on_prompts=True), prompts=asked).items():
            if block != "windows":
                assert (values >= 1 / m - 1e-6).all() and (values <= 1).all()
        words = exits(case, EarlyExit("ent", top=7))[BlockId(1, "mlp")]
        assert (words >= 0).all() and (words <= math.log(7) + 1e-6).all()


@pytest.mark.parametrize("case", FAMILIES)
@pytest.mark.parametrize("form", ["text", "choices"])
def test_t_tabp_3_behind_the_last_layer_the_lens_is_the_model(case: str, form: str):
    last = BlockId(3, "layer")
    letters = prompts() if form == "choices" else None

    def final(stat: str, *, has_norm: bool = True) -> torch.Tensor:
        asked = EarlyExit(stat, on_prompts=letters is not None, has_norm=has_norm)
        return exits(case, asked, "layer", prompts=letters)[last][:, 1]

    torch.testing.assert_close(final("ce"), final("ent"), rtol=1e-5, atol=1e-6)
    assert final("kld").abs().max() <= 1e-6 and final("jsd").abs().max() <= 1e-6
    assert final("kld", has_norm=False).min() > 1e-4  # without the norm it is not


@stats
@pytest.mark.parametrize("form", ["text", "choices"])
def test_t_tabp_4_directions_are_shares(stat: str, form: str):
    for case in ("gemma3", "neox"):
        scores = early_exit_scores(ShiftDirection(stat=stat, form=form), case)
        assert all(0 <= v <= 1 for v in scores.raw.values())
        n = 8 if form == "choices" else 3
        assert all(v * n == pytest.approx(round(v * n)) for v in scores.raw.values())


def test_t_tabp_5_two_options_know_one_number_only():
    """Entropy, confidence and gap of two chances are the same question asked in three ways."""
    rows = tuple(row for row in questions(24).rows if len(row.choices) == 2)
    two = replace(questions(24), rows=rows)
    asked = letter_prompts(two, lettered(), max_seq_len=tiny.CONTEXT)
    directions = []
    for stat in ("ent", "conf", "gap"):
        metric = ShiftDirection(stat=stat, form="choices")
        (wanted,) = metric.passes()
        found = exits("llama", wanted, prompts=asked)
        scores = metric.score(BlockStatistics({}, 1, 1, {wanted: found}))
        directions.append(scores.raw)
    assert directions[0] == directions[1] == directions[2]
    assert len(set(directions[0].values())) > 2


@pytest.mark.parametrize("stat", ["ent", "conf"])
def test_t_tabp_5_more_options_know_more(stat: str):
    other = early_exit_scores(ShiftDirection(stat="gap", form="choices"), "llama").raw
    assert early_exit_scores(ShiftDirection(stat=stat, form="choices"), "llama").raw != other


def test_shifts_of_blocks_add_up_to_those_of_their_layer():
    model = shared("qwen3")
    asked = EarlyExit("ent")
    blocks, layers = exits("qwen3", asked), exits("qwen3", asked, "layer")
    for layer in model.info.units("layer"):
        attn, mlp = (blocks[part] for part in layer.parts)
        assert torch.equal(attn[:, 1], mlp[:, 0])
        assert torch.equal(torch.stack([attn[:, 0], mlp[:, 1]], -1), layers[layer])


def test_both_parts_of_a_parallel_layer_start_from_its_input():
    blocks = exits("neox", EarlyExit("ent"))
    for layer in range(tiny.LAYERS):
        assert torch.equal(
            blocks[BlockId(layer, "attn")][:, 0], blocks[BlockId(layer, "mlp")][:, 0]
        )


def test_the_directions_of_the_numbers_are_those_that_numpy_was_told():
    assert tabp.DESIRED == DESIRED and DESIRED.keys() == set(LENS_STATISTICS)


def test_numpy_sees_more_than_one_item_and_shift():
    """The checks above compare something: shifts differ between items, and go both ways."""
    blocks = [str(b) for b in shared("llama").info.units("block")]
    steps = np.array([shifts(ShiftSize(form="choices"), "llama", name) for name in blocks])
    assert all(len(set(row.round(6))) == 8 for row in steps) and steps.min() < 0 < steps.max()
    assert len(readings(ShiftSize(positions=7), "llama", "0.attn")) == 3 * 7


# --- what is refused ------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stat=entropy", r"stat has no such value\. Use ent, conf, gap, key, ce, kld, jsd\."),
        ("form=prompt", r"Use text, choices\."),
        ("positions=0", r"positions must be at least 1\."),
        ("top=-1", r"top must be at least 0\."),
        ("top=1", r"A single word has all of the probability at every depth.* 2 words or more"),
        ("lens_norm=maybe", r"'maybe' is no bool\. Give true or false\."),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, setting: str, message: str):
    with pytest.raises(BadInput, match=message):
        parse_metric(f"{name}:{setting}")


@pytest.mark.parametrize("value", ["0.5", "inf", "nan", "-inf"])
def test_a_norm_below_one_is_none(value: str):
    with pytest.raises(BadInput, match=r"p must be (at least 1\.0|a finite number)\."):
        parse_metric(f"tabp_ssn:p={value}")


@kinds
@stats
@pytest.mark.parametrize("form", ["text", "choices"])
def test_a_model_that_gives_no_numbers_is_refused(name: str, stat: str, form: str):
    model = shared("llama")
    weight = model.part(BlockId(2, "mlp")).down_proj.weight
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[0, 0] = math.nan
        with pytest.raises(BadInput, match=f"{name} is not finite for "):
            early_exit_scores(parse_metric(f"{name}:stat={stat}:form={form}"), "llama")
    finally:
        with torch.no_grad():
            weight.copy_(before)


@kinds
def test_one_item_without_a_number_is_enough(name: str):
    items = {A: [[0, 1], [0, math.nan]], B: [[0, 1], [1, 2]]}
    with pytest.raises(ValueError, match=rf"{name} is not finite for 0\.attn$"):
        of_numbers(parse_metric(name), items, [0, 1])
