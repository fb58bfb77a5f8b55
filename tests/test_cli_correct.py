"""The command correct, and corrections in evaluate and generate, on a tiny model in a folder."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import tiny
import torch
from test_cli import folder, own_cache, refusal, task_rows, text

from blockviz.cli import main, repair_commands
from blockviz.corrections import CORRECTIONS, fit, repaired_model
from blockviz.session.repair_state import load_repair
from blockviz.settings import parse_method
from blockviz.types import CalibrationSet, RepairTable, run

__all__ = ["folder", "own_cache", "text"]

FIT = ("--fit-samples", "12", "--fit-seq-len", "32", "--dtype", "float32")
DATA = ("--n-samples", "5", "--seq-len", "24")
PLAN = ("--remove", "1.attn,2.mlp")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A text that nothing is fitted on."""
    ids = torch.randint(tiny.VOCAB, (300,), generator=torch.Generator().manual_seed(8)).tolist()
    path = tmp_path / "other.txt"
    path.write_text(" ".join(f"w{i}" for i in ids), encoding="utf-8")
    return path


@pytest.fixture
def own_words(tmp_path: Path) -> Path:
    """Twenty windows of 32 words that the tiny model wrote: on them a cut costs, a repair pays."""
    model, generator = tiny.model("llama").module, torch.Generator().manual_seed(2)
    ids = torch.randint(tiny.VOCAB, (20, 1), generator=generator)
    with torch.no_grad():
        for _ in range(31):
            chances = (2 * model(input_ids=ids).logits[:, -1]).softmax(-1)
            ids = torch.cat([ids, torch.multinomial(chances, 1, generator=generator)], dim=1)
    path = tmp_path / "own.txt"
    path.write_text(" ".join(f"w{i}" for i in ids.flatten().tolist()), encoding="utf-8")
    return path


def common(folder: Path, text: Path, other: Path) -> list[str]:
    names = ["--model", str(folder), "--calibration", str(text), "--data", str(other)]
    return [*names, *PLAN, *FIT, *DATA]


def windows(text: Path, first: int, n: int, seq_len: int) -> torch.Tensor:
    ids = tiny.tokenizer()(text.read_text())["input_ids"]
    return torch.tensor(ids[first * seq_len : (first + n) * seq_len]).view(n, seq_len)


def losses(model: torch.nn.Module, rows: torch.Tensor) -> list[float]:
    """Mean loss of each window, by transformers' own loss."""
    with torch.no_grad():
        return [model(input_ids=r[None], labels=r[None]).loss.item() for r in rows]


def corrected(name: str, rows: torch.Tensor) -> torch.nn.Module:
    """The tiny model with a correction of the plan that was fitted on these windows."""
    model, origin = tiny.model("llama"), tiny.windows().origin
    fit_set = CalibrationSet(rows, torch.ones_like(rows, dtype=torch.bool), origin)
    plan = tiny.plan("1.attn", "2.mlp")
    repair = run(fit(model, plan, parse_method(CORRECTIONS, name), fit_set))
    return repaired_model(model, repair).module


def test_correct_equals_a_plain_loop_and_saves_the_state(
    folder: Path, text: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, state = tmp_path / "c.json", tmp_path / "state"
    argv = ["correct", *common(folder, text, other), "--correction", "ridge:ridge=0.5"]
    more = ["--fit-skip", "2", "--fit-held", "3", "--out", str(out), "--state", str(state)]
    assert main([*argv, *more]) == 0
    data = json.loads(out.read_text())
    assert data["schema"] == "blockviz/repair/1" and "partial" not in data
    found = RepairTable.from_json(data)
    assert [row.correction for row in found.rows] == ["original", "none", "ridge:ridge=0.5"]
    repaired = corrected("ridge:ridge=0.5", windows(text, 2, 12, 32))
    expected = losses(repaired, windows(other, 0, 5, 24))
    row = found.rows[2]
    assert row.nll == pytest.approx(sum(expected) / 5, rel=1e-4)
    assert row.stderr == pytest.approx(torch.tensor(expected).std().item() / math.sqrt(5), rel=1e-3)
    held = losses(repaired, windows(text, 14, 3, 32))
    assert row.selection == pytest.approx(sum(held) / 3, rel=1e-4)
    assert row.n_added == 2 * (32 * 32 + 32) and found.best == ""
    assert (found.provenance.data.n_samples, found.evaluation.data.n_samples) == (12, 5)

    model = tiny.model("llama")
    model.info = found_info(folder)
    loaded = repaired_model(model, load_repair(state, model)).module
    assert losses(loaded, windows(other, 0, 5, 24)) == pytest.approx(expected, rel=1e-5)

    shown = capsys.readouterr()
    assert "ridge:ridge=0.5: perplexity" in shown.err
    head, *rows = shown.out.splitlines()
    assert "gap closed" in head and "held-out" in head and "exports as" in head
    assert [line.split()[0] for line in rows[:3]] == [r.correction for r in found.rows]
    assert "modules of its own" in rows[2] and "2,112" in rows[2]
    assert "ridge:ridge=0.5, place by place" in shown.out
    assert f"Saved: ridge:ridge=0.5 in {state}" in shown.out
    places = shown.out.split("place by place")[1].splitlines()[2:4]
    assert [line.split()[:2] for line in places] == [["1.attn", "1.attn"], ["2.mlp", "2.mlp"]]


def found_info(folder: Path):
    """What the command knows of the model: its name is the folder's."""
    from blockviz.session.opening import open_model

    return run(open_model(str(folder), dtype="float32")).info


@pytest.mark.parametrize("words", ["its own", "random"])
def test_auto_chooses_by_the_held_windows_and_says_so(
    words: str,
    folder: Path,
    text: Path,
    own_words: Path,
    other: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, state, pays = tmp_path / "c.json", tmp_path / "state", words == "its own"
    argv = [
        "correct",
        *common(folder, own_words if pays else text, other),
        "--auto",
        "--fit-held",
        "4",
    ]
    assert main([*argv, "--out", str(out), "--state", str(state)]) == 0
    found = RepairTable.from_json(json.loads(out.read_text()))
    rows = found.rows[2:]
    assert len(rows) > 8 and all(row.folds for row in rows)
    assert {"replaceme:ridge=0.1", "writer_refit:writers=gap"} <= {r.correction for r in rows}
    least = min((row for row in rows if not row.refused), key=lambda row: row.selection)
    assert (least.selection < found.rows[1].selection) == pays
    assert found.best == (least.correction if pays else "")
    shown = capsys.readouterr()
    said = f"By 4 windows that nothing was fitted on, of the {len(rows)} of {len(rows)}"
    assert said in " ".join(shown.out.split())
    if pays:
        assert json.loads((state / "repair.json").read_text())["correction"] == found.best
        assert f"without storing more: {found.best}" in " ".join(shown.out.split())
    else:
        assert "none is better there than the bare plan" in " ".join(shown.out.split())
        assert not state.exists() and "nothing is saved" in shown.err


def test_the_evaluation_text_has_no_say_in_the_choice(
    folder: Path, text: Path, other: Path, tmp_path: Path
) -> None:
    best, perplexities = [], []
    for data in (other, text):
        out = tmp_path / "c.json"
        argv = ["correct", *common(folder, text, data), "--correction", "replaceme,writer_refit"]
        assert main([*argv, "--out", str(out)]) == 0
        found = json.loads(out.read_text())
        best.append(found["best"])
        perplexities.append([row["nll"] for row in found["rows"]])
        assert bool(found["warning"]) == (data == text)
    assert best[0] == best[1] and perplexities[0] != perplexities[1]


def test_places_that_are_worse_than_nothing_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from blockviz.types import BlockId, PlaceFit, RepairRow

    def place(layer: int, *errors: float | None) -> PlaceFit:
        block = BlockId(layer, "mlp")
        return PlaceFit(block, (block, BlockId(layer + 1, "attn")), *errors, 1.0, 1.0, 1.0)

    fits = (place(1, 0.5, 0.4, 0.5, 0.6), place(3, 0.5, 0.6, 0.5, 0.4))
    repair_commands.show_places(RepairRow("asc", "", fits=fits))
    shown = capsys.readouterr().out
    assert "1.mlp 1.mlp to 2.attn 0.5000 0.4000 0.5000 0.6000" in " ".join(shown.split())
    assert "Warning: worse than doing nothing behind 1.mlp, on text that it has not seen." in shown
    repair_commands.show_places(RepairRow("asc", "", fits=(place(3, 0.5, 0.6, None, None),)))
    assert "behind 3.mlp, on its text." in capsys.readouterr().out


def test_evaluate_adds_a_row_a_correction(
    folder: Path, text: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, tasks = tmp_path / "r.json", tmp_path / "t.jsonl"
    tasks.write_text("\n".join(json.dumps(row) for row in task_rows(6)), encoding="utf-8")
    argv = ["evaluate", *common(folder, text, other), "--tasks", str(tasks), "--out", str(out)]
    assert main([*argv, "--correction", "none,mean,writer_refit"]) == 0
    report = json.loads(out.read_text())
    rows = report["rows"]
    names = [(row["variant"], row["correction"]) for row in rows]
    assert names[:2] == [("original", "none"), ("pruned", "none")]
    assert names[2:] == [("pruned", "mean"), ("pruned", "writer_refit")]
    whole = sum(losses(tiny.model("llama").module, windows(other, 0, 5, 24))) / 5
    for row in rows[2:]:
        repaired = corrected(row["correction"], windows(text, 0, 12, 32))
        nll = sum(losses(repaired, windows(other, 0, 5, 24))) / 5
        assert row["perplexity"]["value"] == pytest.approx(math.exp(nll), rel=1e-4)
        assert row["perplexity"]["log_rise"] == pytest.approx(nll - whole, abs=1e-4)
        assert row["removed"] == ["1.attn", "2.mlp"]
        assert row["tasks"].keys() == rows[1]["tasks"].keys()
        assert all("change" in entry for entry in row["tasks"].values())
    bare, mean, refit = (row["params"] for row in rows[1:])
    assert mean["total"] == bare["total"] + 64 and mean["added"] == 64
    assert mean["removed_ratio"] == pytest.approx(1 - mean["total"] / rows[0]["params"]["total"])
    assert refit == bare and "refused" not in report
    shown = capsys.readouterr().out
    assert "pruned + mean" in shown and "pruned + writer_refit" in shown

    assert main([*argv, "--correction", "mean"]) == 0
    assert [r["correction"] for r in json.loads(out.read_text())["rows"]] == ["none", "mean"]


def test_evaluate_all_has_every_one_and_says_which_cannot_be(
    text: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "gemma", tmp_path / "r.json"
    tiny.module(*tiny.CASES["gemma3"]).save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    argv = ["evaluate", *common(path, text, other), "--correction", "all", "--out", str(out)]
    assert main(argv) == 0
    report = json.loads(out.read_text())
    measured = [row["correction"] for row in report["rows"]][2:]
    every = {c.name for c in CORRECTIONS.classes() if not c.is_experimental}
    assert {*measured, *report["refused"]} == every and "mean" in measured
    assert "a norm follows it" in report["refused"]["writer_refit"]
    assert "writer_refit: What 0.mlp writes" in capsys.readouterr().out


def test_generate_writes_a_third_text(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "g.json"
    names = ["--model", str(folder), "--calibration", str(text), "--out", str(out)]
    argv = ["generate", *names, *PLAN, *FIT, "--prompt", "w1 w2 w3", "--max-new-tokens", "6"]
    assert main([*argv, "--correction", "ridge"]) == 0
    data = json.loads(out.read_text())
    repaired = corrected("ridge", windows(text, 0, 12, 32))
    ids = [1, 2, 3]
    for _ in range(6):
        with torch.no_grad():
            ids.append(int(repaired(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert data["repaired"] == " ".join(f"w{i}" for i in ids[3:])
    assert data["correction"] == "ridge" and data["repaired"] != data["pruned"]
    assert f"repaired: {data['repaired']}" in capsys.readouterr().out
    assert main(argv) == 0
    assert "repaired" not in json.loads(out.read_text())


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("correct", *PLAN), "--correction --auto is required"),
        (("correct", *PLAN, "--correction", "ridge", "--auto"), "not allowed with"),
        (("correct", *PLAN, "--correction", "ridgee"), "Did you mean 'ridge'"),
        (("correct", *PLAN, "--correction", "ridge:rigde=1"), "no setting"),
        (("correct", *PLAN, "--correction", "none"), "None was named"),
        (("correct", "--auto"), "The plan removes nothing"),
        (("correct", *PLAN, "--auto", "--fit-samples", "0"), "0 windows to fit on"),
        (("correct", *PLAN, "--auto", "--fit-held", "-1"), "-1 windows to hold back"),
        (("correct", *PLAN, "--auto", "--fit-skip", "-1"), "-1 windows to leave out"),
        (("correct", *PLAN, "--auto", "--memory", "lots"), "KiB, MiB or GiB"),
        (("correct", *PLAN, "--auto", "--out", "/no/such/folder/c.json"), "Give --out"),
        (("correct", *PLAN, "--auto", "--state", "/no/such/folder/s"), "new or empty folder"),
        (("correct", *PLAN, "--correction", "mean,ridge", "--state", "s"), "None of them goes"),
        (
            ("correct", *PLAN, "--auto", "--fit-held", "0", "--state", "s"),
            "No window is held back",
        ),
        (("evaluate", *PLAN, "--correction", "none,ridgee"), "Did you mean 'ridge'"),
        (("evaluate", "--correction", "ridge"), "The plan removes nothing"),
        (("generate", *PLAN, "--prompt", "w1", "--correction", "ridgee"), "Did you mean"),
        (("generate", *PLAN, "--prompt", "w1", "--correction", "mean,ridge"), "One of them"),
        (("generate", "--prompt", "w1", "--correction", "mean"), "The plan removes nothing"),
    ],
)
def test_what_cannot_be_is_refused_before_the_model_is_read(
    argv: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *more = argv
    error = refusal(capsys, command, "--model", "no/such-model", *more)
    assert says in error and "no/such-model" not in error


@pytest.mark.parametrize("n_rows", [0, 1, 3])
def test_ctrl_c_keeps_the_rows_done(
    n_rows: int,
    folder: Path,
    text: Path,
    other: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = repair_commands.repair_request

    def stopped(*given: object):
        for event in whole(*given):
            yield event
            if n_rows == 0 or (event.partial and len(event.partial.rows) == n_rows):
                raise KeyboardInterrupt

    monkeypatch.setattr(repair_commands, "repair_request", stopped)
    out = tmp_path / "c.json"
    argv = ["correct", *common(folder, text, other), "--correction", "mean,ridge"]
    assert main([*argv, "--out", str(out)]) == 130
    if n_rows == 0:
        assert not out.exists()
        return
    data = json.loads(out.read_text())
    assert data["partial"] is True and len(data["rows"]) == n_rows
    assert f"{max(0, n_rows - 2)} of 2 corrections" in capsys.readouterr().err
    assert RepairTable.from_json(data).is_partial


def test_info_lists_corrections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "i.json"
    assert main(["info", "--corrections", "--out", str(out)]) == 0
    data, shown = json.loads(out.read_text()), capsys.readouterr().out
    assert data["schema"] == "blockviz/corrections/1"
    assert [c["name"] for c in data["corrections"]] == list(CORRECTIONS.names())
    refit = {c["name"]: c for c in data["corrections"]}["writer_refit"]
    assert refit["parameters"]["writers"]["choices"] == ["gap", "mlp", "all"]
    assert "writers=all (gap, mlp, all)" in shown and "exports as modules of its own" in shown
    assert all(c["title"] in shown and c["meaning"] in shown for c in data["corrections"])
