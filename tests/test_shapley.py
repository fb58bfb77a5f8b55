"""What blocks add to the log-likelihood: toy games whose values are known, then real models."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from itertools import combinations, permutations

import pytest
import tiny
import torch

from blockviz.engine import SetRunner, sweep
from blockviz.errors import BadInput
from blockviz.metrics import GameMetric, parse_metric
from blockviz.metrics.shapley import LeaveOneOut, PermutationShapley, RandomSubsets
from blockviz.types import AblationTable, BlockId, Scores, run

pytestmark = pytest.mark.usefixtures("one_thread")

A, B, C, D = tiny.ids("0.attn", "0.mlp", "1.attn", "1.mlp")
FOUR = (A, B, C, D)
Loss = Callable[[frozenset[BlockId]], float]

shared = functools.cache(tiny.model)


def play(
    metric: GameMetric, blocks: Iterable[BlockId], loss: Loss
) -> tuple[Scores, list[tuple[BlockId, ...]]]:
    """The scores of a toy game, and the sets that were asked for; its loss is on two windows."""
    blocks = tuple(blocks)
    game, answer, asked = metric.play(blocks), None, []
    while True:
        try:
            removed = game.send(answer)
        except StopIteration as over:
            assert len(asked) <= metric.n_sets(len(blocks))
            return over.value, asked
        asked.append(removed)
        found = loss(frozenset(removed))
        answer = torch.tensor([found - 0.25, found + 0.25], dtype=torch.float64)


WORTH = {A: 0.5, B: 0.125, C: 2.0, D: -0.25}


def additive(removed: frozenset[BlockId]) -> float:
    return 1.0 + sum(WORTH[b] for b in removed)


def tangled(removed: frozenset[BlockId]) -> float:
    """A and B stand in for each other; C helps only where D is; without A and B all is lost."""
    loss = 1.0
    loss += 2.0 * ({A, B} <= removed) + 0.25 * (A in removed)
    loss += 1.0 * (C in removed or D in removed)
    return loss + 0.5 * ({A, C} <= removed)


def exact_shapley(blocks: Iterable[BlockId], loss: Loss) -> dict[BlockId, float]:
    """Over all orders of adding: what b takes off the loss of those that came before it."""
    blocks = tuple(blocks)
    total = dict.fromkeys(blocks, 0.0)
    orders = list(permutations(blocks))
    for order in orders:
        for place, b in enumerate(order):
            without = frozenset(order[place:])  # those not there yet, b among them
            total[b] += loss(without) - loss(without - {b})
    return {b: v / len(orders) for b, v in total.items()}


# --- the Shapley value ----------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 5])
def test_t_shap_3_an_additive_game_gives_every_block_its_worth_whatever_the_orders(m: int):
    scores, _ = play(PermutationShapley(m=m), FOUR, additive)
    assert scores.values == pytest.approx(WORTH, abs=1e-12)
    assert scores.raw == scores.values
    loo = {b: additive(frozenset([b])) - additive(frozenset()) for b in FOUR}
    assert scores.values == pytest.approx(loo, abs=1e-12)
    if m > 2:
        assert max(scores.stderr.values()) < 1e-12
    else:
        assert scores.stderr is None  # a pair of orders is one draw: it has no spread


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("m", [1, 2, 7])
def test_t_shap_1_increments_add_up_to_whole_less_empty(m: int, seed: int):
    scores, _ = play(PermutationShapley(m=m, seed=seed), FOUR, tangled)
    rise = tangled(frozenset(FOUR)) - tangled(frozenset())
    assert math.fsum(scores.values.values()) == pytest.approx(rise, rel=1e-14)
    assert scores.baseline is None  # the rise is what they add up to, not what each stands beside


@pytest.mark.parametrize("tolerance", [1.6, 2.6, 100.0])
def test_t_shap_1_holds_for_orders_that_are_broken_off(tolerance: float):
    scores, asked = play(PermutationShapley(m=6, tolerance=tolerance), FOUR, tangled)
    _, all_sets = play(PermutationShapley(m=6), FOUR, tangled)
    rise = tangled(frozenset(FOUR)) - tangled(frozenset())
    assert math.fsum(scores.values.values()) == pytest.approx(rise, rel=1e-14)
    assert len(asked) < len(all_sets) == 2 + 6 * 3


def test_an_order_that_is_broken_off_by_hand():
    """Loss 0 with all, then 3, 3.9, 4, and 4 with nothing: within 0.5 after the second block."""
    losses = [0.0, 3.0, 3.9, 4.0, 4.0]
    order, _ = _orders(FOUR, 1)
    metric = PermutationShapley(m=1, tolerance=0.5)
    scores, asked = play(metric, FOUR, lambda removed: losses[len(removed)])
    assert [len(a) for a in asked] == [0, 4, 1, 2]
    assert [scores.raw[b] for b in order] == pytest.approx([3.0, 0.9, 0.05, 0.05])


def _orders(blocks: tuple[BlockId, ...], m: int) -> tuple[tuple[BlockId, ...], list]:
    """The first order in which blocks are taken away, read off the sets that are asked for."""
    _, asked = play(PermutationShapley(m=m), blocks, lambda removed: float(len(removed)))
    walk = [frozenset(a) for a in asked[2 : 1 + len(blocks)]]
    steps = [*walk, frozenset(blocks)]
    order, before = [], frozenset()
    for now in steps:
        order += now - before
        before = now
    return tuple(order), asked


def test_orders_come_in_pairs_one_and_its_reverse():
    _, asked = _orders(FOUR, 2)
    first, second = asked[2:5], asked[5:8]
    assert asked[:2] == [(), FOUR]
    for n in (1, 2, 3):
        # What is gone after n steps of one is what is left after 4 - n of the other.
        assert {*first[n - 1]} == {*FOUR} - {*second[3 - n]}


def test_a_pair_is_exact_for_games_of_pairs():
    """An order and its reverse see each two blocks both ways round: x * y games come out exact."""

    def pairs(removed: frozenset[BlockId]) -> float:
        weights = {frozenset(p): 0.3 * i - 0.5 for i, p in enumerate(combinations(FOUR, 2))}
        return sum(w for pair, w in weights.items() if pair <= removed)

    scores, _ = play(PermutationShapley(m=2), FOUR, pairs)
    assert scores.values == pytest.approx(exact_shapley(FOUR, pairs), abs=1e-12)


@pytest.mark.parametrize("game", [additive, tangled])
def test_many_orders_come_near_the_value_over_all_orders(game: Loss):
    exact = exact_shapley(FOUR, game)
    scores, _ = play(PermutationShapley(m=4000), FOUR, game)
    for b in FOUR:
        assert scores.values[b] == pytest.approx(exact[b], abs=max(1e-9, 4 * scores.stderr[b]))
        assert scores.stderr[b] < 0.02


def test_the_standard_error_is_that_of_pairs_of_orders():
    """Ten thousand runs are not needed: 200 seeds spread as much as each says it is unsure."""
    runs = [play(PermutationShapley(m=16, seed=s), FOUR, tangled)[0] for s in range(200)]
    for b in FOUR:
        values = torch.tensor([r.values[b] for r in runs], dtype=torch.float64)
        said = math.sqrt(sum(r.stderr[b] ** 2 for r in runs) / len(runs))
        assert values.std().item() == pytest.approx(said, rel=0.2, abs=1e-12)


def test_the_seed_decides_the_orders():
    sets = [play(PermutationShapley(m=3, seed=s), FOUR, tangled)[1] for s in (1, 1, 2)]
    assert sets[0] == sets[1] != sets[2]


def test_one_block_is_worth_the_whole_rise():
    scores, asked = play(PermutationShapley(m=3), (A,), additive)
    assert scores.values == {A: 0.5} and asked == [(), (A,)]


# --- random subsets -------------------------------------------------------------------------------


def test_random_subsets_by_hand_from_the_sets_it_asks_for():
    scores, asked = play(RandomSubsets(m=10), FOUR, tangled)
    for b in FOUR:
        gone = [tangled(frozenset(a)) for a in asked if b in a]
        there = [tangled(frozenset(a)) for a in asked if b not in a]
        assert len(gone) == len(there) == 5  # a set and its complement
        assert scores.raw[b] == pytest.approx(sum(gone) / 5 - sum(there) / 5, abs=1e-12)
        one, two = (torch.tensor(x, dtype=torch.float64).std().item() for x in (gone, there))
        assert scores.stderr[b] == pytest.approx(math.hypot(one, two) / math.sqrt(5))


@pytest.mark.parametrize(("frac", "size"), [(0.5, 4), (0.25, 2), (0.8, 6), (0.05, 1), (0.95, 7)])
def test_random_subsets_keep_the_share_they_say(frac: float, size: int):
    blocks = shared("llama").info.units("block")
    _, asked = play(RandomSubsets(m=64, frac=frac), blocks, lambda removed: 0.0)
    assert len(asked) == 64 and {8 - len(a) for a in asked} == {size}
    assert len({frozenset(a) for a in asked}) > 4


def test_random_halves_rank_an_additive_game_and_weigh_it_as_worked_by_hand():
    """Over all 6 halves of four blocks, b's sets hold each other block in 1/3 of cases and the rest
    in 2/3: the difference is w_b - (sum of the others) / 3."""
    scores, _ = play(RandomSubsets(m=6000, seed=3), FOUR, additive)
    for b in FOUR:
        others = sum(w for other, w in WORTH.items() if other != b)
        assert scores.values[b] == pytest.approx(WORTH[b] - others / 3, abs=5 * scores.stderr[b])
    assert sorted(FOUR, key=scores.values.get) == sorted(FOUR, key=WORTH.get)


def test_random_subsets_that_tell_nothing_of_a_block_are_refused_before_any_is_run():
    blocks = shared("llama").info.units("block")
    with pytest.raises(BadInput, match=r"Raise m, or set frac nearer to 0\.5"):
        next(RandomSubsets(m=2, frac=0.75).play(blocks))
    with pytest.raises(BadInput, match=r"keep 0\.attn"):
        next(RandomSubsets(m=64).play((A,)))


# --- leave one out --------------------------------------------------------------------------------


def ablations(losses: dict[BlockId, list[float]], whole: list[float]) -> AblationTable:
    def wide(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    values = {b: wide(v) for b, v in losses.items()}
    return AblationTable(wide(whole), values, torch.ones(len(whole)))


LOSSES = {A: [2.0, 4.0], B: [2.0, 3.0], C: [5.0, 3.0]}


def test_leave_one_out_by_hand():
    """Whole model 1, 2. A: rises 1, 2: mean 1.5, deviation 0.707, error 0.5."""
    scores = LeaveOneOut().score(ablations(LOSSES, [1.0, 2.0]))
    assert scores.raw == scores.values == {A: 1.5, B: 1.0, C: 2.5}
    assert scores.stderr == pytest.approx({A: 0.5, B: 0.0, C: 1.5})
    assert scores.per_window == {A: (1.0, 2.0), B: (1.0, 1.0), C: (4.0, 1.0)}


def test_leave_one_out_beside_the_other_masks_is_the_published_formula():
    """Over the masks that leave one block out: mean loss where b is gone less mean loss where it is
    there. The published code has it the other way round, as what the loss gains."""
    metric = parse_metric("shapley_loo:baseline=masks")
    scores = metric.score(ablations(LOSSES, [1.0, 2.0]))
    mean = {b: sum(v) / 2 for b, v in LOSSES.items()}
    for b in LOSSES:
        present = [mean[other] for other in LOSSES if other != b]
        assert scores.raw[b] == pytest.approx(mean[b] - sum(present) / 2)
    # A 3 - (2.5 + 4) / 2 = -0.25, B 2.5 - 3.5 = -1, C 4 - 2.75 = 1.25: as ordered as the other.
    assert scores.raw == pytest.approx({A: -0.25, B: -1.0, C: 1.25})
    plain = LeaveOneOut().score(ablations(LOSSES, [1.0, 2.0]))
    assert scores.ranks() == plain.ranks()
    # Window 1: 2 - 3.5, 2 - 3.5, 5 - 2; window 2: 4 - 3, 3 - 3.5, 3 - 3.5.
    assert scores.per_window == {A: (-1.5, 1.0), B: (-1.5, -0.5), C: (3.0, -0.5)}
    assert scores.stderr[A] == pytest.approx(1.25)


def test_a_single_candidate_has_no_other_masks():
    metric = LeaveOneOut(baseline="masks")
    assert metric.score(ablations({A: [2.0]}, [0.5])).raw == {A: 1.5}


# --- on models ------------------------------------------------------------------------------------


def on_model(metric: GameMetric, case: str, blocks: Iterable[BlockId], **how: object) -> Scores:
    sets = SetRunner(shared(case), tiny.windows(3, 12, lengths=(12, 7, 4)), **how)
    game, answer = metric.play(tuple(blocks)), None
    while True:
        try:
            answer = sets.nll(game.send(answer))
        except StopIteration as over:
            return over.value


def masked_loss(case: str) -> Loss:
    """The mean over windows of window means by plain masked forwards, each set once."""
    model, windows = shared(case), tiny.windows(3, 12, lengths=(12, 7, 4))

    @functools.cache
    def loss(removed: frozenset[BlockId]) -> float:
        found = []
        for ids, mask in zip(windows.input_ids, windows.attention_mask, strict=True):
            ids = ids[: int(mask.sum())]
            with model.masked(removed), torch.no_grad():
                logs = model.module(input_ids=ids[None]).logits[0].double().log_softmax(dim=-1)
            found.append(-logs[range(len(ids) - 1), ids[1:]].mean().item())
        return sum(found) / 3

    return loss


cases = pytest.mark.parametrize("case", ["llama", "gpt2", "neox"])


@cases
def test_on_layers_all_orders_are_near_the_exact_value(case: str):
    """Four layers have 24 orders: the value from the definition, by plain masked forwards."""
    layers = shared(case).info.units("layer")
    exact = exact_shapley(layers, masked_loss(case))
    scores = on_model(PermutationShapley(m=600), case, layers)
    for layer in layers:
        assert abs(scores.values[layer] - exact[layer]) < 4.5 * scores.stderr[layer] + 1e-5


@cases
@pytest.mark.parametrize("unit", ["block", "layer"])
def test_t_shap_1_on_a_model(case: str, unit: str):
    blocks, loss = shared(case).info.units(unit), masked_loss(case)
    scores = on_model(PermutationShapley(m=3), case, blocks)
    rise = loss(frozenset(blocks)) - loss(frozenset())
    assert math.fsum(scores.values.values()) == pytest.approx(rise, abs=1e-5)
    assert list(scores.values) == list(blocks)


@cases
def test_t_shap_2_a_block_that_adds_nothing_is_worth_nothing(case: str):
    model, blocks = shared(case), shared(case).info.units("block")
    idle = tiny.ids("1.attn", "2.mlp")
    with tiny.zeroed(model, case, idle):
        shapley = on_model(PermutationShapley(m=4), case, blocks)
        loo = run(sweep(model, tiny.windows(), (LeaveOneOut(),), candidates=blocks)).tables[0]
        loo = LeaveOneOut().score(loo)
    for b in blocks:
        is_nothing = abs(shapley.values[b]) < 1e-6
        assert is_nothing == (b in idle)
        assert (abs(loo.values[b]) < 1e-6) == (b in idle)


@cases
def test_t_shap_3_a_block_among_idle_ones_is_worth_what_leaving_it_out_costs(case: str):
    """The one model whose losses add up for certain."""
    model, blocks = shared(case), shared(case).info.units("block")
    idle = tuple(b for b in blocks if b != blocks[2])
    with tiny.zeroed(model, case, idle):
        shapley = on_model(PermutationShapley(m=2), case, blocks)
        sets = SetRunner(model, tiny.windows(3, 12, lengths=(12, 7, 4)))
        rise = (sets.nll((blocks[2],)) - sets.nll(())).mean().item()
    assert shapley.values[blocks[2]] == pytest.approx(rise, rel=1e-6)


@cases
def test_leave_one_out_equals_masked_forwards(case: str):
    model, loss = shared(case), masked_loss(case)
    windows = tiny.windows(3, 12, lengths=(12, 7, 4))
    blocks = (*model.info.units("block"), *model.info.units("layer"))
    table = run(sweep(model, windows, (LeaveOneOut(),), candidates=blocks)).tables[0]
    scores = LeaveOneOut().score(table)
    for b in blocks:
        expected = loss(frozenset(b.parts)) - loss(frozenset())
        assert scores.raw[b] == pytest.approx(expected, rel=1e-4, abs=1e-6)


@cases
def test_random_subsets_on_a_model_equal_masked_forwards(case: str):
    blocks, loss = shared(case).info.units("block"), masked_loss(case)
    expected, _ = play(RandomSubsets(m=12), blocks, loss)
    found = on_model(RandomSubsets(m=12), case, blocks, batch_tokens=24, memory_bytes=1)
    assert found.values == pytest.approx(expected.values, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "windows"),
    [("shapley_perm", 8), ("shapley_perm:windows=0", 20), ("shapley_random:windows=3", 3)],
)
def test_games_read_the_first_windows_only(text: str, windows: int):
    assert parse_metric(text).n_windows(20) == windows
    assert parse_metric(text).n_windows(2) == 2


@pytest.mark.parametrize(
    "text",
    [
        "shapley_perm:m=0",
        "shapley_random:m=1",
        "shapley_random:frac=1",
        "shapley_loo:baseline=x",
    ],
)
def test_settings_out_of_range_are_refused(text: str):
    with pytest.raises(BadInput):
        parse_metric(text)
