"""The engine behind the screens, on a tiny model: plans never mix, work gives way, limits hold."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch

from blockviz.errors import BadInput, BadPlan, BadSource, OverLimit, UnknownName
from blockviz.evaluate import Perplexity, measure_perplexity
from blockviz.search import Bonsai
from blockviz.session import (
    Continuation,
    Engine,
    JobView,
    Limits,
    ScoreRequest,
    SearchRequest,
    Sizes,
    Visitor,
    opening,
    work,
)
from blockviz.session.allowance import Allowance
from blockviz.session.estimating import n_evaluations
from blockviz.session.example import Example, live_key
from blockviz.session.live import LiveText
from blockviz.session.scoring import score_windows
from blockviz.session.search_views import PairsRequest
from blockviz.session.writing import first_difference
from blockviz.store import Store
from blockviz.types import BlockId, Done, Progress, PruningPlan, run
from blockviz.ui.views import job_lane

PLAN = PruningPlan(removed=(BlockId(1, "attn"), BlockId(2, "mlp")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny.module(*tiny.CASES["llama"]).save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def example() -> Example:
    """An example of a model that is not the one which the tests load."""
    model = tiny.model("mistral")
    windows = tiny.windows()
    table = run(score_windows(model, windows, {}, ScoreRequest()))
    live = {
        live_key(cut): run(measure_perplexity(model, windows, removed=cut))
        for cut in ((), (BlockId(0, "attn"),))
    }
    pair = Continuation("w1", "w2", "w3", 0, is_complete=True)
    return Example(model.info, table, windows.origin, live, ("0.attn",), pair)


@pytest.fixture(scope="module")
def engine(folder: Path, example: Example) -> Iterator[Engine]:
    made = Engine(example=example, live_text="own")
    job = made.start_load(str(folder), dtype="float32")
    view = made.jobs.wait(job, 120)
    assert view.state == "done", view.error
    yield made
    made.close()


def test_before_the_weights_are_there_the_example_answers(example: Example) -> None:
    engine = Engine(example=example)
    cut = PruningPlan(removed=(BlockId(0, "attn"),))
    found = engine.known(cut)
    assert found.source == "bundled"
    assert found.perplexity == example.live[("0.attn",)].value
    assert found.baseline == example.live[()].value
    assert engine.known(PLAN) is None
    assert not engine.is_ready
    assert engine.table("example") is example.table
    with pytest.raises(BadSource, match="not in memory yet"):
        engine.measure(PLAN)


def test_the_example_survives_its_json(example: Example) -> None:
    data = json.loads(json.dumps(example.to_json()))
    assert Example.from_json(data).to_json() == data


def test_another_model_takes_the_examples_place(engine: Engine, example: Example) -> None:
    assert engine.is_ready
    assert engine.info.name != example.info.name
    assert engine.table("example") is None
    assert engine.example_continuation is None


def test_measured_perplexity_is_that_of_the_pruned_model(engine: Engine) -> None:
    found = run(engine.measure(PLAN))
    assert found.source == "measured"
    pruned = engine._model.prune(PLAN)
    windows = engine._live.windows
    by_pruning = run(measure_perplexity(pruned, windows))
    dense = run(measure_perplexity(engine._model, windows))
    assert found.perplexity == pytest.approx(by_pruning.value, rel=1e-5)
    assert found.baseline == pytest.approx(dense.value, rel=1e-6)
    assert found.rise == pytest.approx(by_pruning.value / dense.value - 1, rel=1e-4)
    paired = [a - b for a, b in zip(by_pruning.window_nll, dense.window_nll, strict=True)]
    error = torch.tensor(paired).double().std().item() / len(paired) ** 0.5
    assert found.rise_stderr == pytest.approx(error, rel=1e-3)


def test_every_plan_is_counted_from_the_bundled_original(engine: Engine) -> None:
    """A bundled number of another machine stays the scoreboard's only one for the original."""
    model, windows = engine._model, engine._live.windows
    measured = run(measure_perplexity(model, windows))
    bundled = replace(measured, window_nll=tuple(x + 0.003 for x in measured.window_nll))
    live = {(): bundled}
    table = run(score_windows(model, windows, {}, ScoreRequest()))
    pair = Continuation("w1")
    made = Example(model.info, table, windows.origin, live, (), pair)
    text = LiveText(model, windows, Store(), made)
    found = run(text.measure(PLAN))
    whole = text.known(PruningPlan())
    assert (found.source, whole.source) == ("measured", "bundled")
    assert found.baseline == whole.perplexity == whole.baseline == bundled.value
    assert text.known(PLAN).baseline == bundled.value
    # Without a bundled one it is measured, and is one number as well.
    own = LiveText(model, windows, Store(), None)
    assert run(own.measure(PLAN)).baseline == run(own.measure(PruningPlan())).perplexity
    assert own.known(PLAN).baseline == pytest.approx(measured.value)


def test_a_plan_is_measured_once_in_whatever_order_it_was_made(engine: Engine) -> None:
    plan = PruningPlan(removed=(BlockId(3, "mlp"), BlockId(0, "attn")))
    assert engine.known(plan) is None
    first = run(engine.measure(plan))
    again = PruningPlan(removed=tuple(reversed(plan.removed)))
    assert engine.known(again).source == "stored"
    assert engine.known(again).perplexity == first.perplexity


def test_two_visitors_at_once_never_mix(engine: Engine) -> None:
    """Plans measured by threads in each other's way equal the same plans measured alone."""
    plans = [PruningPlan(removed=(BlockId(i, p),)) for i in range(4) for p in ("attn", "mlp")]
    windows = engine._live.windows
    alone = [
        run(measure_perplexity(engine._model, windows, removed=p.removed)).value for p in plans
    ]
    together: dict[int, float] = {}

    def visit(i: int) -> None:
        together[i] = run(engine.measure(plans[i])).perplexity

    threads = [threading.Thread(target=visit, args=(i,)) for i in range(len(plans))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [together[i] for i in range(len(plans))] == pytest.approx(alone, rel=1e-6)


def test_a_score_job_ends_in_a_table(engine: Engine) -> None:
    request = ScoreRequest(metrics=("bi", "ppl"), calibration="own", n_samples=3, seq_len=32)
    view = engine.jobs.wait(engine.start_score(request, owner="me"), 60)
    assert view.state == "done", view.error
    table = engine.table(view.result["table_key"])
    assert set(table.metrics) == {"bi", "ppl"}
    assert not table.is_partial
    assert engine.table("no such key") is None


def wait_until(engine: Engine, job: str, is_so: Callable[[JobView], bool]) -> None:
    while not is_so(engine.job(job)):
        assert not engine.job(job).is_over, engine.job(job).error
        time.sleep(0.005)


def test_a_toggle_goes_before_a_running_score_job(engine: Engine) -> None:
    request = ScoreRequest(
        metrics=("ppl",), calibration="own", n_samples=60, seq_len=64, engine="reference"
    )
    job = engine.start_score(request, owner="me")
    wait_until(engine, job, lambda view: view.done >= 2)
    run(engine.measure(PruningPlan(removed=(BlockId(0, "layer"),))))
    view = engine.job(job)
    assert view.state == "running", "the job ended before the toggle was answered"
    engine.cancel(job)
    view = engine.jobs.wait(job, 30)
    assert view.state == "cancelled"
    assert view.done < view.total


def test_cancelled_scores_are_kept_as_partial(engine: Engine) -> None:
    request = ScoreRequest(
        metrics=("ppl",), calibration="own", n_samples=60, seq_len=64, engine="reference"
    )
    job = engine.start_score(request, owner="me")
    wait_until(engine, job, lambda view: view.partial is not None)
    engine.cancel(job)
    view = engine.jobs.wait(job, 30)
    table = engine.table(view.partial["table_key"])
    assert table.is_partial
    assert 0 < table.provenance.data.n_samples < 60


def test_both_texts_are_streamed_and_kept(engine: Engine) -> None:
    events = list(engine.write("w1 w2 w3", PLAN, max_new_tokens=5))
    partial = [e.partial for e in events if isinstance(e, Progress)]
    assert [len(p.original.split()) for p in partial][:5] == [1, 2, 3, 4, 5]
    pair = events[-1].result
    assert pair.is_complete
    assert pair.first_difference == first_difference(pair.original, pair.pruned)
    again = list(engine.write("w1 w2 w3", PLAN, max_new_tokens=5))
    assert len(again) == 1
    assert isinstance(again[0], Done)
    assert again[0].result == pair


def test_with_nothing_removed_one_text_is_written_and_shown_twice(engine: Engine) -> None:
    *steps, last = engine.write("w4 w5 w6", PruningPlan(), max_new_tokens=5)
    assert {step.stage for step in steps} == {"writing, original"}
    assert last.result.pruned == last.result.original != ""


def test_first_difference_by_hand() -> None:
    assert first_difference("abc", "abd") == 2
    assert first_difference("abc", "abc") is None
    assert first_difference("ab", "abc") == 2
    assert first_difference("", "") is None


def test_requests_are_refused_before_they_become_jobs(engine: Engine) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'ppl'"):
        engine.start_score(ScoreRequest(metrics=("pll",)), owner="me")
    with pytest.raises(BadInput, match="no such unit"):
        engine.start_score(ScoreRequest(unit="head"), owner="me")
    with pytest.raises(BadPlan, match="layers 0 to 3"):
        engine.sizes(PruningPlan(removed=(BlockId(9, "attn"),)))


@pytest.mark.parametrize("stored", ["float32", "bfloat16", None])
@pytest.mark.parametrize("loaded", ["float32", "bfloat16"])
def test_a_check_counts_the_weights_as_they_are_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str | None, loaded: str
) -> None:
    """Whatever they take in their file; the demo's is quantised and packed to 89 MiB."""
    monkeypatch.setattr(opening, "pick_dtype", lambda *_: getattr(torch, loaded))
    module = tiny.module(*tiny.CASES["llama"])
    module.to(getattr(torch, stored or "float32")).save_pretrained(tmp_path)
    if stored is None:  # as old checkpoints, which say nothing of it
        config = json.loads((tmp_path / "config.json").read_text())
        config = {k: v for k, v in config.items() if k not in ("dtype", "torch_dtype")}
        (tmp_path / "config.json").write_text(json.dumps(config))
    size = getattr(torch, loaded).itemsize
    n = sum(p.numel() for p in module.parameters())
    found = opening.inspect_model(str(tmp_path)).memory_bytes
    assert 1 <= found / (1.3 * n * size) < 1.15  # the names in so small a file count for something
    assert opening.inspect_model("demo").memory_bytes >= size * 134_515_008


def test_hosted_mode_takes_bundled_parts_within_its_limits(example: Example) -> None:
    engine = Engine("hosted", example=example)
    for model in ("owner/name", "/etc", "x.gguf"):
        with pytest.raises(OverLimit, match="demo model only"):
            engine.start_load(model)
        with pytest.raises(OverLimit, match="demo model only"):
            engine.inspect(model)
    with pytest.raises(OverLimit, match="bundled texts only"):
        engine.start_score(ScoreRequest(calibration="/etc/passwd"), owner="me")
    with pytest.raises(OverLimit, match="65 windows"):
        engine.start_score(ScoreRequest(n_samples=65), owner="me")
    with pytest.raises(OverLimit, match="513 tokens a window"):
        engine.start_score(ScoreRequest(seq_len=513), owner="me")


def test_hosted_limits_hold_for_texts(folder: Path, example: Example) -> None:
    local = Engine(example=example, live_text="own")
    local.jobs.wait(local.start_load(str(folder)), 120)
    hosted = Engine("hosted", example=example)
    hosted._model, hosted._live = local._model, local._live
    with pytest.raises(OverLimit, match="2001 characters"):
        run(hosted.write("x" * 2001, PLAN))
    with pytest.raises(OverLimit, match="129 new tokens"):
        run(hosted.write("w1", PLAN, max_new_tokens=129))
    with pytest.raises(OverLimit, match="600 tokens in the prompt"):
        run(hosted.write("w1 " * 600, PLAN, max_new_tokens=1))


def test_undo_redo_reset() -> None:
    visitor = Visitor().with_removed(("1.attn",)).with_removed(("1.attn", "2.mlp"))
    assert visitor.undo().removed == ("1.attn",)
    assert visitor.undo().redo() == visitor
    assert visitor.reset().removed == ()
    assert visitor.reset().undo().removed == visitor.removed
    assert Visitor().undo() == Visitor()
    assert visitor.undo().with_removed(("3.mlp",)).redo().removed == ("3.mlp",)


def test_sizes_by_hand(engine: Engine) -> None:
    info = engine.info
    sizes = Sizes.of(info, PruningPlan(removed=(BlockId(0, "layer"), BlockId(2, "attn"))))
    attn, mlp = info.blocks[0].n_parameters, info.blocks[1].n_parameters
    # attention: q 32x32+32, k and v 32x16+16 each, o 32x32+32, norm 32; MLP: 3 x 32x48 + 48+48+32
    assert attn == 2 * (32 * 32 + 32) + 2 * (32 * 16 + 16) + 32
    assert mlp == 3 * 32 * 48 + 48 + 48 + 32 + 32
    assert (sizes.n_attn_cut, sizes.n_mlp_cut, sizes.n_kept) == (2, 1, 5)
    assert sizes.n_parameters == info.n_parameters - 2 * attn - mlp
    assert sizes.removed_ratio == pytest.approx((2 * attn + mlp) / info.n_parameters)
    assert sizes.kv_ratio == 0.5


def test_perplexity_statistics_by_hand() -> None:
    a, b = Perplexity((1.0, 3.0), 10), Perplexity((0.5, 1.5), 10)
    assert a.nll == 2.0
    assert a.nll_stderr == pytest.approx(1.0)  # deviations 1 and 1, variance 2, over n = 2
    assert a.rise_stderr(b) == pytest.approx(0.5)  # differences 0.5 and 1.5
    assert Perplexity((1.0,), 3).stderr == 0.0


def test_every_page_shares_one_loading_of_the_demo_model(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(example=example)
    go = threading.Event()

    def load(name: str, dtype: str) -> Iterator[Progress | Done]:
        go.wait(10)
        raise BadSource("It was asked.", "It failed.", "Try again.")
        yield Done(None)

    monkeypatch.setattr(engine, "_load", load)
    first = engine.start_demo()
    assert engine.start_demo() == first
    go.set()
    assert engine.jobs.wait(first, 10).state == "failed"
    assert engine.start_demo() != first


def test_scoring_on_the_evaluation_text_warns(engine: Engine, tmp_path: Path) -> None:
    """To this tokenizer every word of our own text is w0, so its two parts are one and the same."""
    other = tmp_path / "other.txt"
    other.write_text(" ".join(f"w{i * i % 61}" for i in range(400)))
    for calibration, warns in (("own", True), (str(other), False)):
        request = ScoreRequest(metrics=("bi",), calibration=calibration, n_samples=4, seq_len=64)
        view = engine.jobs.wait(engine.start_score(request, owner="me"), 60)
        assert view.state == "done", view.error
        assert ("also in the calibration text" in view.result["warning"]) == warns


def test_an_hour_has_so_many_long_tasks_and_texts_scored_before_are_free(
    folder: Path, example: Example
) -> None:
    engine = Engine(example=example, live_text="own", limits=Limits(heavy_per_address=1))
    engine.jobs.wait(engine.start_load(str(folder)), 120)
    request = ScoreRequest(metrics=("bi",), calibration="own", n_samples=3, seq_len=32)
    first = engine.jobs.wait(engine.start_score(request, owner="a", address="1.2.3.4"), 60)
    again = engine.jobs.wait(engine.start_score(request, owner="b", address="1.2.3.4"), 60)
    assert again.result["table_key"] == first.result["table_key"]
    other = replace(request, n_samples=4)
    with pytest.raises(OverLimit, match="1 of 1 an hour"):
        engine.start_score(other, owner="a", address="1.2.3.4")
    engine.start_score(other, owner="a", address="5.6.7.8")
    engine.close()


@pytest.mark.parametrize(
    ("limits", "who", "whose"),
    [((2, None), ("me", "{}"), "by you"), ((None, 2), ("{}", "here"), "from this address")],
)
def test_an_allowance_comes_back_after_an_hour(limits, who, whose) -> None:
    """Another address is no way round a visitor's count, nor a new visitor round an address's."""
    now = 0.0
    allowance = Allowance(*limits, clock=lambda: now)

    def take(n: int) -> None:
        allowance.take(*(name.format(n) for name in who))

    take(1)
    now = 600.0
    take(2)
    allowance.take("another", "there")
    now = 3000.0
    with pytest.raises(OverLimit, match=f"2 of 2 an hour are used {whose}.*free in 10 min"):
        take(3)
    now = 3600.0
    take(4)
    with pytest.raises(OverLimit, match="2 of 2"):
        take(5)


def test_a_class_behind_one_address_has_an_allowance_for_each() -> None:
    limits = Limits.of("hosted", {})
    allowance = Allowance(limits.heavy_per_hour, limits.heavy_per_address, clock=lambda: 0.0)
    for pupil in range(20):
        for _ in range(30):
            allowance.take(f"pupil {pupil}", "school")
    with pytest.raises(OverLimit, match="30 of 30 an hour are used by you"):
        allowance.take("pupil 3", "school")
    with pytest.raises(OverLimit, match="600 of 600 an hour are used from this address"):
        allowance.take("whoever opens the page anew", "school")


@pytest.mark.parametrize(
    ("state", "seconds", "visitor_pays", "address_pays"),
    [
        ("done", 5.0, True, True),
        ("failed", 5.0, True, True),
        ("cancelled", 5.0, False, True),
        ("done", 0.5, False, True),
        ("cancelled", None, False, False),
    ],
)
def test_cancelled_and_short_jobs_are_free(state, seconds, visitor_pays, address_pays) -> None:
    """Not for the address, once they ran: else new visitors could cancel one job after another."""
    for limits, pays in (((1, None), visitor_pays), ((None, 1), address_pays)):
        allowance = Allowance(*limits, clock=lambda: 0.0)
        allowance.is_over(allowance.take("me", "here"), state, seconds)
        if pays:
            with pytest.raises(OverLimit, match="1 of 1"):
                allowance.take("me", "here")
        else:
            allowance.take("me", "here")


def test_a_job_that_is_refused_or_cancelled_gives_its_start_back(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(example=example, limits=Limits(heavy_per_hour=1))
    engine._model, engine._live = object(), object()
    began, may_go = threading.Event(), threading.Event()

    def pairs(request: object) -> Iterator[Progress]:
        began.set()
        may_go.wait(60)
        yield Progress("on and on", 0, 1)

    monkeypatch.setattr(engine, "_pairs", pairs)
    with monkeypatch.context() as full:
        full.setattr(engine.jobs, "_max_waiting", 0)
        with pytest.raises(OverLimit, match="tasks are waiting"):
            engine.start_pairs(PairsRequest(), owner="me")
    job = engine.start_pairs(PairsRequest(), owner="me")
    began.wait(60)
    with pytest.raises(OverLimit, match="1 of 1 an hour are used by you"):
        engine.start_pairs(PairsRequest(), owner="me")
    engine.cancel(job)
    may_go.set()
    assert engine.jobs.wait(job, 60).state == "cancelled"
    engine.cancel(engine.start_pairs(PairsRequest(), owner="me"))
    engine.close()


@pytest.mark.parametrize("mode", ["local", "hosted"])
def test_only_a_shared_app_drops_results_while_it_runs(example, mode, monkeypatch) -> None:
    engine = Engine(mode, example=example)
    now = time.monotonic()
    for held in (engine.store, engine.jobs):
        monkeypatch.setattr(held, "_clock", lambda: now)
    engine.store.put("a result", 1)
    job = engine.jobs.submit("score", lambda: iter([Done(1)]), owner="me")
    engine.jobs.wait(job, 60)
    now += 24 * 3600
    is_kept = mode == "local"
    assert (engine.store.get("a result") == 1) == is_kept
    assert (engine.job(job).state == "done") == is_kept
    with pytest.raises(BadInput, match=r"not kept any more\. Score") as refused:
        engine.import_scores({"metrics": {}}, "mine", "gone")
    assert refused.value.asked.startswith("The scores of mine")
    engine.close()


def test_a_job_stopped_at_its_limit_keeps_what_is_done(
    folder: Path, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(work, "time", SimpleNamespace(monotonic=lambda: now))
    limits = Limits(job_seconds=1)
    engine = Engine(example=example, live_text="own", limits=limits)
    engine.jobs.wait(engine.start_load(str(folder)), 120)
    request = ScoreRequest(
        metrics=("ppl",), calibration="own", n_samples=60, seq_len=64, engine="reference"
    )
    slow = engine.lock.light()
    job = engine.start_score(request, owner="me")
    wait_until(engine, job, lambda view: view.partial is not None)
    with slow:
        now += 1.2
    view = engine.jobs.wait(job, 60)
    assert view.state == "done", view.error
    assert "Stopped at the limit" in view.result["warning"]
    assert job_lane(view)["text"] == "Score stopped at the limit of 0 min; what was done is kept"
    assert engine.table(view.result["table_key"]).is_partial
    engine.close()


GREEDY = SearchRequest(ScoreRequest(calibration="own", n_samples=3, seq_len=32), blocks=3)


def test_a_hosted_search_has_so_many_evaluations() -> None:
    assert Limits.of("hosted", {}).evaluations == 200
    assert Limits.of("hosted", {"BLOCKVIZ_MAX_EVALUATIONS": "50"}).evaluations == 50
    assert Limits.of("local", {"BLOCKVIZ_MAX_EVALUATIONS": "50"}).evaluations is None


@pytest.mark.parametrize(
    ("how", "n"),
    [
        # 8 blocks, then 7, then 6; of a race the 45 % that races were seen to run.
        ({"is_exhaustive": True}, 21),
        ({"engine": "reference"}, 21),
        ({}, 10),
        ({"unit": "layer", "is_exhaustive": True}, 4 + 3 + 2),
        ({"protect_first": 1, "is_exhaustive": True}, 6 + 5 + 4),
        # Every mask is measured to its end: 4 a block, the whole model, and the way to three.
        ({"strategy": "bonsai"}, 4 * 8 + 1 + 3),
        ({"strategy": "oneshot"}, 3),
    ],
)
def test_a_search_beyond_the_limit_is_refused_before_any_work(
    engine: Engine, example: Example, how: dict, n: int
) -> None:
    request = replace(GREEDY, **how)
    for limit in (n - 1, n):
        limited = Engine(example=example, limits=Limits(evaluations=limit, heavy_per_hour=1))
        limited._model, limited._live = engine._model, engine._live
        asks = (limited.estimate_search, lambda r, e=limited: e.start_search(r, owner="me"))
        for ask in asks if limit < n else ():
            with pytest.raises(OverLimit, match=f"The limit here is {limit}") as refused:
                ask(request)
            assert refused.value.asked == f"A search of about {n} evaluations was asked for."
        if limit == n:
            limited.estimate_search(request).close()
        # The one start of this hour is still there.
        limited._allowance.take("me", "")
        limited.close()


def test_a_search_runs_no_more_than_it_was_counted_as(engine: Engine) -> None:
    request = replace(GREEDY, is_exhaustive=True)
    view = engine.jobs.wait(engine.start_search(request, owner="me"), 60)
    assert view.state == "done", view.error
    found = engine.search_run(view.result["search_key"])
    assert sum(step.evaluated for step in found.steps) == 21
    assert n_evaluations(request, engine.info, limit=0) == 21


def test_what_is_far_beyond_the_limit_is_not_worked_out_to_be_refused(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bonsai, "masks", lambda *_: pytest.fail("masks were drawn"))
    request = replace(GREEDY, strategy="bonsai:m=100000")
    assert n_evaluations(request, engine.info, limit=200) > 200
