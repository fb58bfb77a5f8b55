"""The commands search and pairs on a tiny model: plans, presets, refusals, going on, processes."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny
import torch
import warm
from test_cli import folder, own_cache, refusal, task_rows, text

from blockviz.cli import main, search_commands
from blockviz.cli.option_groups import n_bytes
from blockviz.errors import BadInput
from blockviz.json_files import unsealed
from blockviz.search import PRESETS, STRATEGIES
from blockviz.session.processes import ALONE, Shares, open_shares, shared
from blockviz.session.recipes import departures, filled_request
from blockviz.session.search_views import SearchRequest
from blockviz.types import BlockId, Interactions, PruningPlan, SearchRun

__all__ = ["folder", "own_cache", "text"]

ROOT = Path(__file__).parents[1]
SIZES = ("--n-samples", "6", "--seq-len", "32", "--dtype", "float32")


def common(folder: Path, text: Path, *sizes: str) -> list[str]:
    return ["--model", str(folder), "--calibration", str(text), *(sizes or SIZES)]


def search(folder: Path, text: Path, out: Path, *more: str) -> dict:
    """The plan file of a search for three blocks, unless told otherwise."""
    target = () if any(m in more for m in ("--ratio", "--max-ppl-rise")) else ("--blocks", "3")
    assert main(["search", *common(folder, text), *target, "--out", str(out), *more]) == 0
    return json.loads(out.read_text())


def losses(text: Path, sets: Sequence[tuple[BlockId, ...]]) -> list[float]:
    """Mean loss of the six windows without the blocks, by transformers' own loss."""
    model = tiny.model("llama")
    ids = tiny.tokenizer()(text.read_text())["input_ids"][: 6 * 32]
    windows, found = torch.tensor(ids).view(6, 1, 32), []
    for removed in sets:
        with torch.no_grad(), model.masked(removed):
            each = [model.module(input_ids=w, labels=w).loss.item() for w in windows]
        found.append(sum(each) / 6)
    return found


def test_the_plan_is_the_greedy_one_and_other_commands_read_it(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.json"
    data = search(folder, text, out, "--exhaustive")
    left, gone = list(tiny.model("llama").info.units("block")), ()
    for step in data["trace"]:
        found = losses(text, [(*gone, b) for b in left])
        best = left[found.index(min(found))]
        gone = (*gone, best)
        left.remove(best)
        assert step["removed"] == [str(b) for b in gone]
        assert step["objective"] == pytest.approx(math.exp(min(found)), rel=1e-4)
        assert (step["evaluated"], step["of"], step["confidence"]) == (len(left) + 1,) * 2 + (1,)
    assert data["baseline"] == pytest.approx(math.exp(losses(text, [()])[0]), rel=1e-4)
    assert data["schema"] == "blockviz/plan/1" and "partial" not in data
    assert SearchRun.from_json(data).to_json() == data
    assert PruningPlan.from_json(data).removed == gone

    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if "confidence" in line]
    for line, step in zip(lines, data["trace"], strict=True):
        assert f"confidence {100 * (1 - step['rival']):.4g} %" in line
    assert [line.split()[1] for line in lines] == [f"{b}:" for b in gone]
    assert "8 of 8 evaluations" in lines[0] and "6 of 6 evaluations" in lines[2]
    rows = shown.out.splitlines()
    assert rows[0].split()[:3] == ["removal", "block", "perplexity"]
    assert [row.split()[1] for row in rows[2:5]] == [str(b) for b in gone]
    assert "3 blocks removed" in shown.out and "21 of 21 evaluations" in shown.out
    assert f"evaluate --plan {out}" in shown.out

    report = tmp_path / "r.json"
    sizes = ["--n-samples", "2", "--seq-len", "16", "--out", str(report)]
    read = ["--model", str(folder), "--data", str(text), "--plan", str(out)]
    assert main(["evaluate", *read, *sizes]) == 0
    assert json.loads(report.read_text())["rows"][1]["removed"] == [str(b) for b in gone]
    argv = ["generate", "--model", str(folder), "--prompt", "w1 w2", "--plan", str(out)]
    assert main([*argv, "--max-new-tokens", "2"]) == 0


def test_a_second_run_goes_on_from_what_is_known(
    folder: Path,
    text: Path,
    tmp_path: Path,
    own_cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = search(folder, text, tmp_path / "a.json", "--exhaustive")
    assert first["search"]["n_reused"] == 0
    assert "evaluations known" not in capsys.readouterr().out
    (path,) = (own_cache / "results").glob("*.jsonl")
    size = path.stat().st_size
    second = search(folder, text, tmp_path / "b.json", "--exhaustive")
    assert second["removed"] == first["removed"]
    assert second["search"]["n_reused"] == 1 + 8 + 7 + 6
    assert "22 evaluations known from other runs; --no-resume" in capsys.readouterr().out
    assert path.stat().st_size == size
    third = search(folder, text, tmp_path / "c.json", "--exhaustive", "--no-resume")
    assert third["search"]["n_reused"] == 0 and path.stat().st_size == size
    for a, b, c in zip(first["trace"], second["trace"], third["trace"], strict=True):
        assert a["objective"] == b["objective"] == pytest.approx(c["objective"])
    wider = search(folder, text, tmp_path / "d.json", "--exhaustive", "--blocks", "4")
    assert wider["removed"][:3] == first["removed"]
    assert wider["search"]["n_reused"] == 22


# Runs the command line; the signal comes once so many sets have been written down.
# A shell's background jobs inherit that Ctrl-C is ignored.
STRUCK = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from blockviz.session.ledger import Ledger
plain, left = Ledger.put, int(sys.argv[2])
def put(*entry):
    global left
    plain(*entry)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), int(sys.argv[1]))
Ledger.put = put
from blockviz.cli import main
sys.exit(main(sys.argv[3:]))
"""


def struck(by: signal.Signals, after: int, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return warm.run(STRUCK, str(int(by)), str(after), *argv)


def test_a_killed_search_is_taken_up_again(
    folder: Path, text: Path, tmp_path: Path, own_cache: Path
) -> None:
    whole = search(folder, text, tmp_path / "whole.json", "--no-resume")
    out = tmp_path / "plan.json"
    argv = ["search", *common(folder, text), "--blocks", "3", "--out", str(out)]
    assert struck(signal.SIGKILL, 14, argv).returncode == -signal.SIGKILL
    assert not out.exists()
    (path,) = (own_cache / "results").glob("*.jsonl")
    n_lines = sum(map(bool, path.read_bytes().split(b"\n")))
    assert n_lines == 14
    done = struck(signal.SIGKILL, 10**6, argv)
    assert done.returncode == 0, done.stderr
    again = json.loads(out.read_text())
    assert again["removed"] == whole["removed"]
    assert again["search"]["n_reused"] >= 1
    assert "evaluations known from other runs" in done.stdout
    for a, b in zip(again["trace"], whole["trace"], strict=True):
        assert a["objective"] == pytest.approx(b["objective"], rel=1e-6)


def test_ctrl_c_writes_the_plan_so_far(
    folder: Path, text: Path, tmp_path: Path, own_cache: Path
) -> None:
    """The signal comes in the second of three rounds, which has asked for 8 sets and then 7."""
    out = tmp_path / "plan.json"
    argv = ["search", *common(folder, text), "--blocks", "3", "--exhaustive", "--out", str(out)]
    done = struck(signal.SIGINT, 1 + 8 + 2, argv)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert "the same command goes on from here" in done.stderr
    data = json.loads(out.read_text())
    assert data["partial"] is True and len(data["removed"]) == 1 == len(data["trace"])
    assert "the plan so far has 1 block." in done.stderr
    assert PruningPlan.from_json(data).removed
    again = search(folder, text, tmp_path / "again.json", "--exhaustive")
    assert again["removed"][:1] == data["removed"] and "partial" not in again


def test_other_targets_units_and_objectives(folder: Path, text: Path, tmp_path: Path) -> None:
    info, out = tiny.model("llama").info, tmp_path / "plan.json"
    plan = search(folder, text, out, "--ratio", "0.3", "--protect-first", "1")
    removed = [BlockId.parse(b) for b in plan["removed"]]
    assert 0 < info.parameters_of(removed) <= 0.3 * info.n_parameters
    assert all(b.layer > 0 for b in removed)
    plan = search(folder, text, out, "--max-ppl-rise", "1", "--objective", "ppl")
    assert plan["trace"][-1]["objective"] <= 1.01 * plan["baseline"]
    plan = search(folder, text, out, "--unit", "layer", "--blocks", "2", "--objective", "lds:k=5")
    assert plan["search"]["objective"] == "lds:k=5" and len(plan["removed"]) == 4
    assert plan["baseline"] == pytest.approx(0, abs=1e-6)
    fast = search(folder, text, out, "--exhaustive", "--memory", "1MiB")
    reference = search(folder, text, out, "--engine", "reference")
    assert fast["removed"] == reference["removed"]


def test_a_search_by_accuracy(folder: Path, text: Path, tmp_path: Path) -> None:
    tasks, out = tmp_path / "mine.jsonl", tmp_path / "plan.json"
    tasks.write_text("\n".join(map(json.dumps, task_rows(12))), encoding="utf-8")
    asked = ["--objective", "acc", "--tasks", str(tasks), "--limit", "9", "--blocks", "2"]
    plan = search(folder, text, out, *asked)
    assert [round(9 * step["objective"], 6) % 1 for step in plan["trace"]] == [0, 0]
    again = search(folder, text, out, *asked)
    assert again["removed"] == plan["removed"]
    assert again["search"]["n_reused"] == 1 + 8 + 7


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ((), "It has no target"),
        (("--blocks", "0"), "1 or more"),
        (("--blocks", "x"), "invalid int value"),
        (("--ratio", "20"), "above 0 and below 1"),
        (("--ratio", "nan"), "above 0 and below 1"),
        (("--blocks", "2", "--objective", "bi"), "scores single blocks"),
        (("--blocks", "2", "--objective", "pppl"), "Did you mean"),
        (("--blocks", "2", "--strategy", "greedily"), "Did you mean 'greedy'"),
        (("--blocks", "2", "--strategy", "beam:depth=3"), "no setting 'depth=3'"),
        (("--blocks", "2", "--unit", "head"), "no such unit"),
        (("--blocks", "2", "--engine", "warp"), "no such engine"),
        (("--blocks", "2", "--pool", "half"), "METRIC:SHARE"),
        (("--blocks", "2", "--level", "2"), "between 0 and 0.5"),
        (("--blocks", "2", "--level", "0.1", "--exhaustive"), "not allowed with"),
        (("--blocks", "2", "--memory", "lots"), "KiB, MiB or GiB"),
        (("--blocks", "2", "--preset", "sleep"), "Did you mean 'sleb'"),
        (("--max-ppl-rise", "5", "--objective", "lds"), "does not measure perplexity"),
        (("--speedup", "0.5"), "above 1"),
        (("--blocks", "2", "--objective", "acc"), "--tasks"),
        (("--preset", "sleb"), "It has no target"),
    ],
)
def test_what_cannot_be_is_refused_before_the_model_is_read(
    more: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(capsys, "search", "--model", "no/such-model", *more)
    assert says in error and "no/such-model" not in error


def test_what_only_the_model_shows_is_refused_before_the_text_is_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["search", "--model", str(folder), "--calibration", "none.txt"]
    assert "has 4 layers" in refusal(capsys, *base, "--blocks", "1", "--protect-last", "4")
    assert "There are 8 of the unit block" in refusal(capsys, *base, "--blocks", "9")


def test_sizes_are_read_with_and_without_a_unit() -> None:
    read = [n_bytes(t) for t in ("4096", "1GiB", "1.5 MiB", "800kib")]
    assert read == [4096, 2**30, 3 * 2**19, 800 * 1024]
    for bad in ("", "0", "-1", "1GB", "GiB", "1 2", "1e9", "inf"):
        with pytest.raises(BadInput, match="Write --memory 512MiB"):
            n_bytes(bad)


def test_every_preset_gives_a_request_that_can_be_run() -> None:
    for preset in PRESETS:
        own = {"blocks": 2} | ({"text": {"tasks": "arc_easy"}} if preset.name == "tale" else {})
        request = filled_request(own, recipe=preset.name, n_layers=20)
        assert request.preset == preset.name and request.blocks == 2
        search_commands.check_search(request)
        for name, value in preset.settings.items():
            if name not in ("text", "protect_first_share", "protect_first"):
                assert getattr(request, name) == value
        assert request.protect_first == preset.protect_first(20)
        assert list(departures(own, preset.name)) == []


def test_what_is_set_by_hand_goes_before_a_preset_and_is_said(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    asked: list[SearchRequest] = []
    plain = search_commands.search_request

    def spied(model: object, request: SearchRequest, *more: object):
        asked.append(request)
        return plain(model, request, *more)

    monkeypatch.setattr(search_commands, "search_request", spied)
    plan = search(folder, text, tmp_path / "p.json", "--preset", "sleb", "--blocks", "1")
    (request,) = asked
    assert (request.unit, request.protect_first, request.protect_last) == ("layer", 1, 1)
    assert (request.text.n_samples, request.text.seq_len) == (6, 32)
    assert request.text.is_shuffled and request.text.calibration == str(text)
    assert {BlockId.parse(b).layer for b in plan["removed"]} < {1, 2}
    said = capsys.readouterr().err
    assert "sleb has n_samples 4; 6 was asked for." in said
    assert "sleb has unit" not in said and "is_shuffled" not in said
    usual = filled_request({})
    assert usual == SearchRequest()


def test_info_lists_strategies_and_presets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "i.json"
    assert main(["info", "--strategies", "--out", str(out)]) == 0
    data, shown = json.loads(out.read_text()), capsys.readouterr().out
    assert data["schema"] == "blockviz/strategies/1"
    assert [s["name"] for s in data["strategies"]] == list(STRATEGIES.names())
    assert "width=3 (1 to 64)" in shown and "https://arxiv.org/abs/2406.10594" in shown
    assert main(["info", "--presets", "--out", str(out)]) == 0
    data, shown = json.loads(out.read_text()), capsys.readouterr().out
    assert data["schema"] == "blockviz/presets/1"
    assert [p["name"] for p in data["presets"]] == [p.name for p in PRESETS]
    assert all(p["title"] in shown and p["meaning"] in shown for p in data["presets"])


def test_pairs_are_what_two_cuts_cost_beyond_each(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pairs.json"
    argv = ["pairs", *common(folder, text), "--out", str(out)]
    assert main([*argv, "--positions", "all", "--top", "4"]) == 0
    found = Interactions.from_json(json.loads(out.read_text()))
    assert len(found.pairs) == 28 and len(found.singles) == 8 and found.n_positions == 31
    a, b = tiny.ids("1.attn", "3.mlp")
    whole, first, second, both = losses(text, [(), (a,), (b,), (a, b)])
    assert found.between(b, a) == pytest.approx(both - first - second + whole, abs=1e-5)
    assert found.singles[a] == pytest.approx(first - whole, abs=1e-5)
    shown = capsys.readouterr().out
    strongest = max(found.pairs, key=lambda pair: abs(found.pairs[pair]))
    assert shown.splitlines()[1].startswith(f"{strongest[0]} + {strongest[1]}")
    assert len(shown.split("\n\n")[0].splitlines()) == 5
    assert "of 28 pairs are more than two standard errors" in shown
    assert main([*argv, "--unit", "layer", "--positions", "4"]) == 0
    data = json.loads(out.read_text())
    assert (len(data["pairs"]), data["n_positions"]) == (6, 4)


def test_pairs_that_cannot_be_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    base = ["pairs", "--model", "no/such-model"]
    for more, says in (
        (("--positions", "many"), "Give a number, or all"),
        (("--positions", "0"), "That is none"),
        (("--top", "0"), "Show 1 or more"),
        (("--seq-len", "1"), "at least 2"),
        (("--memory", "1TB"), "KiB, MiB or GiB"),
    ):
        error = refusal(capsys, *base, *more)
        assert says in error and "no/such-model" not in error


# -- several processes --


def test_one_process_is_alone_and_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert open_shares() is ALONE
    measure = object()
    assert shared(measure, ALONE) is measure
    windows, values = [3, 1, 2], torch.rand(2, 3).numpy()
    assert ALONE.mine(windows) is windows and ALONE.gathered(values) is values
    assert ALONE.of_first(windows) is windows and ALONE.is_first
    code = "import sys, blockviz.session.processes as p; p.open_shares(); sys.exit(any("
    code += "m in sys.modules for m in ('accelerate.state', 'torch.distributed.elastic')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_every_window_is_measured_once() -> None:
    for count in (2, 3, 7):
        for asked in (range(5), [4, 0, 2], []):
            parts = [list(Shares(rank, count).mine(asked)) for rank in range(count)]
            assert sorted(w for part in parts for w in part) == sorted(asked)
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert [Shares(rank, 2).is_first for rank in (0, 1)] == [True, False]


def test_a_launch_that_starts_one_process_only_is_noticed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    open_shares()
    assert caplog.records == []
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert open_shares() is ALONE
    assert "--multi_gpu --num_processes N" in caplog.text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launched(argv: Sequence[str], **env: str) -> subprocess.CompletedProcess[str]:
    """The command in two processes on CPUs, as accelerate starts them."""
    program = "from accelerate.commands.launch import main; main()"
    how = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    how += ["--dynamo_backend", "no", "--main_process_port", str(free_port()), "-m", "blockviz"]
    return subprocess.run(
        [sys.executable, "-c", program, *how, *argv],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


def values_in(cache: Path) -> dict[tuple[frozenset[str], str], float]:
    """Every value in the one ledger of a cache folder, each of which is written there once."""
    (path,) = (cache / "results").glob("*.jsonl")
    entries = [unsealed(line) for line in path.read_bytes().split(b"\n") if line]
    rows = [
        ((frozenset(entry["removed"]), window), value)
        for entry in entries
        for window, value in zip(entry["windows"], entry["values"], strict=True)
    ]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def test_two_processes_give_the_result_of_one(
    folder: Path,
    text: Path,
    tmp_path: Path,
    own_cache: Path,
    one_thread: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thirteen windows: one process has more of them. They begin with what is known."""
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    base = ["search", *common(folder, text), "--n-samples", "13", "--device", "cpu"]
    assert main([*base, "--blocks", "1"]) == 0
    n_known = len(values_in(own_cache))
    done = launched([*base, "--blocks", "3", "--out", str(two)])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 blocks removed") == 1
    assert done.stderr.count("confidence") == 3
    monkeypatch.setenv("BLOCKVIZ_CACHE", str(tmp_path / "other"))
    assert main([*base, "--blocks", "3", "--out", str(one)]) == 0
    expected, found = (json.loads(path.read_text()) for path in (one, two))
    assert found["removed"] == expected["removed"]
    assert found["baseline"] == pytest.approx(expected["baseline"])
    for a, b in zip(found["trace"], expected["trace"], strict=True):
        assert a["objective"] == pytest.approx(b["objective"], rel=1e-6)
        assert (a["evaluated"], a["of"]) == (b["evaluated"], b["of"])
    assert expected["search"]["n_reused"] == 0 < found["search"]["n_reused"]
    shared_values, own_values = values_in(own_cache), values_in(tmp_path / "other")
    assert shared_values == pytest.approx(own_values, rel=1e-6)
    assert n_known < len(shared_values)


def test_a_refusal_to_two_processes_is_said_once(folder: Path, tmp_path: Path) -> None:
    """The launcher stops the first, which says it, when the other has ended before: it waits."""
    late = "import os, time\nif os.environ.get('RANK') == '0':\n    time.sleep(5)\n"
    (tmp_path / "sitecustomize.py").write_text(late)
    done = launched(["search", "--model", str(folder)], PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert done.stderr.count("It has no target") == 1


def test_what_only_another_process_refuses_is_said_by_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("blockviz.cli.console.SECONDS_FOR_THE_FIRST", 0)
    assert main(["search", "--model", str(folder)]) == 2
    assert "It has no target" in capsys.readouterr().err
