"""Exports: what is in the folder loads elsewhere, is what was shown, and is known if spoilt."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from export_checks import check_here

from blockviz.corrections import Correction, Mean, Ridge, WriterRefit, fit, repaired_model
from blockviz.errors import BadInput, BadSource, ExportMismatch, OverLimit, UnsupportedModel
from blockviz.export import assembled, no_repair, verify, write_weights
from blockviz.models.model import BlockModel
from blockviz.session import export_folder, exporting
from blockviz.session.export_facts import mode_cards
from blockviz.session.export_folder import beside, check_target
from blockviz.session.export_views import ExportRequest
from blockviz.session.exporting import check_export, export_request
from blockviz.session.opening import open_model
from blockviz.session.repair_state import save_repair
from blockviz.session.repair_views import RepairRequest
from blockviz.session.views import ScoreRequest
from blockviz.types import Done, ExportReport, Provenance, run

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = tuple(case for case in tiny.EVERY if case != "gemma3-softcap")
PLANS = {
    "layers": ("1.layer", "3.layer"),
    "attention": ("0.attn", "2.attn"),
    "mlp": ("1.mlp", "2.mlp"),
    "mixed": ("0.attn", "1.layer", "3.mlp"),
}

# Loads every folder as a stranger would, and says what its logits and its texts are. Each line of
# folders is read by a process of its own, which finds transformers imported and nothing else.
STRANGER = """
import json, os, sys, torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)

def read(folder, is_custom):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=is_custom, output_loading_info=True)
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    ids = torch.arange(6)[None] + 3
    how = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "use_cache": True}
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0].tolist()
        texts = [model.generate(ids, **{**how, "use_cache": c})[0].tolist() for c in (True, False)]
    return {"wrong": list(map(str, wrong)), "logits": logits, "texts": texts,
            "class": type(model).__name__}

for line in sys.stdin:
    if os.fork() == 0:
        found = {folder: read(folder, is_custom) for folder, is_custom in json.loads(line).items()}
        print(json.dumps(found), flush=True)
        os._exit(0)
    if os.wait()[1]:
        print("null", flush=True)
"""


def provenance() -> Provenance:
    return Provenance(data=None, model="m", revision="", quantisation="", dtype="float32",
                      device="cpu", threads=1, versions={})  # fmt: skip


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[dict], dict]]:
    """What plain transformers finds in folders -> whether their code may run."""
    home = str(tmp_path_factory.mktemp("stranger"))
    process = subprocess.Popen(
        [sys.executable, "-c", STRANGER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HOME": home, "HF_HUB_OFFLINE": "1"},
    )

    def ask(folders: dict[str, bool]) -> dict[str, Any]:
        print(json.dumps(folders), file=process.stdin, flush=True)
        found = json.loads(process.stdout.readline())
        assert found is not None, "the stranger ended with the error above"
        return found

    with process:
        yield ask


def loads_elsewhere(
    case: str,
    stranger: Callable[[dict], dict],
    folder: Path,
    *,
    plans: Iterable[str],
    corrections: tuple[Correction | None, ...],
) -> None:
    """Each mode, plan and repair: nothing missing, the same logits, a cache that is right.

    Stock modes run no code of the folder."""
    model, expected, folders = tiny.model(case), {}, {}
    ids = torch.arange(6)[None] + 3
    for name in plans:
        for correction in corrections:
            plan = tiny.plan(*PLANS[name])
            try:
                repair = no_repair(plan) if correction is None else run(
                    fit(model, plan, correction, tiny.windows(8, 20)))  # fmt: skip
            except UnsupportedModel:
                continue
            for mode in ("stock-compact", "stock-zeroed", "custom"):
                try:
                    found = assembled(model, repair, mode)
                except UnsupportedModel:
                    continue
                place = folder / f"{case}-{name}-{correction and correction.name}-{mode}"
                place.mkdir()
                write_weights(place, found, tiny.tokenizer())
                with torch.inference_mode():
                    hooked = repaired_model(model, repair)
                    expected[str(place)] = hooked.module(input_ids=ids).logits[0]
                folders[str(place)] = mode == "custom"
    for name in plans:
        assert f"{folder}/{case}-{name}-None-custom" in folders
    if "layers" in plans:
        assert f"{folder}/{case}-layers-None-stock-compact" in folders
    for place, found in stranger(folders).items():
        assert found["wrong"] == []
        assert tiny.distance(torch.tensor(found["logits"]), expected[place]) < 1e-5, place
        assert found["texts"][0] == found["texts"][1]
        is_custom = place.endswith("custom")
        assert (found["class"] == "BlockvizForCausalLM") == is_custom


@pytest.mark.parametrize("case", tiny.rest_slow(FAMILIES, "export", "models", "corrections"))
def test_t_exp_2_every_export_loads_in_plain_transformers(
    case: str, stranger: Callable[[dict], dict], tmp_path: Path
):
    corrections = (None, WriterRefit(), Ridge())
    loads_elsewhere(case, stranger, tmp_path, plans=PLANS, corrections=corrections)


@pytest.mark.parametrize("case", [case for case in FAMILIES if case not in tiny.STRUCTURAL])
def test_t_exp_2_every_family_s_export_loads_in_plain_transformers(
    case: str, stranger: Callable[[dict], dict], tmp_path: Path
):
    """Whole layers, which every family can have packed, and half layers."""
    plans, corrections = ("layers", "mixed"), (None,)
    loads_elsewhere(case, stranger, tmp_path, plans=plans, corrections=corrections)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    check_here(monkeypatch)


@pytest.fixture
def words(tmp_path: Path) -> ScoreRequest:
    path = tmp_path / "words.txt"
    path.write_text(" ".join(f"w{i * 7 % tiny.VOCAB}" for i in range(600)), encoding="utf-8")
    return ScoreRequest(calibration=str(path), n_samples=3, seq_len=16)


def written(model: BlockModel, words: ScoreRequest, folder: Path, **how: Any) -> ExportReport:
    plan = tiny.plan(*how.pop("removed", ("1.attn", "2.layer")))
    return run(export_request(model, ExportRequest(plan, folder, evaluation=words, **how)))


@pytest.mark.parametrize("mode", ["stock-compact", "custom"])
def test_what_is_written_passes_its_own_checks(mode, words: ScoreRequest, tmp_path: Path):
    model = tiny.model("llama")
    repair = RepairRequest(tiny.plan("1.attn", "2.layer"), ("ridge",), text=words, n_held=0)
    if mode != "custom":
        repair = replace(repair, corrections=("writer_refit",))
    found = written(model, words, tmp_path / "out", mode=mode, repair=repair)
    names = [row.name for row in found.rows]
    assert names == ["fold", "files", "sums", "load", "layers", "parameters", "logits",
                     "tokenizer", "perplexity", "cache"]  # fmt: skip
    assert found.is_passed and all(row.detail for row in found.rows)
    n_layers = {"custom": 2, "stock-compact": 3}[mode]
    assert found.layers == f"{n_layers}, with 2 attention and 3 MLP blocks"
    assert ExportReport.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert all(row.passed for row in verify(tmp_path / "out"))
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1
    # Nothing else is left: no half-written folder, no module of another's cache.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "words.txt"]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"{found.perplexities['exported']:.4f}" in card
    again = run(open_model(str(tmp_path / "out"), dtype="float32"))
    assert again.info.n_parameters == found.n_parameters


def spoilt_bytes(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 0x40
    path.write_bytes(data)


def spoilt_config(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["rms_norm_eps"], config["num_key_value_heads"]
    path.write_text(json.dumps(config))


def swapped_layers(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    other = {"0": "1", "1": "0"}
    renamed = {}
    for name, tensor in tensors.items():
        head, _, rest = name.partition("model.layers.")
        index, _, tail = rest.partition(".")
        renamed[f"{head}model.layers.{other.get(index, index)}.{tail}" if rest else name] = tensor
    save_file(renamed, path, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good")
    path = root / "words.txt"
    path.write_text(" ".join(f"w{i * 7 % tiny.VOCAB}" for i in range(600)), encoding="utf-8")
    text = ScoreRequest(calibration=str(path), n_samples=2, seq_len=16)
    with pytest.MonkeyPatch.context() as patch:
        check_here(patch)
        written(tiny.model("llama"), text, root / "out")
    return root / "out"


@pytest.mark.parametrize(
    ("spoil", "failing"),
    [
        (spoilt_bytes, {"sums"}),
        (spoilt_config, {"sums"}),
        (swapped_layers, {"sums", "logits"}),
        (lambda f: (f / "tokenizer.json").unlink(), {"sums"}),
        (lambda f: (f / "README.md").unlink(), {"files", "sums"}),
        (lambda f: (f / "model.bin").write_bytes(b"x"), {"files", "sums"}),
        (lambda f: (f / "run_me.py").write_text("x = 1"), {"files", "sums"}),
    ],
    ids=["a byte", "config", "swapped", "tokenizer", "card", "pickle", "code"],
)
def test_verify_names_what_is_wrong(spoil, failing: set[str], good: Path, tmp_path: Path):
    folder = tmp_path / "copy"
    shutil.copytree(good, folder)
    assert all(row.passed for row in verify(folder))
    spoil(folder)
    rows = {row.name: row.passed for row in verify(folder)}
    assert {name for name, passed in rows.items() if passed is False} >= failing


def test_swapped_layers_are_known_by_their_logits_when_the_sums_were_renewed(
    good: Path, tmp_path: Path
):
    folder = tmp_path / "copy"
    shutil.copytree(good, folder)
    swapped_layers(folder)
    import hashlib

    lines = (folder / "SHA256SUMS").read_text().splitlines()
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    renewed = [f"{digest}  model.safetensors" if "model.safetensors" in x else x for x in lines]
    (folder / "SHA256SUMS").write_text("\n".join(renewed) + "\n")
    failed = {row.name for row in verify(folder) if row.passed is False}
    assert failed == {"logits"}


def test_a_folder_that_is_no_export_is_refused(tmp_path: Path):
    with pytest.raises(BadSource, match=r"blockviz_recipe\.json"):
        list(verify(tmp_path))


@pytest.mark.usefixtures("here")
def test_a_check_that_fails_leaves_nothing(words: ScoreRequest, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(exporting, "_bound", lambda *_: -1.0)
    with pytest.raises(ExportMismatch, match="'fold' failed"):
        written(tiny.model("llama"), words, tmp_path / "out")
    monkeypatch.undo()
    check_here(monkeypatch)
    real = exporting.write_texts

    def wrong(folder: Path, *args: Any, **how: Any) -> None:
        real(folder, *args, **how)
        (folder / "added_later.txt").write_text("x")

    monkeypatch.setattr(exporting, "write_texts", wrong)
    with pytest.raises(ExportMismatch, match="'sums' failed"):
        written(tiny.model("llama"), words, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["words.txt"]


def test_a_cancelled_export_leaves_nothing_and_a_killed_one_is_cleared_away(
    words: ScoreRequest, tmp_path: Path, monkeypatch
):
    request = ExportRequest(tiny.plan("1.attn"), tmp_path / "out", evaluation=words)
    events = export_request(tiny.model("llama"), request)
    for event in events:
        assert not isinstance(event, Done)
        if event.stage == "checking the files":
            break
    (hidden,) = (p.name for p in tmp_path.iterdir() if p.name.startswith(".blockviz-"))
    events.close()
    assert [p.name for p in tmp_path.iterdir()] == ["words.txt"]
    done = subprocess.Popen([sys.executable, "-c", "pass"])
    done.wait()
    (tmp_path / f"{hidden.rpartition('-')[0]}-{done.pid}").mkdir()
    check_here(monkeypatch)
    run(export_request(tiny.model("llama"), request))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "words.txt"]


def test_the_second_export_to_one_folder_is_refused_before_its_work(
    words: ScoreRequest, tmp_path: Path, monkeypatch
):
    request = ExportRequest(tiny.plan("1.attn"), tmp_path / "out", evaluation=words)
    first = export_request(tiny.model("llama"), request)
    next(first)
    taken = "Another export is being written there now. Wait until it is done"
    with pytest.raises(BadInput, match=taken):
        check_target(request.folder)
    with pytest.raises(BadInput, match=taken):
        next(export_request(tiny.model("llama"), request))
    first.close()
    assert [p.name for p in tmp_path.iterdir()] == ["words.txt"]
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    claim = export_folder._head(request.folder)
    (tmp_path / f"{claim}{other.pid}").mkdir()
    with pytest.raises(BadInput, match=taken), beside(request.folder):
        pass
    other.communicate(b"\n")
    (tmp_path / f"{claim}{os.getpid()}").mkdir()
    check_target(request.folder)
    with beside(request.folder) as partial:
        assert not list(partial.iterdir())
    assert [p.name for p in tmp_path.iterdir()] == ["words.txt"]


def test_bad_requests_are_refused_before_any_work(words: ScoreRequest, tmp_path: Path, monkeypatch):
    plan = tiny.plan("1.attn")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    for request, said in (
        (ExportRequest(plan, tmp_path / "full"), "is there already"),
        (ExportRequest(plan, tmp_path / "no" / "out"), "parent is missing"),
        (ExportRequest(plan, tmp_path / "out", mode="zip"), "no such mode"),
        (ExportRequest(plan, tmp_path / "out", mode="custom", as_llama=True), "Llama"),
        (
            ExportRequest(plan, tmp_path / "out", repair=RepairRequest(plan, ("asc", "mean"))),
            "one correction",
        ),
    ):
        with pytest.raises(BadInput, match=said):
            check_export(request)
            check_target(request.folder)

    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(OverLimit, match="free on that disk"):
        written(tiny.model("llama"), words, tmp_path / "out")


@pytest.mark.usefixtures("here")
def test_a_saved_state_is_written_with_its_plan(words: ScoreRequest, tmp_path: Path):
    model = tiny.model("llama")
    repair = run(fit(model, tiny.plan("1.attn", "2.mlp"), Mean(), tiny.windows(8, 20)))
    save_repair(tmp_path / "state", model, repair, provenance())
    request = ExportRequest(
        tiny.plan(), tmp_path / "out", state=tmp_path / "state", evaluation=words
    )
    found = run(export_request(model, request))
    assert found.removed == ("1.attn", "2.mlp") and found.correction == "mean"
    other = replace(request, plan=tiny.plan("3.mlp"), folder=tmp_path / "two")
    with pytest.raises(BadInput, match="was fitted on a plan"):
        run(export_request(model, other))


def test_what_each_mode_stores_is_known_before():
    """0A 1M 2A 2M 3M of four layers: three layers packed, four silenced, five blocks as custom."""
    model = tiny.model("llama")
    cards = {c.mode: c for c in mode_cards(model, tiny.plan("0.mlp", "1.attn", "3.attn"))}
    attn, mlp = (model.info.parameters_of(tiny.ids(f"1.{p}")) for p in ("attn", "mlp"))
    n = model.info.n_parameters
    assert cards["stock-compact"].n_parameters == n - attn - mlp
    assert cards["stock-zeroed"].n_parameters == n
    assert cards["custom"].n_parameters == n - 2 * attn - mlp
    post_normed = {c.mode: c for c in mode_cards(tiny.model("gemma3"), tiny.plan("0.mlp"))}
    assert post_normed["stock-compact"].n_parameters == tiny.model("gemma3").info.n_parameters


@pytest.mark.usefixtures("here")
def test_whole_layers_can_be_cut_by_other_tools_too(words: ScoreRequest, tmp_path: Path):
    model = tiny.model("llama")
    model.info = replace(model.info, name="owner/name", license="Apache-2.0")
    written(model, words, tmp_path / "out", removed=("1.layer", "3.layer"))
    assert "--prune-layers 1,3" in (tmp_path / "out" / "how_to_load.md").read_text()
    lines = (tmp_path / "out" / "mergekit.yml").read_text().splitlines()
    assert [x.split(": ")[1] for x in lines if "layer_range" in x] == ["[0, 1]", "[2, 3]"]
    front = (tmp_path / "out" / "README.md").read_text().split("---")[1]
    assert 'license: "apache-2.0"' in front and 'base_model: "owner/name"' in front


@pytest.mark.usefixtures("here")
def test_names_of_others_stay_text_in_the_card(words: ScoreRequest, tmp_path: Path):
    model = tiny.model("llama")
    model.info = replace(model.info, name="a/<img src=x>`b`|\n# c", license="x\ny: z")
    written(model, words, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    outside = text.split("---", 2)[2].replace("`a/<img src=x> b # c`", "")
    assert not re.search(r"(?<!\\)<", outside)
    assert "\n# c" not in text
    assert 'license: "x\\ny: z"' in text


@pytest.mark.usefixtures("here")
def test_the_app_s_job_leaves_a_zip_that_loads(words: ScoreRequest, tmp_path: Path, monkeypatch):
    """What a visitor fetches, unpacked, passes every check; the folder it came from is gone."""
    import zipfile

    from blockviz.session import Engine

    monkeypatch.setattr("blockviz.session.engine.cache_dir", lambda: tmp_path / "cache")
    engine = Engine(mode="local")
    engine._model, engine._live = tiny.model("llama"), object()
    request = ExportRequest(tiny.plan("1.attn", "2.mlp"), Path("/nowhere"), evaluation=words)
    job = engine.jobs.wait(engine.start_export(request, owner="me"), 120)
    assert job.state == "done", job.error
    found = engine.exported(job.result["export_key"])
    assert found.archive.is_relative_to(engine.export_root)
    assert [p.name for p in found.archive.parent.iterdir()] == [found.archive.name]
    with zipfile.ZipFile(found.archive) as opened:
        opened.extractall(tmp_path / "out")
    assert all(row.passed for row in verify(tmp_path / "out" / found.archive.stem))
    engine.close()


@pytest.mark.usefixtures("here")
def test_speed_is_timed_in_turns_and_exports_beside_the_rows(words: ScoreRequest, tmp_path: Path):
    from blockviz.session.evaluation import evaluate_request
    from blockviz.session.speeding import SpeedRequest

    model, plan = tiny.model("llama"), tiny.plan("1.attn", "2.mlp")
    written(model, words, tmp_path / "out", removed=("1.attn", "2.mlp"), mode="custom")
    asked = SpeedRequest(repeats=2, n_prompt=8, n_new=4, exported=(tmp_path / "out",))
    report = run(evaluate_request(model, words, plan, speed=asked))
    assert list(report["speed"]) == ["original", "pruned", "exported out"]
    whole, pruned, again = report["speed"].values()
    assert whole["decode_speedup"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    # Keys and values of 2 heads of 8 numbers in float32, a layer: 128 bytes; one block is gone.
    per_layer = 2 * 2 * 8 * 4
    assert whole["kv_bytes_per_token_held"] == pytest.approx(4 * per_layer)
    assert again["kv_bytes_per_token_held"] == pytest.approx(3 * per_layer)
    assert report["rows"][1]["decode_tokens_per_second"] == pruned["decode_tokens_per_second"] > 0
    with pytest.raises(BadInput, match="least is 2"):
        run(evaluate_request(model, words, plan, speed=SpeedRequest(repeats=1)))
    with pytest.raises(BadInput, match="no config"):
        SpeedRequest(exported=(tmp_path,)).check()
