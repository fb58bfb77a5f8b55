"""A repair is fitted once: what the table measured is what Compare shows and the file holds."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import replace

import pytest
import tiny
import torch
from export_checks import check_here
from safetensors.torch import load, load_file
from test_cli import folder, own_cache, text

from blockviz.cli import main
from blockviz.corrections import Repair, fit
from blockviz.corrections.base import Writing
from blockviz.data import part_of
from blockviz.evaluate import measure_perplexity
from blockviz.session import Engine, ScoreRequest, Visitor
from blockviz.session.example import Example
from blockviz.session.fitted_repairs import FittedRepairs, key_of, n_bytes_of
from blockviz.session.live import LiveText
from blockviz.session.recipe_file import recipe_from_json
from blockviz.session.repair_space import parse_corrections
from blockviz.session.repair_state import TENSORS
from blockviz.session.scoring import score_windows
from blockviz.types import Done, run
from blockviz.ui import compare_form, export_form, repair_form

__all__ = ["folder", "own_cache", "text"]

pytestmark = pytest.mark.usefixtures("one_thread")

# Trained, so that what is held out decides which step is kept.
LABEL = "writer_distilled:epochs=3:lr=0.02"
PLAN, OTHER = tiny.plan("1.attn", "2.mlp"), tiny.windows(5, 20, seed=6)
CORRECTION = next(iter(parse_corrections([LABEL]).values()))
REPAIR = {
    "corrections": [], "corrections_more": LABEL, "repair_text": "own", "repair_samples": 6,
    "repair_seq_len": 16, "repair_skip": 1, "repair_held": 3, "repair_seed": 7,
    "measured_text": "demo", "measured_samples": 4, "measured_seq_len": 24,
    "repair_mode": "stock-compact",
}  # fmt: skip
COMPARE = {
    "compare_a": LABEL, "compare_b": "none", "compare_prompt": "w1 w2", "compare_new": 2,
    "compare_chat": False, "compare_tasks": [], "compare_rows": 1, "compare_timed": False,
}  # fmt: skip
EXPORT = {"export_mode": "stock-compact", "export_fix": LABEL, "export_llama": False}


@pytest.fixture
def model():
    return tiny.model("llama")


@pytest.fixture
def engine(model):
    live = {(): run(measure_perplexity(model, OTHER))}
    scores = run(score_windows(model, OTHER, {}, ScoreRequest()))
    made = Engine(example=Example(model.info, scores, OTHER.origin, live, (), None))
    made._model, made._live = model, LiveText(model, OTHER, made.store, None)
    made._repairs = FittedRepairs(model)
    yield made
    made.close()


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Repair]:
    """Every repair that is fitted from now on."""
    made: list[Repair] = []

    def watched(*args, **how):
        for event in fit(*args, **how):
            if isinstance(event, Done):
                made.append(event.result)
            yield event

    monkeypatch.setattr("blockviz.session.repairing.fit", watched)
    return made


def forms() -> tuple[list, list, list]:
    """The three tabs' values when the Repair tab has filled in the others, as it does."""
    carried = {
        other: REPAIR[name] for name, names in repair_form.CARRIED.items() for other in names
    }
    return tuple(
        [values[name] for name in fields]
        for fields, values in (
            (repair_form.FORM, REPAIR),
            (compare_form.FORM, {**carried, **COMPARE}),
            (export_form.FORM, {**carried, **EXPORT}),
        )
    )


def is_among(tensor: torch.Tensor, tensors: Mapping[str, torch.Tensor]) -> bool:
    return any(torch.equal(tensor, t) for t in tensors.values())


def test_the_table_the_column_and_the_file_have_one_fit(engine, model, fits, monkeypatch):
    check_here(monkeypatch)
    visitor = Visitor(model_key=engine.model_key, removed=("2.mlp", "1.attn"), fix=LABEL)
    on_repair, on_compare, on_export = forms()
    requests = (
        repair_form.request_of(engine, visitor, *on_repair),
        compare_form.request_of(engine, visitor, *on_compare),
        export_form.request_of(engine, visitor, *on_export),
    )
    starts = engine.start_repair, engine.start_compare, engine.start_export
    views = []
    for start, request in zip(starts, requests, strict=True):
        views.append(engine.jobs.wait(start(request, owner="me"), 120))
        assert views[-1].state == "done", views[-1].error
    assert len(fits) == 1
    row = engine.repair_table(views[0].result["repair_key"]).rows[-1]
    column = engine.comparison(views[1].result["compare_key"]).columns[-1]
    exported = engine.exported(views[2].result["export_key"])
    assert row.correction == column.label == exported.report.correction == LABEL
    assert row.nll == pytest.approx(sum(column.window_nll) / len(column.window_nll), rel=1e-12)
    assert exported.report.perplexities["exported"] == math.exp(row.nll)
    with zipfile.ZipFile(exported.archive) as files:
        weights, recipe = (
            next(files.read(n) for n in files.namelist() if n.endswith(end))
            for end in (".safetensors", "recipe.json")
        )
    assert all(is_among(writing.weight, load(weights)) for writing in fits[0].writers.values())
    assert json.loads(recipe)["fit"]["n_held"] == 3


def test_another_text_setting_or_model_is_fitted_again(model, fits):
    windows, held = tiny.windows(6, 16), tiny.windows(2, 16, seed=5)
    known = FittedRepairs(model)
    repair = Repair(CORRECTION, PLAN, writers={PLAN.removed[0]: Writing(torch.ones(2, 2))})
    key = key_of(PLAN, CORRECTION, windows, held)
    known.put(model, key, repair)
    assert known.get(model, key) is repair
    again = tiny.plan("2.mlp", "1.attn")
    assert key_of(again, CORRECTION, windows, held) == key
    wide = replace(windows, input_ids=windows.input_ids.reshape(3, 32),
                   attention_mask=windows.attention_mask.reshape(3, 32))  # fmt: skip
    others = (
        key_of(tiny.plan("1.attn"), CORRECTION, windows, held),
        key_of(PLAN, replace(CORRECTION, epochs=4), windows, held),
        key_of(PLAN, CORRECTION, part_of(windows, 0, 5, role="calibration"), held),
        key_of(PLAN, CORRECTION, wide, held),
        key_of(PLAN, CORRECTION, windows, tiny.windows(2, 16, seed=6)),
        key_of(PLAN, CORRECTION, windows, None),
    )
    assert len({key, *others}) == 7
    assert not any(known.get(model, other) for other in others)
    # A job that began with an earlier model neither takes nor leaves repairs of the present one.
    assert known.get(tiny.model("llama"), key) is None
    known.put(tiny.model("llama"), others[0], repair)
    assert known.get(model, others[0]) is None


def test_repairs_are_dropped_least_recently_used_first(model):
    one = Repair(CORRECTION, PLAN, writers={PLAN.removed[0]: Writing(torch.ones(4, 4))})
    assert n_bytes_of(one) == 64
    known = FittedRepairs(model, most_bytes=2 * 64)
    for name in "ab":
        known.put(model, (name,), one)
    assert known.get(model, ("a",)) is one
    known.put(model, ("c",), one)
    assert [known.get(model, (name,)) is one for name in "abc"] == [True, False, True]
    known.put(model, ("large",), replace(one, writers={PLAN.removed[0]: Writing(torch.ones(9, 9))}))
    assert known.get(model, ("large",)) is None


def test_correct_evaluate_and_export_fit_the_same_repair(folder, text, tmp_path, fits, monkeypatch):
    check_here(monkeypatch)
    how = ["--model", str(folder), "--calibration", str(text), "--data", str(text),
           "--dtype", "float32", "--remove", "1.attn,2.mlp", "--correction", LABEL,
           "--fit-samples", "6", "--fit-seq-len", "32", "--fit-held", "3", "--n-samples", "3",
           "--seq-len", "24", "--shuffle", "--seed", "5"]  # fmt: skip
    state, table, report = tmp_path / "state", tmp_path / "table.json", tmp_path / "report.json"
    out, again = tmp_path / "out", tmp_path / "again"
    assert main(["correct", *how, "--state", str(state), "--out", str(table)]) == 0
    assert main(["evaluate", *how, "--out", str(report)]) == 0
    assert main(["export", *how, "--out", str(out)]) == 0
    same = [*how[:2], *how[4:8], "--recipe", str(out / "blockviz_recipe.json")]
    texts = ["--calibration", str(text), "--data", str(text)]
    assert main(["export", *same, *texts, "--out", str(again)]) == 0
    assert len(fits) == 4
    for repair in fits[1:]:
        assert repair.writers.keys() == fits[0].writers.keys()
        for block, writing in repair.writers.items():
            assert torch.equal(writing.weight, fits[0].writers[block].weight)
    saved = load_file(state / TENSORS)
    written = [load_file(f / "model.safetensors") for f in (out, again)]
    assert all(torch.equal(written[0][name], written[1][name]) for name in written[0])
    for block, writing in fits[0].writers.items():
        assert torch.equal(saved[f"writers/{block}/weight"], writing.weight)
        assert is_among(writing.weight, written[0])
    nll = json.loads(table.read_text())["rows"][-1]["nll"]
    measured = json.loads(report.read_text())["rows"][-1]["perplexity"]["value"]
    assert measured == pytest.approx(math.exp(nll), rel=1e-9)


def test_a_recipe_from_before_held_nothing_out():
    found = {
        "schema": "blockviz/recipe/1", "plan": PLAN.to_json(), "correction": LABEL,
        "is_from_state": False, "export": {"mode": "custom", "as_llama": False},
        "fit": {"text": "own", "n_samples": 6},
    }  # fmt: skip
    assert recipe_from_json(found, "mine").fit == {"text": "own", "n_samples": 6, "n_held": 0}
    assert recipe_from_json({**found, "fit": None}, "mine").fit == {}
