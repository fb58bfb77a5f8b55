"""The contest on a tiny model: every entrant at one size, on one draw's own windows."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from test_cli import folder, own_cache, refusal, task_rows, text

from blockviz.cli import main
from blockviz.corrections import CORRECTIONS, fit, repaired_model
from blockviz.errors import BadInput, UnknownName
from blockviz.evaluate import measure_perplexity
from blockviz.export import stock_parameters
from blockviz.models.model import BlockModel
from blockviz.session import contest_views
from blockviz.session.contest import contest_request
from blockviz.session.contest_space import (
    check_contest,
    draw_texts,
    is_same_contest,
    search_of,
    size_of,
)
from blockviz.session.contest_views import ContestRequest, entrants
from blockviz.session.opening import open_windows
from blockviz.session.views import ScoreRequest
from blockviz.settings import parse_method
from blockviz.types import (
    Answered,
    BlockId,
    Contest,
    Done,
    Entry,
    Provenance,
    PruningPlan,
    parts_of,
    run,
)

__all__ = ["folder", "own_cache", "text"]

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("blockpruner", "shortgpt", "gromov", "laco", "blockviz")


@pytest.fixture(scope="module")
def model() -> BlockModel:
    return tiny.model("llama")


@pytest.fixture
def asked(tmp_path: Path) -> ContestRequest:
    paths = []
    for seed, name, n in ((5, "fit.txt", 1400), (6, "data.txt", 200)):
        dice = torch.Generator().manual_seed(seed)
        ids = torch.randint(tiny.VOCAB, (n,), generator=dice).tolist()
        paths.append(tmp_path / name)
        paths[-1].write_text(" ".join(f"w{i}" for i in ids), encoding="utf-8")
    return ContestRequest(
        layers=1,
        names=NAMES,
        draws=(1, 2),
        text=ScoreRequest(calibration=str(paths[0]), n_samples=6, seq_len=16),
        n_fit=8,
        n_held=3,
        fit_seq_len=32,
        evaluation=ScoreRequest(calibration=str(paths[1]), n_samples=5, seq_len=24),
    )


def test_windows_of_a_draw_are_disjoint_and_another_draw_has_others(model, asked):
    texts = run(draw_texts(model, asked, 1))
    assert texts.search.input_ids.shape == (6, 16)
    assert texts.fit.input_ids.shape == (8, 32) and texts.held.input_ids.shape == (3, 32)
    rows = [tuple(r) for t in (texts.fit, texts.held) for r in t.input_ids.tolist()]
    rows += [tuple(r) for r in texts.search.input_ids.reshape(3, 32).tolist()]
    assert len(set(rows)) == 14
    everything = tiny.tokenizer()(Path(asked.text.calibration).read_text())["input_ids"]
    whole = {tuple(everything[i : i + 32]) for i in range(0, len(everything) - 31, 32)}
    assert set(rows) <= whole
    other = run(draw_texts(model, asked, 2))
    assert not torch.equal(other.search.input_ids, texts.search.input_ids)
    within = texts.for_search(4)
    assert torch.equal(within.input_ids, texts.fit.input_ids[:2])
    assert len(texts.for_search(1)) == 1 and len(texts.for_search(999)) == 8
    assert (texts.held.origin.role, texts.search.origin.seq_len) == ("selection", 16)


def test_every_entry_is_its_plan_with_its_repair(model, asked):
    found: Contest = run(contest_request(model, asked))
    info = model.info
    layer = info.parameters_of([BlockId(0, "layer")])
    assert found.n_parameters == info.n_parameters - layer
    evaluation = run(open_windows(model, asked.evaluation, "evaluation"))
    original = found.entries[0]
    assert (original.name, original.draw, original.rise) == ("original", 0, 0.0)
    assert original.nll == pytest.approx(run(measure_perplexity(model, evaluation)).nll)
    assert [(e.name, e.draw) for e in found.entries[1:]] == [(n, d) for d in (1, 2) for n in NAMES]
    for entry in found.entries[1:]:
        assert entry.refused == ""
        assert entry.n_parameters == info.n_parameters - info.parameters_of(entry.removed)
        assert entry.n_parameters <= found.n_parameters
        assert entry.n_stock == stock_parameters(model, entry.removed) >= entry.n_parameters
        bare = run(measure_perplexity(model, evaluation, removed=parts_of(entry.removed)))
        assert entry.bare == pytest.approx(bare.nll, rel=1e-6)
        if entry.repair:
            texts = run(draw_texts(model, asked, entry.draw))
            plan = PruningPlan(entry.removed)
            repair = run(fit(model, plan, parse_method(CORRECTIONS, entry.repair), texts.fit))
            again = run(measure_perplexity(repaired_model(model, repair), evaluation))
            assert entry.nll == pytest.approx(again.nll, rel=1e-5)
            assert entry.rise_stderr == pytest.approx(
                again.rise_stderr(run(measure_perplexity(model, evaluation))), rel=1e-4
            )
        else:
            assert entry.nll == pytest.approx(entry.bare, rel=1e-6)
    by_name = {e.name: e for e in found.entries if e.draw == 1}
    assert by_name["laco"].repair.startswith("merge:") and by_name["shortgpt"].repair == ""
    assert by_name["blockviz"].repair.startswith("writer_refit")
    assert len(by_name["gromov"].removed) == 1


def test_the_best_repair_is_chosen_on_held_out_windows(model, asked):
    found: Contest = run(contest_request(model, replace(asked, names=("blockviz",), draws=(3,))))
    entry, texts = found.entries[1], run(draw_texts(model, asked, 3))
    (ours,) = entrants(("blockviz",))
    held = {}
    for label in ours.repairs:
        plan = PruningPlan(entry.removed)
        repair = run(fit(model, plan, parse_method(CORRECTIONS, label), texts.fit))
        held[label] = run(measure_perplexity(repaired_model(model, repair), texts.held)).nll
    assert entry.repair == min(held, key=held.__getitem__)


def test_of_several_searches_the_best_on_held_out_windows_is_taken(model, asked, monkeypatch):
    alone, texts = replace(asked, names=("blockviz",), draws=(3,)), run(draw_texts(model, asked, 3))
    both = run(contest_request(model, alone)).entries[1]
    (ours,), held = entrants(("blockviz",)), {}
    for search in ours.searches:
        monkeypatch.setattr(contest_views, "OURS", (replace(ours, searches=(search,)),))
        entry = run(contest_request(model, alone)).entries[1]
        correction = parse_method(CORRECTIONS, entry.repair)
        repair = run(fit(model, PruningPlan(entry.removed), correction, texts.fit))
        found = run(measure_perplexity(repaired_model(model, repair), texts.held))
        held[entry.removed, entry.repair] = found.nll
    assert len(held) == 2
    assert (both.removed, both.repair) == min(held, key=held.__getitem__)


def test_what_is_known_is_not_run_again_and_a_partial_contest_goes_on(model, asked):
    short = replace(asked, names=("shortgpt", "gromov"))
    steps = list(contest_request(model, short))
    partials = [s.partial for s in steps if not isinstance(s, Done) and s.partial is not None]
    assert [len(p.entries) for p in partials] == [2, 3, 4, 5]
    whole: Contest = steps[-1].result
    marked = replace(partials[1].entries[1], title="known")
    earlier = replace(partials[1], entries=(marked, *partials[1].entries[2:]))
    again: Contest = run(contest_request(model, short, earlier))
    assert [e.title for e in again.entries].count("known") == 1
    plain = [replace(e, search_seconds=0.0, repair_seconds=0.0) for e in again.entries]
    before = [replace(e, search_seconds=0.0, repair_seconds=0.0) for e in whole.entries]
    assert [(e.name, e.draw, e.nll) for e in plain] == [(e.name, e.draw, e.nll) for e in before]
    assert Contest.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    # Of another model, text or size nothing is taken over.
    other = tiny.model("llama", seed=1)
    other.info = replace(other.info, name="another")
    fresh: Contest = run(contest_request(other, short, earlier))
    assert "known" not in [e.title for e in fresh.entries]
    now = earlier.evaluation
    assert is_same_contest(earlier, short, now)
    assert not is_same_contest(earlier, replace(short, layers=2), now)
    for change in ({"dtype": "bfloat16"}, {"revision": "x"},
                   {"data": replace(now.data, token_hash="y")}):  # fmt: skip
        assert not is_same_contest(earlier, short, replace(now, **change))


def test_two_texts_of_one_name_are_two_contests(tmp_path):
    settings = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        path = tmp_path / place / "mine.txt"
        path.write_text(f"the words of {place}", encoding="utf-8")
        settings.append(ContestRequest(text=ScoreRequest(calibration=str(path))).settings())
    assert settings[0]["calibration"] == settings[1]["calibration"] == "mine.txt"
    assert settings[0] != settings[1]
    assert str(tmp_path) not in str(settings)


def test_tasks_are_asked_later_and_no_entry_is_lost(model, asked, tmp_path):
    tasks = tmp_path / "own.jsonl"
    tasks.write_text("\n".join(json.dumps(row) for row in task_rows(6)), encoding="utf-8")
    both = replace(asked, names=("shortgpt", "blockviz"), draws=(1,))
    first: Contest = run(contest_request(model, both))
    more = replace(both, tasks=(str(tasks),), limit=4)
    at_once = run(contest_request(model, more))
    later: Contest = run(contest_request(model, more, first))
    assert all(e.tasks and e.tasks["own"].n == 4 for e in later.entries)
    for one, other, before in zip(later.entries, at_once.entries, first.entries, strict=True):
        assert one.tasks == other.tasks and one.nll == pytest.approx(before.nll, rel=1e-6)
        assert (one.removed, one.repair) == (before.removed, before.repair)
        assert one.search_seconds == before.search_seconds
    # Without tasks, and with fewer recipes: what is there stays, its settings too.
    again: Contest = run(contest_request(model, replace(both, names=("shortgpt",)), later))
    assert again.entries == later.entries and again.settings == later.settings
    # Of another number of rows the answers are no longer the same.
    fewer: Contest = run(contest_request(model, replace(more, limit=2), later))
    assert {e.tasks["own"].n for e in fewer.entries} == {2} and len(fewer.entries) == 3


def test_a_repair_that_stores_a_layer_cuts_one_more(model, asked, monkeypatch):
    """A trained layer counts, a map of the stream is less than a block."""
    trained = "llm_streamline:epochs=1"
    streamline = replace(entrants(("streamline",))[0], repairs=(trained,))
    monkeypatch.setattr(contest_views, "OURS", (replace(streamline, name="trained"),))
    short = replace(asked, names=("trained", "linearpatch"), draws=(1,), layers=2)
    found: Contest = run(contest_request(tiny.model("llama", num_hidden_layers=6), short))
    layered, mapped = found.entries[1:]
    assert (layered.repair, layered.refused) == (trained, "")
    assert len(layered.removed) == 3 and layered.n_parameters == found.n_parameters
    assert len(mapped.removed) == 2
    assert 0 < mapped.n_parameters - found.n_parameters < model.info.blocks[0].n_parameters


def test_block_plans_leave_no_more_than_layers_do(model, asked):
    """Whatever the order in which blocks go: too small a cut has room for another block."""
    info = model.info
    (block,) = entrants(("blockpruner",))
    request = search_of(block, {}, replace(asked, layers=2), info, 1)
    limit = int(request.ratio * info.n_parameters)
    sizes = sorted(b.n_parameters for b in info.blocks)
    assert limit - (sizes[0] - 1) >= size_of(info, 2)
    (layers,) = entrants(("shortgpt",))
    assert search_of(layers, {}, replace(asked, layers=2), info, 1).blocks == 2


def test_a_recipe_that_cannot_be_had_says_why_and_the_others_go_on(asked):
    gemma = tiny.model("gemma3")
    found: Contest = run(contest_request(gemma, replace(asked, names=("replaceme", "shortgpt"))))
    refused = [e for e in found.entries if e.refused]
    assert [e.name for e in refused] == ["replaceme"] * 2
    assert math.isnan(refused[0].nll) and refused[0].removed == ()
    assert found.names == ("shortgpt", "replaceme") and found.of("replaceme") == ()


def entry(name: str, draw: int, nll: float, **more: object) -> Entry:
    return Entry(name, name.title(), draw, nll=nll, bare=nll, **more)


def test_order_winners_and_means_by_hand():
    tasks = {"piqa": Answered(0.5, 0.1, 20), "arc_easy": Answered(0.7, 0.1, 20)}
    entries = (
        entry("original", 0, 1.0, tasks=tasks),
        entry("a", 1, 2.0),
        entry("b", 1, 3.0),
        entry("a", 2, 4.0),
        entry("b", 2, 2.0),
        entry("c", 1, math.nan, refused="It cannot."),
    )
    provenance = Provenance(None, "m", "", "", "float32", "cpu", 1, {})
    found = Contest(provenance, 5, {}, entries)
    assert found.names == ("b", "a", "c")
    assert found.winners() == {1: "a", 2: "b"}
    assert entries[0].accuracy == pytest.approx(0.6) and math.isnan(entries[1].accuracy)
    assert entries[1].perplexity == pytest.approx(math.exp(2.0))


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"layers": 0}, BadInput, "0 layers"),
        ({"draws": ()}, BadInput, "0 draws"),
        ({"n_held": 0}, BadInput, "choose by"),
        ({"fit_seq_len": 40}, BadInput, "multiple"),
        ({"names": ("blokviz",)}, UnknownName, "blockviz"),
        ({"layers": 99}, BadInput, "99"),
    ],
)
def test_what_cannot_be_held_is_refused_before_any_work(model, asked, how, error, said):
    with pytest.raises(error, match=said):
        check_contest(replace(asked, **how), model.info)


def test_the_command_writes_goes_on_and_shows(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks, out = tmp_path / "own.jsonl", tmp_path / "contest.json"
    tasks.write_text("\n".join(json.dumps(row) for row in task_rows(4)), encoding="utf-8")
    argv = ["contest", "--model", str(folder), "--dtype", "float32", "--calibration", str(text)]
    argv += ["--data", str(text), "--layers", "1", "--entrants", "shortgpt,blockpruner"]
    argv += ["--n-samples", "4", "--seq-len", "16", "--fit-samples", "4", "--fit-held", "2"]
    argv += ["--fit-seq-len", "32", "--data-samples", "3", "--data-seq-len", "16"]
    argv += ["--tasks", str(tasks), "--out", str(out)]
    assert main([*argv, "--draws", "1"]) == 0
    first = Contest.from_json(json.loads(out.read_text()))
    assert len(first.entries) == 3 and first.entries[1].tasks
    capsys.readouterr()
    assert main([*argv, "--draws", "1,2"]) == 0
    shown = capsys.readouterr()
    assert "shortgpt, draw 1" not in shown.err and "shortgpt, draw 2" in shown.err
    second = Contest.from_json(json.loads(out.read_text()))
    assert second.entries[:3] == first.entries and len(second.entries) == 5
    for title in ("original", "ShortGPT", "BlockPruner"):
        assert title in shown.out
    assert main([*argv, "--draws", "1", "--entrants", "shortgpt"]) == 0
    assert Contest.from_json(json.loads(out.read_text())).entries == second.entries
    assert "whole number" in refusal(capsys, *argv, "--draws", "x")
