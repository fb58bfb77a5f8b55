"""What cuts cost, the early-exit lens, and what an engine says of its tables, on tiny models."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from blockviz.engine import SetRunner
from blockviz.errors import BadInput, OverLimit
from blockviz.evaluate import measure_perplexity, read_early_exits
from blockviz.rankings import tied_with
from blockviz.session import Engine, Limits, ScoreRequest
from blockviz.session.example import Example
from blockviz.session.findings import compare, findings_of, intervals_of, run_label
from blockviz.session.judging import check_table, judge_windows, n_left
from blockviz.session.kept import KeptResults
from blockviz.session.lens import read_lens
from blockviz.session.refusals import check_score
from blockviz.session.scoring import check_request, score_windows
from blockviz.store import Store
from blockviz.types import BlockId, Done, Judgement, Measured, run

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOWS = tiny.windows(4, 16)
HELD_OUT = tiny.windows(3, 16, seed=9)


def scored(model, names="bi,ppl,ang_win", **how):
    request = ScoreRequest(metrics=tuple(names.split(",")), **how)
    return run(score_windows(model, WINDOWS, check_request(request), request))


@pytest.fixture(scope="module")
def model():
    return tiny.model("llama")


@pytest.fixture(scope="module")
def table(model):
    return scored(model)


@pytest.mark.parametrize("case", ["llama", "gpt2", "neox"])
def test_what_cuts_cost_is_the_loss_of_the_model_without_them(case):
    model = tiny.model(case)
    found = run(judge_windows(model, scored(model), HELD_OUT, n_removals=3))
    assert set(found.singles) == {*model.info.units("block"), *model.info.units("layer")}
    measured = [found.whole, *found.singles.values(), *sum(found.curves.values(), ())]
    for one in measured:
        expected = run(measure_perplexity(model, HELD_OUT, removed=one.removed))
        assert one.nll == pytest.approx(expected.window_nll, rel=1e-5)
    assert not found.is_partial


def test_curves_cut_each_metrics_lowest_blocks_one_after_another(model, table):
    found = run(judge_windows(model, table, HELD_OUT, n_removals=3))
    for name, curve in found.curves.items():
        values = table.metrics[name].values
        order = sorted(values, key=values.get)
        assert [m.removed for m in curve] == [tuple(order[:n]) for n in (1, 2, 3)]
    # Four layers are the whole model: the last cut that leaves something is the third.
    longer = run(judge_windows(model, table, HELD_OUT, n_removals=9))
    assert len(longer.curves["ang_win"]) == 3
    assert len(longer.curves["bi"]) == 7


def test_blocks_alone_need_no_layers(model):
    found = run(judge_windows(model, scored(model, "bi,ppl"), HELD_OUT, n_removals=1))
    assert set(found.singles) == set(model.info.units("block"))


def test_a_judgement_that_is_stopped_keeps_what_it_has_and_goes_on_from_there(model, table):
    kept = KeptResults(Store(), model, engine="fast")
    events = judge_windows(model, table, HELD_OUT, n_removals=2, kept=kept)
    partials = []
    for event in events:
        if event.partial is not None:
            partials.append(event.partial)
        if len(partials) == 5:
            break
    events.close()
    assert partials[-1].is_partial
    assert len(partials[-1].singles) == 4
    before = kept.n_evaluated
    whole = run(judge_windows(model, table, HELD_OUT, n_removals=2, kept=kept))
    assert kept.n_reused >= 5
    fresh = run(judge_windows(model, table, HELD_OUT, n_removals=2))
    assert whole == fresh
    assert before >= 5
    assert Judgement.from_json(json.loads(json.dumps(whole.to_json()))) == whole


def test_new_scores_are_judged_by_what_is_known_already(model):
    known = run(judge_windows(model, scored(model, "bi,ppl"), HELD_OUT, n_removals=2))
    other = scored(model, "rm,ppl")
    n_missing = n_left(model.info, other, replace(known, curves={}))
    assert n_missing > n_left(model.info, other, known) > 0
    fresh = run(judge_windows(model, other, HELD_OUT))
    kept = KeptResults(Store(), model, engine="fast")
    again = run(judge_windows(model, other, HELD_OUT, kept=kept, before=known))
    assert again == fresh
    assert n_left(model.info, other, again) == 0
    n_batches = len(SetRunner(model, HELD_OUT))
    # The whole model is measured anyhow, to see that it is the same arithmetic.
    assert kept.n_evaluated == n_batches * (n_left(model.info, other, known) + 1)


def test_what_was_measured_of_something_else_is_measured_again(model, table):
    known = run(judge_windows(model, table, HELD_OUT, n_removals=2))
    moved = replace(known, whole=Measured((), tuple(n + 0.01 for n in known.whole.nll)))
    named = replace(known, provenance=replace(known.provenance, dtype="float16"))
    counts = []
    for before in (None, moved, named):
        kept = KeptResults(Store(), model, engine="fast")
        run(judge_windows(model, table, HELD_OUT, n_removals=2, kept=kept, before=before))
        counts.append(kept.n_evaluated)
    assert counts[0] == counts[1] == counts[2] > 1


def test_scores_of_another_model_are_not_judged(model):
    other = scored(tiny.model("llama", num_hidden_layers=6))
    with pytest.raises(BadInput, match=r"not those of llama with 4 layers"):
        check_table(model, other)


@pytest.mark.parametrize("case", ["llama", "gemma3-softcap", "gpt2", "neox"])
def test_the_last_early_exit_is_the_models_own_output(case):
    model = tiny.model(case)
    ids = torch.tensor([5, 9, 30, 2, 17])
    found = read_early_exits(model, ids, 3, 4)
    with torch.no_grad():
        logits = model.module(ids[None]).logits[0, 3].double().numpy()
    p = np.exp(logits - logits.max())
    p /= p.sum()
    assert found.top[-1].tolist() == np.argsort(-p)[:4].tolist()
    assert found.probabilities[-1].tolist() == pytest.approx(sorted(p)[::-1][:4], rel=1e-4)
    assert found.entropy[-1].item() == pytest.approx(-(p * np.log(p)).sum(), rel=1e-4)
    assert found.kl[-1].item() == 0
    assert found.rank_of_final[-1].item() == 1
    parts = ("layer",) if model.family.is_parallel else ("attn", "mlp")
    names = [f"{i}.{part}" for i in range(4) for part in parts]
    assert list(found.depths) == ["embedding", *names]


def test_an_early_exit_is_the_head_on_the_stream_there():
    model = tiny.model("llama")
    ids = torch.tensor([5, 9, 30, 2])
    found = read_early_exits(model, ids, 3, 64)
    with torch.no_grad():
        hidden = model.module(ids[None], output_hidden_states=True).hidden_states
        for depth, layer in ((0, 0), (2, 1), (6, 3)):
            logits = model.module.lm_head(model.final_norm(hidden[layer][0, 3]))
            p = logits.softmax(-1)
            assert found.top[depth].tolist() == p.argsort(descending=True).tolist()
            own = hidden[-1][0, 3]
            q = model.module.lm_head(own).log_softmax(-1)
            kl = (q.exp() * (q - p.log())).sum().item()
            assert found.kl[depth].item() == pytest.approx(kl, rel=1e-3)
            rank = 1 + (p > p[q.argmax()]).sum().item()
            assert found.rank_of_final[depth].item() == rank


def test_a_lens_reads_the_token_that_is_asked_for(model):
    last = run(read_lens(model, "w5 w9 w30"))
    assert last.context == ("w5", "w9", "w30") and last.position == 2
    assert run(read_lens(model, "w5 w9 w30", position=2)).tokens == last.tokens
    first = run(read_lens(model, "w5 w9 w30", position=0))
    assert first == run(read_lens(model, "w5"))
    assert len(last.tokens[0]) == 5


@pytest.mark.parametrize(
    ("text", "how", "error", "message"),
    [
        (" ", {}, BadInput, "It is empty"),
        ("w1 w2", {"position": 2}, BadInput, r"It has 2 tokens\. Choose 0 to 1"),
        ("w1 w2", {"position": -3}, BadInput, "It has 2 tokens"),
        ("w1 " * 70, {}, OverLimit, "At most 64 can be read at once"),
        ("w1 w2 w3", {"limits": Limits(max_prompt_chars=5)}, OverLimit, "The limit here is 5"),
        ("w1 w2 w3", {"limits": Limits(max_prompt_tokens=2)}, OverLimit, "At most 2 can be read"),
    ],
)
def test_what_a_lens_cannot_read_is_refused(model, text, how, error, message):
    with pytest.raises(error, match=message):
        run(read_lens(model, text, **how))


def test_findings_hold_together(model, table):
    judged = run(judge_windows(model, table, HELD_OUT, n_removals=2))
    found = findings_of(table, judged)
    assert found.agreement.metrics == ("bi", "ppl", "ang_win")
    assert {v.metric for v in found.verdicts} == {"bi", "ppl", "ang_win"}
    assert {s.metric for s in found.stability} == {"bi", "ppl", "ang_win"}
    assert findings_of(table, None).verdicts == ()
    ranks = table.metrics["ppl"].ranks()
    for block, (low, high) in intervals_of(table)["ppl"].items():
        assert low <= ranks[block] <= high


def test_runs_are_compared_under_the_text_they_were_scored_on(model, table):
    data = compare([table, table], ["a", "b"])
    assert data["schema"] == "blockviz/stability/1"
    assert {m["mean"] for m in data["runs"]["metrics"].values()} == {1.0}
    assert compare([table], ["a"])["runs"] is None
    assert run_label(table) == "random, 4 × 16, seed 1"
    assert json.loads(json.dumps(data, allow_nan=False)) == data


@pytest.fixture
def engine(model, table):
    """An engine that has loaded the example's own model."""
    judged = run(judge_windows(model, table, HELD_OUT, n_removals=2))
    live = {(): run(measure_perplexity(model, HELD_OUT))}
    example = Example(
        model.info, table, HELD_OUT.origin, live, (), None, judged, run(read_lens(model, "w1 w2"))
    )
    made = Engine(example=example)
    yield made
    made.close()


def test_an_engine_answers_for_its_example_and_for_imported_rows(engine, table):
    assert engine.judgement("example") is engine.example.judgement
    assert engine.example_lens.position == 1
    assert engine.findings("example", "example") is engine.findings("example", "example")
    assert engine.findings("forgotten", "example") is None
    block = BlockId(1, "attn")
    assert engine.tied("example", "ppl", block) == tied_with(table.metrics["ppl"], block)
    assert engine.tied("example", "none", block) == ()
    # A metric of layers answers for the layer of the block.
    assert all(b.part == "layer" for b in engine.tied("example", "ang_win", block))
    values = {str(b.id): float(i) for i, b in enumerate(engine.info.blocks)}
    key = engine.import_scores({"metrics": {"mine": {"values": values}}}, "file", "example")
    assert [*engine.table(key).metrics][:3] == [*table.metrics]
    assert len(engine.table(key).metrics) == 4
    assert engine.compared(["example"]) is None
    assert engine.compared(["example", key]) is not None
    with pytest.raises(BadInput):
        engine.import_scores({"0.attn": 1.0}, "file", "example")


def test_a_judge_job_ends_in_a_judgement(engine, model, table):
    from blockviz.session.live import LiveText

    engine._model = model
    engine._live = LiveText(model, HELD_OUT, engine.store, None)
    view = engine.jobs.wait(engine.start_judge("example", n_removals=2, owner="me"), 60)
    assert view.state == "done", view.error
    found = engine.judgement(view.result["judgement_key"])
    assert found == run(judge_windows(model, table, HELD_OUT, n_removals=2))
    view = engine.jobs.wait(engine.start_judge("forgotten", owner="me"), 60)
    assert view.state == "failed"
    assert "no longer kept" in view.error
    assert isinstance([*engine.lens("w3 w4")][-1], Done)


def test_what_a_stopped_judgement_says_is_not_kept_for_the_whole_one(engine, model, table):
    whole = run(judge_windows(model, table, HELD_OUT, n_removals=2))
    few = dict(list(whole.singles.items())[:3])
    engine.store.put("growing", replace(whole, singles=few, is_partial=True))
    assert max(v.n_blocks for v in engine.findings("example", "growing").verdicts) == 3
    engine.store.put("growing", whole)
    found = engine.findings("example", "growing")
    assert max(v.n_blocks for v in found.verdicts) == len(model.info.units("block"))
    assert engine.findings("example", "growing") is found


def test_hosted_limits_hold_for_questions():
    limits = Limits.of("hosted", {})
    check_score(limits, ScoreRequest(tasks="arc_easy", limit=64))
    with pytest.raises(OverLimit, match=r"65 questions were asked for\. The limit here is 64"):
        check_score(limits, ScoreRequest(tasks="arc_easy", limit=65))
    with pytest.raises(OverLimit, match="named tasks only"):
        check_score(limits, ScoreRequest(tasks="/etc/passwd.jsonl", limit=3))
    with pytest.raises(OverLimit, match="questions"):
        check_score(limits, ScoreRequest(tasks="arc_easy"))
