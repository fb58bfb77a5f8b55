"""The Export tab without a browser: forged values, states, checks, and the file."""

from __future__ import annotations

import math
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import gradio
import pytest
from fake_engine import HOSTILE, FakeEngine
from fake_export import make_exported, make_report
from fake_repair import make_repair

from blockviz.errors import BlockvizError
from blockviz.job_view import JobView
from blockviz.session import ScoreRequest, Visitor
from blockviz.session import exports as exports_module
from blockviz.session.exports import Exported, Exports, archive, archive_name
from blockviz.session.repair_views import RepairRequest
from blockviz.types import CheckRow, run
from blockviz.ui import export_cards
from blockviz.ui.export_form import FORM, mode_choices, request_of, said
from blockviz.ui.export_handlers import DESCRIBED, ExportHandlers
from blockviz.ui.found import step_of, with_found
from blockviz.ui.job_handlers import NO_JOBS, JobHandlers
from blockviz.ui.launch import build_app
from blockviz.ui.screen import Call, to_outputs
from blockviz.ui.turns import Turns

GOOD = {
    "export_mode": "stock-compact", "export_fix": "writer_refit", "export_llama": False,
    "export_text": "demo", "export_samples": 48, "export_seq_len": 512, "export_skip": 0,
    "export_held": 8, "export_seed": 42, "shown_text": "demo", "shown_samples": 16,
    "shown_seq_len": 512,
}  # fmt: skip
REMOVED = ("18.attn", "7.attn", "7.mlp")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(step=0.0, is_ready=True)


@pytest.fixture
def visitor(engine) -> Visitor:
    return Visitor(model_key=engine.model_key, removed=REMOVED)


@pytest.fixture
def export(engine) -> ExportHandlers:
    return ExportHandlers(engine, JobHandlers(engine, Turns()))


def form(**changes) -> list:
    assert tuple(GOOD) == FORM
    return list({**GOOD, **changes}.values())


def described(
    export: ExportHandlers, visitor: Visitor, jobs=None, offered=("writer_refit",), **changes
) -> dict:
    asked = (visitor, jobs or dict(NO_JOBS), list(offered), *form(**changes))
    update = export.describe(Call("s"), *asked)
    to_outputs(DESCRIBED, update)
    return update


def test_the_settings_become_the_request_they_show(engine, visitor):
    request = request_of(engine, visitor, *form(
        export_mode="custom", export_fix="ridge", export_llama=True, export_text="own",
        export_samples=24, export_seq_len=256, export_skip=3, export_held=4, export_seed=7,
        shown_samples=5, shown_seq_len=128,
    ))  # fmt: skip
    assert request.plan == visitor.plan() and request.mode == "custom"
    # A custom export carries what has no place in its family, so it is no Llama.
    assert request.as_llama is False
    assert request.repair.corrections == ("ridge",) and request.repair.n_skip == 3
    assert request.repair.n_held == 4
    assert request.repair.text == ScoreRequest(calibration="own", n_samples=24, seq_len=256, seed=7)
    assert request.evaluation == ScoreRequest(n_samples=5, seq_len=128, seed=7)
    assert request_of(engine, visitor, *form(export_fix="none")).repair is None


@pytest.mark.parametrize(
    ("name", "forged"),
    [
        ("export_mode", "zip"), ("export_mode", None), ("export_mode", ["custom"]),
        ("export_fix", "all"), ("export_fix", "auto"), ("export_fix", 3),
        ("export_text", "/etc/passwd"), ("export_text", "upload"), ("export_samples", 0),
        ("export_samples", 65), ("export_seq_len", 513), ("export_skip", -1), ("export_held", 1.5),
        ("export_seed", math.nan), ("shown_text", "c4"), ("shown_samples", "16"),
        ("shown_seq_len", 1),
    ],
)  # fmt: skip
def test_forged_settings_start_nothing_and_are_described(name, forged):
    engine = FakeEngine(step=0.0, is_ready=True, mode="hosted")
    visitor = Visitor(model_key=engine.model_key, removed=REMOVED)
    export = ExportHandlers(engine, JobHandlers(engine, Turns()))
    with pytest.raises(BlockvizError):
        export.start(Call("s"), visitor, dict(NO_JOBS), *form(**{name: forged}))
    assert not engine.calls
    assert described(export, visitor, **{name: forged})["export_says"]["text"]


def test_a_plan_without_cuts_is_not_written_and_the_button_says_so(engine, export):
    visitor = Visitor(model_key=engine.model_key, removed=())
    button = described(export, visitor)["start_export"]
    assert button["value"] == "Nothing is removed yet" and not button["interactive"]
    with pytest.raises(BlockvizError, match="Nothing is removed yet"):
        export.start(Call("s"), visitor, dict(NO_JOBS), *form())


def with_table(engine: FakeEngine, visitor: Visitor, **changes) -> Visitor:
    table = make_repair(engine.info, RepairRequest(visitor.plan(), ("writer_refit", "asc")))
    engine._repairs["repaired"] = replace(table, **changes)
    return replace(visitor, repairs=("repaired",))


def test_the_best_that_repair_found_is_written_and_none_where_all_do_harm(engine, export, visitor):
    fix = described(export, visitor)["export_fix"]
    assert fix["value"] == "writer_refit"
    who = with_table(engine, visitor, best="asc")
    found = described(export, who)
    assert found["export_fix"]["value"] == found["export_offered"][0] == "asc"
    # What was chosen by hand stays.
    assert described(export, who, export_fix="mean")["export_fix"]["value"] == "mean"
    # Windows were held out, and nothing was better on them than the bare plan.
    who = with_table(engine, visitor, best="")
    found = described(export, who)
    assert found["export_fix"]["value"] == "none" and found["export_offered"][0] == "none"
    rows = engine._repairs["repaired"].rows
    unheld = [replace(row, selection=None) for row in rows]
    who = with_table(engine, visitor, best="", rows=tuple(unheld))
    assert described(export, who)["export_fix"]["value"] == "writer_refit"
    unheld[2] = replace(unheld[2], nll=rows[1].nll + 0.1)
    who = with_table(engine, visitor, best="", rows=tuple(unheld))
    assert described(export, who)["export_fix"]["value"] == "none"


def test_every_way_to_write_says_what_it_saves(engine, export, visitor):
    """18.attn, 7.attn and 7.mlp hold 4 425 984 of 134 529 024: 3.3 %."""
    found = described(export, visitor)
    labels = {value: label for label, value in found["export_mode"]["choices"]}
    assert labels["custom"].startswith("With a modelling file (−3.3")
    assert "−1.6" in labels["stock-compact"]
    assert "saves nothing" in labels["stock-zeroed"]
    cards = engine.export_modes(visitor.plan())
    refused = tuple(replace(c, refused="A norm follows.") for c in cards)
    assert all("not of this plan" in label for label, _ in mode_choices(refused))
    request = request_of(engine, visitor, *form())
    assert said(engine, request, refused)["note"] == "A norm follows."
    assert "again from the written files" in said(engine, request, cards)["text"]


def test_an_export_starts_one_job_and_a_second_one_waits(engine, export, visitor):
    export.start(Call("s"), visitor, dict(NO_JOBS), *form())
    assert engine.calls == ["export stock-compact"]
    slow = FakeEngine(step=5.0, is_ready=True)
    other = ExportHandlers(slow, JobHandlers(slow, Turns()))
    begun = other.start(Call("s"), visitor, dict(NO_JOBS), *form())
    with pytest.raises(BlockvizError, match="still"):
        other.start(Call("s"), visitor, begun["jobs"], *form())
    assert begun["export_note"]["text"].startswith("Writing:")


def kept(engine: FakeEngine, visitor: Visitor, folder: Path, *, is_whole: bool = True) -> Visitor:
    report = make_report(engine.info, request_of(engine, visitor, *form()))
    found = make_exported(report, folder) if is_whole else Exported(report)
    engine._exports["mine"] = found
    return replace(visitor, export_key="mine")


def test_the_file_is_offered_with_its_checks(engine, export, visitor, tmp_path):
    found = export.draw(Call("s"), kept(engine, visitor, tmp_path), dict(NO_JOBS))
    to_outputs(export_cards.OUTPUTS, found)
    assert found["export_file"]["interactive"]
    assert found["export_file"]["value"].endswith(".zip")
    view = found["export_checks"]
    assert "10 of 10 checks passed" in view["lead"]
    assert [row["state"] for row in view["rows"]] == ["passed"] * 10
    facts = {fact["name"]: fact["value"] for fact in view["facts"]}
    n = engine.info.n_layers
    assert facts["Layers"].startswith(f"{n - 1}, with {n - 1} attention and {n} MLP blocks")
    assert facts["Perplexity"].startswith("32.9 → 41.2 (+25.1")
    assert "from_pretrained" in view["code"] and "trust_remote_code" not in view["code"]
    assert not found["export_note"]["text"]
    assert found["model_card"]["visible"] and "without 3 blocks" in found["model_card"]["value"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e, v, f: replace(kept(e, v, f), removed=("3.attn",)), "another set is off"),
        (lambda e, v, f: kept(e, v, f, is_whole=False), "stopped before its checks"),
        (lambda e, v, f: v, ""),
    ],
)
def test_what_is_stale_or_stopped_says_so(engine, export, visitor, tmp_path, change, words):
    found = export.draw(Call("s"), change(engine, visitor, tmp_path), dict(NO_JOBS))
    assert words in found["export_note"]["text"]


def test_a_file_that_was_deleted_is_not_offered(engine, export, visitor, tmp_path):
    mine = kept(engine, visitor, tmp_path)
    engine.exported("mine").archive.unlink()
    found = export.draw(Call("s"), mine, dict(NO_JOBS))
    assert found["export_file"]["value"] is None and not found["export_file"]["interactive"]
    assert "deleted since" in found["export_note"]["text"]


def test_a_failed_export_says_why_and_offers_nothing(engine, visitor, tmp_path):
    mine = kept(engine, visitor, tmp_path, is_whole=False)
    job = JobView("j", "export", "failed", error="The check 'logits' failed: off by 1.")
    found = export_cards.drawn(engine, mine, job)
    assert "The check 'logits' failed" in found["export_note"]["text"]
    assert not found["export_file"]["interactive"]


def test_failed_and_waiting_checks_are_told_apart_by_words(engine, visitor):
    report = make_report(engine.info, request_of(engine, visitor, *form()))
    rows = (CheckRow("a", "A", passed=False, detail="x"), CheckRow("b", "B"))
    view = export_cards.checks_view(Exported(replace(report, rows=rows)))
    assert [row["state"] for row in view["rows"]] == ["failed", "waits"]
    assert "0 of 2" in view["lead"] and view["code"] == ""


def test_a_poll_shows_checks_as_they_come(engine, visitor, tmp_path):
    mine = kept(engine, visitor, tmp_path)
    job = JobView("j", "export", "running", partial={"export_key": "mine", "warning": ""})
    assert with_found(engine, visitor, job).export_key == "mine"
    assert with_found(engine, mine, job) is mine
    assert step_of(engine, job) == {"found": "export", "step": "mine 11"}
    other = JobView("j", "export", "running", partial={"export_key": "nobody's"})
    assert with_found(engine, visitor, other) is visitor


def test_hostile_words_are_made_visible(visitor):
    engine = FakeEngine(step=0.0, is_ready=True, is_hostile=True)
    visitor = replace(visitor, model_key=engine.model_key)
    report = make_report(engine.info, request_of(engine, visitor, *form()), note=HOSTILE)
    assert "\u202e" not in str(export_cards.checks_view(Exported(report)))


def test_exports_wait_in_folders_that_nobody_can_guess(tmp_path):
    now = [0.0]
    exports = Exports(tmp_path / "root", clock=lambda: now[0])
    first = exports.begin("a")
    assert len(first.name) >= 20 and exports.begin("b") != first and first.is_dir()
    second = exports.begin("a")
    assert not first.exists() and second.is_dir()
    exports.finish(second)
    now[0] += 29 * 60
    exports.begin("c")
    assert second.is_dir()
    now[0] += 60
    exports.sweep()
    assert not second.exists()


def test_exports_are_deleted_by_a_clock_that_never_jumps_and_without_a_next_one(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(exports_module, "SWEEP_SECONDS", 0.01)
    now = [0.0]
    left = tmp_path / "root" / "left by an earlier process"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    exports = Exports(tmp_path / "root", clock=lambda: now[0])
    written, whole = exports.begin("a"), exports.begin("b")
    exports.finish(whole)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    exports.sweep()
    assert left.exists() and whole.exists()
    now[0] += 30 * 60
    until = time.monotonic() + 30
    while (whole.exists() or left.exists()) and time.monotonic() < until:
        threading.Event().wait(0.01)
    assert list((tmp_path / "root").iterdir()) == [written], "what is still being written stays"
    exports.drop(written)
    assert exports._watch is None


def test_what_a_local_app_has_written_stays_until_it_is_closed(tmp_path):
    now = [0.0]
    left = tmp_path / "root" / "left by an earlier app"
    left.mkdir(parents=True)
    exports = Exports(tmp_path / "root", clock=lambda: now[0], keep_seconds=math.inf)
    exports.sweep()
    mine = exports.begin("a")
    exports.finish(mine)
    now[0] += 1e6
    exports.sweep()
    assert mine.is_dir() and not left.exists()
    exports.drop(mine)


def test_an_archive_holds_the_files_as_they_are(engine, visitor, tmp_path):
    import zipfile

    folder = tmp_path / "blockviz-demo-3of60"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 9)
    (folder / "README.md").write_text("# A card")
    report = make_report(engine.info, request_of(engine, visitor, *form()))
    found = run(archive(folder, report))
    assert not folder.exists() and found.card == "# A card"
    assert found.n_bytes == found.archive.stat().st_size
    with zipfile.ZipFile(found.archive) as opened:
        assert opened.read("blockviz-demo-3of60/model.safetensors") == bytes(range(256)) * 9
        assert {i.compress_type for i in opened.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("HuggingFaceTB/SmolLM2-135M", "blockviz-smollm2-135m-14of60"),
        ("../../etc/pass wd<img>", "blockviz-pass-wd-img-14of60"),
        ("…", "blockviz-model-14of60"),
    ],
)
def test_the_name_of_a_file_is_plain(model, name):
    assert archive_name(model, 14, 60) == name
    assert archive_name(model, 14, 60, "custom") == f"{name}-custom"


def pushes(
    export: ExportHandlers, visitor: Visitor, token: str, repo="ada/smaller", is_private=None
):
    return export.push(Call("s", token=token), visitor, dict(NO_JOBS), repo, is_private)


def test_a_push_is_in_the_name_of_who_signed_in(engine, export, visitor, tmp_path):
    mine = kept(engine, visitor, tmp_path)
    with pytest.raises(BlockvizError, match="Nobody has signed in"):
        pushes(export, mine, "")
    update = pushes(export, mine, "secret")
    to_outputs(("jobs", "browser", "job", "timer", "error", *export_cards.OUTPUTS), update)
    assert engine.calls == ["push ada/smaller private secret"]
    assert "secret" not in repr(Call("s", token="secret"))
    with pytest.raises(BlockvizError):
        pushes(export, mine, "secret", repo=["ada/smaller"])


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (JobView("j", "push", "running"), "Pushing: a repository appears once"),
        (JobView("j", "push", "done", result={"pushed": "https://h/ada/x"}), "Pushed to https://h"),
        (JobView("j", "push", "failed", error="Refused."), "Nothing was pushed. Refused."),
        (JobView("j", "push", "cancelled"), "Nothing was pushed."),
    ],
)
def test_where_a_push_is_stands_beside_the_file(engine, visitor, tmp_path, job, words):
    found = export_cards.drawn(engine, kept(engine, visitor, tmp_path), job)
    assert words in found["export_note"]["text"] and found["export_file"]["interactive"]


def test_sign_in_is_offered_on_a_space_that_has_it_and_nowhere_else(engine, monkeypatch):
    """Elsewhere gradio's button would lend everybody the token of the machine."""
    monkeypatch.setenv("SYSTEM", "spaces")
    # Gradio reads these once, when it is imported.
    for name in ("CLIENT_ID", "CLIENT_SECRET", "SCOPES"):
        monkeypatch.setattr(gradio.oauth, f"OAUTH_{name}", "x")
    monkeypatch.setattr(gradio.oauth, "OPENID_PROVIDER_URL", "https://hub.example")
    for space, client, is_there in (("", "", False), ("me/space", "", False),
                                    ("me/space", "id", True)):  # fmt: skip
        monkeypatch.setenv("SPACE_ID", space)
        monkeypatch.setenv("OAUTH_CLIENT_ID", client)
        app = build_app(engine)
        kinds = [type(block).__name__ for block in app.blocks.values()]
        assert ("LoginButton" in kinds) == is_there
