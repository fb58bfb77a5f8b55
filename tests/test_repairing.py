"""Corrections through the session on tiny models: the table, the choice, the states, the job."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from blockviz.corrections import CORRECTIONS, Fit, fit, repaired_model
from blockviz.data import part_of
from blockviz.errors import BadInput, BadPlan, BadSource, OverLimit, UnknownName
from blockviz.evaluate import measure_perplexity
from blockviz.session import Engine, Limits, ScoreRequest
from blockviz.session.example import Example
from blockviz.session.live import LiveText
from blockviz.session.opening import provenance_of
from blockviz.session.place_fits import place_fits
from blockviz.session.repair_space import AUTO_GRID, parse_corrections
from blockviz.session.repair_state import STATE, TENSORS, check_state, load_repair, save_repair
from blockviz.session.repair_views import RepairRequest
from blockviz.session.repairing import (
    best_of,
    open_fit_windows,
    repair_windows,
    repaired_by,
)
from blockviz.session.scoring import score_windows
from blockviz.settings import label_of, parse_method
from blockviz.stats.pairs import ChannelPairs
from blockviz.types import BlockId, Done, RepairRow, RepairTable, run

pytestmark = pytest.mark.usefixtures("one_thread")

FIT, HELD, OTHER = tiny.windows(24, 20), tiny.windows(6, 20, seed=5), tiny.windows(5, 20, seed=6)
PLAN = tiny.plan("1.attn", "2.mlp")
NAMES = ("mean", "ridge:ridge=0.01", "replaceme", "writer_refit:ridge=0.5:writers=gap")


def asked(*names: str, **more) -> RepairRequest:
    return RepairRequest(more.pop("plan", PLAN), names or NAMES, **more)


def table_of(model, *names: str, held=HELD, **more) -> RepairTable:
    return run(repair_windows(model, FIT, held, OTHER, asked(*names), **more))


@pytest.fixture(scope="module")
def model():
    return tiny.model("llama")


@pytest.fixture(scope="module")
def table(model) -> RepairTable:
    return table_of(model)


# -- the table --


def test_every_row_is_the_perplexity_of_the_model_that_it_names(model, table):
    whole = run(measure_perplexity(model, OTHER))
    expected = {"original": whole, "none": run(measure_perplexity(model.prune(PLAN), OTHER))}
    held = {"none": run(measure_perplexity(model.prune(PLAN), HELD))}
    for name in NAMES:
        repair = run(fit(model, PLAN, parse_method(CORRECTIONS, name), FIT))
        repaired = repaired_model(model, repair)
        label = label_of(repair.correction)
        expected[label] = run(measure_perplexity(repaired, OTHER))
        held[label] = run(measure_perplexity(repaired, HELD))
    assert [row.correction for row in table.rows] == list(expected)
    for row in table.rows:
        found = expected[row.correction]
        gaps = torch.tensor(found.window_nll) - torch.tensor(whole.window_nll)
        assert row.nll == pytest.approx(found.nll, rel=1e-5)
        assert row.rise == pytest.approx(gaps.mean().item(), abs=1e-5)
        assert row.rise_stderr == pytest.approx(gaps.std().item() / math.sqrt(5), abs=1e-5)
        if row.correction in held:
            assert row.selection == pytest.approx(held[row.correction].nll, rel=1e-5)
    assert (table.n_tokens, table.n_predicted) == (24 * 19, 5 * 19)
    assert table.removed == PLAN.removed and not table.is_partial


def test_rows_say_what_they_cost_and_how_they_are_exported(table):
    rows = {row.correction: row for row in table.rows}
    d = tiny.HIDDEN
    assert rows["mean"].n_added == 2 * d
    assert rows["ridge:ridge=0.01"].n_added == 2 * (d * d + d)
    assert rows["replaceme"].n_added == 0 and rows["replaceme"].is_free
    assert not rows["mean"].is_free and not rows["none"].is_free
    assert [f.gap for f in rows["mean"].fits] == [(b,) for b in PLAN.removed]


def test_the_best_is_that_of_the_held_windows_which_an_export_can_carry(table):
    able = [row for row in table.rows[2:] if row.folds]
    assert len(able) == 2
    least = min(able, key=lambda row: row.selection)
    expected = least.correction if least.selection < table.rows[1].selection else ""
    assert table.best == expected


def test_the_choice_by_hand():
    def row(name, selection, folds="weights", n_added=0):
        return RepairRow(name, "", 0.0, selection=selection, folds=folds, n_added=n_added)

    head = [row("original", 1.0, ""), row("none", 2.0, "")]
    assert best_of([*head, row("a", 1.8), row("b", 1.5), row("c", 1.6)]) == "b"
    assert best_of([*head, row("a", 1.8), row("b", 1.5, folds="")]) == "a"
    assert best_of([*head, row("a", 1.8), row("b", 1.5, n_added=3)]) == "a"
    assert best_of([*head, row("a", 1.8), row("b", 1.5, folds="", n_added=3)], "custom") == "b"
    assert best_of([*head, row("a", 1.8), row("b", 1.5, folds="")], "stock-zeroed") == "a"
    assert best_of([*head, row("a", 2.1)]) == ""
    assert best_of([*head, row("a", None)]) == ""
    assert best_of(head) == best_of([]) == ""
    # The text of the perplexities has no say.
    worse = replace(row("a", 1.5), nll=9.0)
    assert best_of([*head, worse, replace(row("b", 1.6), nll=0.1)]) == "a"


def test_nothing_is_chosen_where_nothing_was_held_back(model):
    found = table_of(model, "replaceme", "writer_refit", held=None)
    assert found.best == "" and all(row.selection is None for row in found.rows)
    assert all(f.held_before is None for row in found.rows for f in row.fits)


def test_partial_tables_grow_by_a_row(model, table):
    events = list(repair_windows(model, FIT, HELD, OTHER, asked()))
    partials = [event.partial for event in events[:-1] if event.partial is not None]
    assert [len(p.rows) for p in partials] == [1, 2, 3, 4, 5, 6]
    assert all(p.is_partial for p in partials)
    for partial in partials:
        assert RepairTable.from_json(json.loads(json.dumps(partial.to_json()))) == partial
        names = [row.correction for row in partial.rows]
        assert names == [row.correction for row in table.rows[: len(names)]]
    assert isinstance(events[-1], Done)


def test_one_that_the_model_cannot_have_becomes_a_row_that_says_why():
    gemma, kept = tiny.model("gemma3"), []
    found = run(repair_windows(gemma, FIT, HELD, OTHER, asked("writer_refit", "mean"), kept.append))
    refused, mean = found.rows[2:]
    assert "a norm follows it" in refused.refused and math.isnan(refused.nll)
    assert found.closed(refused) is None
    assert math.isfinite(mean.nll) and kept == []
    text = json.dumps(found.to_json(), allow_nan=False)
    assert RepairTable.from_json(json.loads(text)).to_json() == found.to_json()


def test_windows_that_do_not_fit_into_memory_refuse_each_correction(model):
    found = run(
        repair_windows(model, FIT, HELD, OTHER, asked("mean", "ridge", memory_bytes=1 << 10))
    )
    assert ["tokens" in row.refused for row in found.rows] == [False, False, True, True]


def test_the_share_of_the_gap_that_a_row_closes(table):
    whole, none, row = (replace(table.rows[0], nll=x) for x in (3.0, 5.0, 3.5))
    by_hand = replace(table, rows=(whole, none, row))
    assert by_hand.closed(row) == pytest.approx(0.75)
    assert by_hand.closed(none) == 0.0 and by_hand.closed(whole) == 1.0
    assert replace(table, rows=(none, whole, row)).closed(row) is None


def test_the_kept_repair_is_that_of_the_best_row(model, table):
    kept: list = []
    table_of(model, keep=kept.append)
    assert [label_of(repair.correction) for repair in kept][-1:] == (
        [table.best] if table.best else []
    )
    kept.clear()
    table_of(model, "mean", keep=kept.append)
    assert [repair.correction.name for repair in kept] == ["mean"]


def test_a_repair_leaves_the_shared_model_as_it_was(model, table):
    before = {name: p.clone() for name, p in model.module.named_parameters()}
    logits = model.logits(tiny.batch())
    table_of(model)
    assert torch.equal(model.logits(tiny.batch()), logits)
    assert all(torch.equal(p, before[name]) for name, p in model.module.named_parameters())


def test_text_that_was_fitted_on_is_not_believed(model):
    found = run(repair_windows(model, FIT, HELD, FIT, asked("mean")))
    assert "100% of the evaluation text" in found.warning
    assert table_of(model, "mean").warning == ""


# -- places --


def test_shares_and_sizes_of_a_place_by_hand():
    """u = 1, 3 and y = 2, 6 in the first channel; u = 0, 0 and y = 1, -1 in the second.

    Errors: mean of 1, 9 is 5, and of 1, 1 is 1; y varies by 4 and by 1: (5 + 1) / (4 + 1).
    """
    u = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    y = torch.tensor([[2.0, 1.0], [6.0, -1.0]])

    def moments(a, b):
        pairs = ChannelPairs(2)
        pairs.add(a, b)
        return pairs.result()

    block, gap = BlockId(1, "mlp"), (BlockId(2, "attn"),)
    found = Fit(block, gap, moments(u, y), moments(y, y), moments(u, y), moments(2 * u, y))
    (place,) = place_fits([found], with_channels=True)
    assert place.before == pytest.approx(6 / 5) and place.after == pytest.approx(0, abs=1e-12)
    # 2 u = 2, 6 leaves no error in the first channel.
    assert place.held_before == pytest.approx(6 / 5) and place.held_after == pytest.approx(1 / 5)
    assert place.size_before == pytest.approx(math.sqrt((1 + 9 + 0 + 0) / 4))
    assert place.size_whole == pytest.approx(math.sqrt((4 + 36 + 1 + 1) / 4))
    assert place.channels["mean_before"] == (2.0, 0.0) and place.channels["std_whole"] == (2.0, 1.0)
    assert place.channels["rho_before"] == (1.0, 0.0) and place.channels["rho_after"] == (1.0, 1.0)
    assert not place.is_worse
    assert replace(place, held_after=1.3).is_worse
    no_gap = replace(found, gap=())
    assert place_fits([no_gap], with_channels=True)[0].channels == {}
    assert place_fits([found], with_channels=False)[0].channels == {}
    grown = replace(found, after=moments(u * math.inf, y))
    assert place_fits([grown], with_channels=True) == ()


# -- names and requests --


def test_all_stands_for_every_one_that_is_not_experimental():
    every = parse_corrections(["all"])
    assert set(every) == {c.name for c in CORRECTIONS.classes() if not c.is_experimental}
    assert parse_corrections(["none", "all", "mean"]) == every
    assert parse_corrections(["none", ""]) == {}


def test_auto_stands_for_what_folds_and_the_grid():
    found = parse_corrections(["auto"])
    assert all(correction.folds for correction in found.values())
    assert {"replaceme", "writer_refit"} <= set(found) and "ridge" not in found
    assert {label_of(parse_method(CORRECTIONS, text)) for text in AUTO_GRID} <= set(found)


def test_settings_are_part_of_a_label_and_repeats_are_left_out():
    found = parse_corrections(["ridge", "ridge:ridge=0.5", "ridge:ridge=0.001"])
    assert list(found) == ["ridge", "ridge:ridge=0.5"]
    assert found["ridge:ridge=0.5"].ridge == 0.5


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"corrections": ("glue",)}, UnknownName, "no such correction"),
        ({"corrections": ("ridge:rigde=1",)}, BadInput, "no setting"),
        ({"corrections": ("none",)}, BadInput, "None was named"),
        ({"plan": tiny.plan()}, BadInput, "removes nothing"),
        ({"plan": tiny.plan("9.attn")}, BadPlan, "layers 0 to 3"),
        ({"n_held": -1}, BadInput, "-1 windows to hold back"),
        ({"n_skip": -1}, BadInput, "-1 windows to leave out"),
        ({"text": ScoreRequest(n_samples=0)}, BadInput, "0 windows to fit on"),
        ({"text": ScoreRequest(seq_len=1)}, BadInput, "1 tokens in a window to fit on"),
        ({"evaluation": ScoreRequest(seq_len=1)}, BadInput, "to measure on"),
    ],
)
def test_what_cannot_be_run_is_refused(model, change, error, message):
    with pytest.raises(error, match=message):
        run(repair_windows(model, FIT, HELD, OTHER, replace(asked(), **change)))


def test_the_fit_text_is_cut_into_parts_that_share_nothing(model):
    text = ScoreRequest(calibration="own", n_samples=4, seq_len=16)
    found = run(open_fit_windows(model, asked("mean", text=text, n_skip=2, n_held=3)))
    whole = run(open_fit_windows(model, asked("mean", text=replace(text, n_samples=9), n_held=0)))
    assert whole.held is None
    assert torch.equal(found.fit.input_ids, whole.fit.input_ids[2:6])
    assert torch.equal(found.held.input_ids, whole.fit.input_ids[6:])
    origins = [w.origin for w in (found.fit, found.held, whole.fit)]
    assert [o.n_samples for o in origins] == [4, 3, 9]
    assert [o.n_tokens for o in origins] == [64, 48, 144]
    assert [o.role for o in origins] == ["calibration", "selection", "calibration"]
    assert len({o.token_hash for o in origins}) == 3
    assert origins[0].split.endswith("from window 2") and "window" not in origins[2].split


def test_a_part_has_the_hash_of_the_same_windows_opened_alone():
    from blockviz.data.windows import token_hash

    part = part_of(FIT, 3, 5, role="calibration")
    assert part.origin.token_hash == token_hash(FIT.input_ids[3:5], FIT.attention_mask[3:5])
    padded = part_of(tiny.windows(3, 8, lengths=(8, 3, 5)), 1, 3, role="selection")
    assert (padded.origin.n_tokens, padded.origin.n_samples) == (8, 2)


# -- states --


@pytest.mark.parametrize("case", ["llama", "gpt2", "neox"])
@pytest.mark.parametrize("name", ["mean", "ridge", "norm_ridge", "replaceme", "writer_refit"])
def test_a_saved_repair_is_the_same_one_bit_for_bit(case, name, tmp_path):
    model = tiny.model(case)
    plan = tiny.plan("1.attn", "1.mlp")
    correction = parse_method(CORRECTIONS, f"{name}:tokens=all")
    repair = run(fit(model, plan, correction, FIT))
    save_repair(tmp_path / "state", model, repair, provenance_of(model, FIT.origin))
    found = load_repair(tmp_path / "state", tiny.model(case))
    assert (found.correction, found.plan.removed) == (correction, plan.removed)
    assert (found.n_tokens, found.notes) == (repair.n_tokens, repair.notes)
    batch = tiny.batch()
    logits = repaired_model(tiny.model(case), found).logits(batch)
    assert torch.equal(logits, repaired_model(model, repair).logits(batch))
    state = json.loads((tmp_path / "state" / STATE).read_text())
    assert state["provenance"]["token_hash"] == FIT.origin.token_hash
    assert {p.name for p in (tmp_path / "state").iterdir()} == {STATE, TENSORS}


@pytest.fixture
def state(model, tmp_path) -> Path:
    """The folder of a fitted ridge map."""
    repair = run(fit(model, PLAN, parse_method(CORRECTIONS, "ridge"), FIT))
    save_repair(tmp_path / "s", model, repair, provenance_of(model, FIT.origin))
    return tmp_path / "s"


def test_a_state_of_another_model_is_refused(state):
    with pytest.raises(BadInput, match="It was fitted on llama, which is another model") as refused:
        load_repair(state, tiny.model("mistral"))
    assert refused.value.asked.endswith("was to be put into mistral.")
    with pytest.raises(BadInput, match="another model or another revision"):
        load_repair(state, tiny.model("llama", num_hidden_layers=6))


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: (s / TENSORS).unlink(),
        lambda s: (s / TENSORS).write_bytes((s / TENSORS).read_bytes()[:-4]),
        lambda s: (s / TENSORS).write_bytes(b"x" + (s / TENSORS).read_bytes()[1:]),
        lambda s: (s / STATE).unlink(),
        lambda s: (s / STATE).write_text("{"),
        lambda s: (s / STATE).write_text('["a"]'),
        lambda s: (s / STATE).write_bytes(b"\xff\xfe\x00"),
        lambda s: _changed(s, lambda data: data.pop("maps")),
        lambda s: _changed(s, lambda data: data.pop("sha256")),
        lambda s: _changed(s, lambda data: data["maps"]["1.attn"].update({"class": "Module"})),
        lambda s: _changed(s, lambda data: data["maps"]["1.attn"].update(norm="no.such.norm")),
    ],
)
def test_a_damaged_state_is_refused(model, state, damage):
    damage(state)
    with pytest.raises(BadSource, match="A fitted correction was to be read from s"):
        load_repair(state, model)


def _changed(folder: Path, change) -> None:
    data = json.loads((folder / STATE).read_text())
    change(data)
    (folder / STATE).write_text(json.dumps(data))


def test_a_state_never_takes_the_place_of_other_files(tmp_path, state):
    check_state(state)
    check_state(tmp_path / "new")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("all of it")
    for folder in (tmp_path / "full", tmp_path / "full" / "thesis.txt", tmp_path / "no" / "way"):
        with pytest.raises(BadInput, match="Give a new or empty folder"):
            check_state(folder)


# -- the engine --


@pytest.fixture(scope="module")
def engine(model):
    live = {(): run(measure_perplexity(model, OTHER))}
    scores = run(score_windows(model, OTHER, {}, ScoreRequest()))
    made = Engine(example=Example(model.info, scores, OTHER.origin, live, (), None))
    made._model, made._live = model, LiveText(model, OTHER, made.store, None)
    yield made
    made.close()


TEXT = ScoreRequest(calibration="own", n_samples=6, seq_len=16)
OWN = asked("mean", "replaceme", text=TEXT, n_held=2, evaluation=replace(TEXT, n_samples=3))


def test_a_repair_job_ends_in_a_table(engine, model):
    view = engine.jobs.wait(engine.start_repair(OWN, owner="me"), 60)
    assert view.state == "done", view.error
    found = engine.repair_table(view.result["repair_key"])
    assert [row.correction for row in found.rows] == ["original", "none", "mean", "replaceme"]
    assert found.evaluation.data.role == "evaluation"
    assert found.provenance.data.n_samples == 6
    assert engine.repair_table("forgotten") is None
    whole = found.original.perplexity
    assert whole == pytest.approx(math.exp(found.rows[0].nll)) and not found.is_partial
    # One correction fails, the job does not.
    big = replace(OWN, memory_bytes=1)
    view = engine.jobs.wait(engine.start_repair(big, owner="me"), 60)
    rows = engine.repair_table(view.result["repair_key"]).rows
    assert view.state == "done" and all(row.refused for row in rows[2:])


def test_the_repair_of_a_request_is_a_model(engine, model):
    repaired = run(repaired_by(model, replace(OWN, corrections=("mean",))))
    assert repaired.plan.removed == PLAN.removed and repaired.n_added == 2 * tiny.HIDDEN


def test_bad_repairs_start_no_job(engine):
    for change, error in (
        ({"corrections": ("glue",)}, UnknownName),
        ({"plan": tiny.plan()}, BadInput),
        ({"plan": tiny.plan("7.mlp")}, BadPlan),
    ):
        with pytest.raises(error):
            engine.start_repair(replace(OWN, **change), owner="me")


def test_hosted_limits_hold_for_both_texts(engine, model):
    limits = Limits(n_samples=8, seq_len=64, bundled_only=True, heavy_per_address=1)
    hosted = Engine(example=engine.example, limits=limits)
    hosted._model, hosted._live = model, engine._live
    for change, message in (
        ({"n_skip": 1}, "9 windows were asked for"),
        ({"evaluation": replace(TEXT, n_samples=9)}, "9 windows were asked for"),
        ({"evaluation": replace(TEXT, calibration="c4")}, "bundled texts only"),
        ({"text": replace(TEXT, calibration="/etc/passwd")}, "bundled texts only"),
    ):
        with pytest.raises(OverLimit, match=message):
            hosted.start_repair(replace(OWN, **change), owner="me", address="1.2.3.4")
    view = hosted.jobs.wait(hosted.start_repair(OWN, owner="me", address="1.2.3.4"), 60)
    assert view.state == "done", view.error
    with pytest.raises(OverLimit, match="1 of 1 an hour"):
        hosted.start_repair(OWN, owner="me", address="1.2.3.4")
    hosted.close()


def test_every_correction_has_a_card(engine):
    cards = engine.correction_cards()
    assert [card.name for card in cards] == list(CORRECTIONS.names())
    assert all(card.title and card.meaning.endswith(".") and card.citation for card in cards)
    assert {card.name: bool(card.folds) for card in cards}["writer_refit"]
