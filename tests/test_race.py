"""Racing over windows: the exhaustive answer for less work, and an honest statement of doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from blockviz.search import Look, Raced, race
from blockviz.search.race import ROUNDS, chance_of_winning


@dataclass(frozen=True)
class Ran:
    found: Raced
    looks: tuple[Look, ...]

    @property
    def work(self) -> int:
        """Values of one set on one window that were asked for."""
        return sum(len(look.sets) * len(look.windows) for look in self.looks)


def ran(table: np.ndarray, **how: object) -> Ran:
    """A race over a (set, window) table of values."""
    racing, looks = race(*table.shape, **how), []
    look = next(racing)
    while True:
        looks.append(look)
        try:
            look = racing.send(table[np.ix_(look.sets, look.windows)])
        except StopIteration as end:
            return Ran(end.value, tuple(looks))


def exhaustive(table: np.ndarray, keep: int = 1) -> tuple[int, ...]:
    return tuple(np.argsort(table.mean(axis=1), kind="stable")[:keep].tolist())


def correlated(
    seed: int, *, n_sets: int = 60, n_windows: int = 32, closest: float = 0.0, tail: float = 0.0
) -> np.ndarray:
    """(set, window) like losses: windows are easy or hard for all sets, what a set adds differs
    between windows by about as much as it is, and best sets are close together.

    tail: how heavy-tailed that difference is, as the inverse of Student's degrees of freedom.
    """
    dice = np.random.default_rng(seed)
    means = closest + np.sort(dice.gamma(1.2, 0.3, size=n_sets))
    shape = (n_sets, n_windows)
    noise = dice.standard_t(1 / tail, size=shape) if tail else dice.normal(size=shape)
    spread = (0.02 + 0.5 * means) * dice.uniform(0.5, 2, size=n_sets)
    easy = dice.normal(3, 0.6, size=n_windows)
    return easy + means[:, None] + spread[:, None] * noise


def test_an_exhaustive_race_looks_at_everything_once():
    table = correlated(0)
    done = ran(table, is_exhaustive=True)
    assert [(len(look.sets), len(look.windows)) for look in done.looks] == [(60, 32)]
    assert done.found.best == exhaustive(table)
    assert done.found.means == pytest.approx(table.mean(axis=1))
    assert (set(done.found.n_seen), done.found.doubt) == ({32}, 0.0)


def test_every_set_is_looked_at_on_a_window_at_most_once():
    for seed in range(10):
        done = ran(correlated(seed))
        places = [(s, w) for look in done.looks for s in look.sets for w in look.windows]
        assert len(places) == len(set(places))


@pytest.mark.parametrize("keep", [1, 3, 10])
def test_the_best_are_seen_on_all_windows_and_their_means_are_exact(keep: int):
    for seed in range(10):
        table = correlated(seed)
        done = ran(table, keep=keep)
        assert len(done.found.best) == len(set(done.found.best)) == keep
        for i in done.found.best:
            assert done.found.n_seen[i] == 32
            assert done.found.means[i] == pytest.approx(table[i].mean(), rel=1e-12)
        means = [done.found.means[i] for i in done.found.best]
        assert means == sorted(means)
        assert 0 <= done.found.doubt <= 0.05


def test_what_is_known_of_a_loser_is_its_mean_over_what_it_was_seen_on():
    table = correlated(3)
    done = ran(table)
    losers = [i for i, n in enumerate(done.found.n_seen) if n < 32]
    assert losers
    seen = {i: [w for look in done.looks if i in look.sets for w in look.windows] for i in losers}
    for i in losers:
        assert len(seen[i]) == done.found.n_seen[i]
        assert done.found.means[i] == pytest.approx(table[i, seen[i]].mean())


@pytest.mark.parametrize("keep", [1, 4])
def test_hopeless_sets_cost_the_first_round_only(keep: int):
    """Five good ones within 0.02, fifty-five that are 3 worse or more, by 0.1 differently a
    window."""
    dice = np.random.default_rng(5)
    means = np.concatenate([np.linspace(0, 0.02, 5), np.linspace(3, 6, 55)])
    table = dice.normal(size=32) + means[:, None] + 0.1 * dice.normal(size=(60, 32))
    done = ran(table, keep=keep)
    assert set(done.found.n_seen[5:]) == {ROUNDS[0]}
    assert done.found.best == exhaustive(table, keep)
    assert done.work <= 55 * ROUNDS[0] + 5 * 32


@pytest.mark.parametrize("keep", [1, 4])
@pytest.mark.parametrize(("level", "tail"), [(0.05, 0.0), (0.05, 0.25), (0.01, 0.0), (0.001, 0.25)])
def test_wrong_answers_are_no_more_than_the_level_allows(keep: int, level: float, tail: float):
    """400 draws of sets whose best are close, with normal and with heavy tails (Student's t, 4).

    At most the level's share may differ from the exhaustive answer; three standard errors of a
    share of 400 are added.
    """
    n, wrong, work = 400, 0, 0
    for seed in range(n):
        table = correlated(seed, n_sets=30, tail=tail)
        done = ran(table, keep=keep, level=level, seed=seed)
        wrong += set(done.found.best) != set(exhaustive(table, keep))
        work += done.work
        assert done.found.doubt <= level
    assert wrong / n <= level + 3 * math.sqrt(level * (1 - level) / n)
    assert work < 0.8 * n * table.size


def test_less_doubt_costs_more_work_and_errs_less_often():
    work, wrong = {}, {}
    for level in (0.2, 0.001):
        tables = [correlated(seed, n_sets=30) for seed in range(200)]
        done = [ran(t, level=level, seed=i) for i, t in enumerate(tables)]
        work[level] = sum(d.work for d in done)
        wrong[level] = sum(d.found.best != exhaustive(t) for d, t in zip(done, tables, strict=True))
        assert all(d.found.doubt <= level for d in done)
    assert work[0.001] > work[0.2]
    assert wrong[0.001] <= min(2, wrong[0.2])


@pytest.mark.parametrize("n_copies", [1, 5, 40])
def test_copies_of_the_best_neither_break_it_nor_are_given_up(n_copies: int):
    """Blocks that write nothing: removing one or the other is the same to the last bit."""
    dice = np.random.default_rng(2)
    best = dice.normal(size=32)
    others = best + 1 + 0.3 * dice.normal(size=(10, 32))
    table = np.vstack([others[:5], *[best] * (n_copies + 1), others[5:]])
    done = ran(table)
    assert done.found.best == (5,)
    assert done.found.n_seen[5] == 32
    assert set(done.found.n_seen[5 : 6 + n_copies]) == {32}


def test_sets_that_are_all_the_same_are_decided_by_the_order_they_were_asked_in():
    table = np.tile(np.random.default_rng(0).normal(size=32), (20, 1))
    assert ran(table, keep=3).found.best == (0, 1, 2)
    assert ran(np.zeros((20, 32))).found.best == (0,)


@pytest.mark.parametrize("n_windows", [1, 2, 3, 5])
@pytest.mark.parametrize("keep", [1, 2])
def test_few_windows(n_windows: int, keep: int):
    for seed in range(20):
        table = correlated(seed, n_windows=n_windows, n_sets=12)
        done = ran(table, keep=keep)
        assert done.found.doubt <= 0.05
        for i in done.found.best:
            assert done.found.means[i] == pytest.approx(table[i].mean())
        if n_windows <= ROUNDS[0]:
            assert len(done.looks) == 1 and done.found.doubt == 0
            assert done.found.best == exhaustive(table, keep)


def test_two_windows_leave_a_runner_up_its_chance_by_hand():
    """Differences of 1 and 3: mean 2, error 1, and Student's t of 2 with one degree of freedom."""
    found = ran(np.array([[0.0, 0.0], [1.0, 3.0]])).found
    assert found.best == (0,) and found.doubt == 0
    assert found.rival == pytest.approx(0.5 - math.atan(2) / math.pi)
    # The nearest of several counts, whatever is hopeless; and one window tells nothing.
    three = ran(np.array([[0.0, 0.0], [1.0, 3.0], [50.0, 50.5]])).found
    assert three.rival == pytest.approx(found.rival)
    assert ran(np.array([[0.0], [9.0]])).found.rival == 0.5
    assert ran(np.array([[0.0, 0.0], [math.inf, 1.0]])).found.rival == 0.0
    assert math.isnan(ran(np.array([[0.0, 0.0], [1.0, 3.0]]), keep=2).found.rival)


@pytest.mark.parametrize("n_windows", [2, 4, 16])
def test_the_runner_up_is_the_better_one_no_more_often_than_its_chance(n_windows: int):
    """Two sets whose true difference may be anything up to eight of its errors: windows choose the
    wrong one no more often than they say (three standard errors of a share of 3000 are added), and
    are not timid either."""
    dice, n, wrong, said = np.random.default_rng(0), 3000, 0, 0.0
    for _ in range(n):
        true = dice.uniform(-8, 8) / math.sqrt(n_windows)
        table = np.vstack([np.zeros(n_windows), true + dice.normal(size=n_windows)])
        found = ran(table, is_exhaustive=True).found
        wrong += found.best != ((0,) if true > 0 else (1,))
        said += found.rival
    share = said / n
    assert wrong / n <= share + 3 * math.sqrt(share * (1 - share) / n)
    assert share <= 2.5 * wrong / n


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_set_without_a_number_loses(bad: float):
    table = correlated(1)
    first, second, third = exhaustive(table, 3)
    table[first] = bad
    # One window is enough.
    table[second, ran(table).looks[0].windows[1]] = bad
    done = ran(table, level=0.001)
    assert done.found.best == (third,)
    for i in (first, second):
        assert (done.found.n_seen[i], done.found.means[i]) == (ROUNDS[0], math.inf)
    assert not any(math.isnan(m) for m in done.found.means)


def test_more_wanted_than_are_numbers():
    table = correlated(1, n_sets=8)
    table[2:] = math.nan
    done = ran(table, keep=4)
    assert set(done.found.best[:2]) == {0, 1}
    assert [done.found.means[i] for i in done.found.best[2:]] == [math.inf] * 2
    everything = ran(np.full((6, 32), math.nan), keep=2)
    assert everything.found.best == (0, 1) and everything.found.doubt == 0


def test_all_that_are_asked_for_are_measured_in_one_round():
    table = correlated(4, n_sets=7)
    for keep in (7, 9):
        done = ran(table, keep=keep)
        assert len(done.looks) == 1 and done.found.best == exhaustive(table, 7)
    one = ran(table[:1])
    assert (one.found.best, one.found.n_seen, len(one.looks)) == ((0,), (32,), 1)


def test_a_seed_fixes_the_order_of_windows():
    table = correlated(6)
    looks = [ran(table, seed=s).looks[0].windows for s in (1, 1, 2)]
    assert looks[0] == looks[1] != looks[2]


def test_a_set_that_is_better_on_all_windows_but_late_ones_is_still_found():
    """What is lost is decided by differences, not by means: a huge common swing hides nothing."""
    dice = np.random.default_rng(9)
    table = 100 * dice.normal(size=64) + np.linspace(0, 2, 20)[:, None]
    table = table + 0.05 * dice.normal(size=table.shape)
    done = ran(table)
    assert done.found.best == exhaustive(table) == (0,)
    assert done.work < 0.4 * table.size


def test_a_chance_by_hand():
    """Differences 1, 2, 3 on 3 of 12 windows: mean 2, variance 1, its error sqrt(1/3 * 9/12) = 1/2.

    t = 4 at 2 degrees of freedom, whose tail is 1/2 - t / (2 sqrt(2 + t^2)) = 0.028595.
    """
    (p,) = chance_of_winning(np.array([[1.0, 2.0, 3.0]]), 12)
    assert p == pytest.approx(0.5 - 4 / (2 * math.sqrt(18)))


def test_chances_at_the_edges():
    same = np.zeros((1, 4))
    assert chance_of_winning(same, 8) == pytest.approx([0.5])
    assert chance_of_winning(np.array([[1.0, 3.0]]), 2) == pytest.approx([0.0])
    worse, better = (chance_of_winning(np.array([[a, b, c]]), 9)[0]
                     for a, b, c in ((1.0, 2.0, 3.0), (-1.0, -2.0, -3.0)))  # fmt: skip
    assert worse + better == pytest.approx(1.0)


def late(n_windows: int = 32, seed: int = 0) -> int:
    """The window that a race comes to last."""
    looks = ran(np.zeros((2, n_windows)), seed=seed).looks
    return looks[-1].windows[-1]


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_leader_without_a_number_on_the_last_window_brings_the_others_back(keep: int, bad: float):
    """Sets were given up for it in several rounds: they are finished, and the best of them win."""
    rounds = set()
    for seed in range(10):
        table = correlated(seed)
        table[:keep] -= 0.5
        undisturbed = ran(table, keep=keep).found
        assert undisturbed.n_seen.count(32) == keep
        rounds |= set(undisturbed.n_seen)
        table[0, late()] = bad
        done = ran(table, keep=keep)
        known = np.where(np.isnan(table), math.inf, table)
        assert done.found.best == exhaustive(known, keep)
        assert 0 not in done.found.best
        assert done.found.means == pytest.approx(known.mean(axis=1))
        assert (set(done.found.n_seen), done.found.doubt) == ({32}, 0.0)
        # Nothing was looked at twice, and nothing was left out.
        places = [(s, w) for look in done.looks for s in look.sets for w in look.windows]
        assert len(set(places)) == len(places) == table.size
    assert len(rounds) > 2


def test_a_rival_that_was_never_given_up_takes_the_place_of_a_leader_without_a_number():
    """It has beaten the others as the leader has: they stay given up."""
    dice = np.random.default_rng(4)
    best = dice.normal(size=32)
    table = np.vstack([best, best, best + 3 + 0.1 * dice.normal(size=(20, 32))])
    table[0, late()] = math.nan
    done = ran(table)
    assert done.found.best == (1,)
    assert done.found.n_seen[:2] == (32, 32) and set(done.found.n_seen[2:]) == {ROUNDS[0]}
    assert (done.found.means[0], done.found.means[1]) == (math.inf, pytest.approx(best.mean()))
