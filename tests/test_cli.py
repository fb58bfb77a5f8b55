"""The commands on a tiny model in a folder: results, JSON contracts, refusals, interruption."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import safetensors.torch
import tiny
import torch
import warm
from fake_hub import Repo, fake_hub

from blockviz.cli import main
from blockviz.session import ScoreRequest
from blockviz.session.export_views import ExportRequest
from blockviz.session.opening import open_model
from blockviz.session.recipe_file import recipe_to_json, scoring_to_json
from blockviz.types import PruningPlan, ScoreTable, run

WORDS = 900


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model folder: 4 layers, context 64."""
    path = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny.module(*tiny.CASES["llama"]).save_pretrained(path)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.TEMPLATE
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test alone: results that others kept are not there."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("BLOCKVIZ_CACHE", str(folder))
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(tiny.VOCAB, (WORDS,), generator=generator).tolist()
    path = tmp_path / "words.txt"
    path.write_text(" ".join(f"w{i}" for i in ids), encoding="utf-8")
    return path


def score(folder: Path, text: Path, out: Path, *more: str) -> int:
    sizes = ["--n-samples", "4", "--seq-len", "32", "--dtype", "float32"]
    names = ["--model", str(folder), "--calibration", str(text), "--out", str(out)]
    return main(["score", *names, *sizes, *more])


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The message of a command that must be refused with status 2 and no traceback."""
    assert main(list(argv)) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert sum(error.count(c) for c in ".,:") >= 3, f"three parts wanted: {error}"
    return error


def test_a_recipe_repeats_a_scoring(folder, text, tmp_path, capsys, monkeypatch):
    first, again = tmp_path / "first.json", tmp_path / "again.json"
    assert score(folder, text, first, "--metrics", "lds:k=5,bi", "--unit", "attn") == 0
    table = ScoreTable.from_json(json.loads(first.read_text()))
    request = ScoreRequest(
        ("lds:k=5", "bi"), str(text), n_samples=4, seq_len=32, unit="attn", tasks=""
    )
    scoring = scoring_to_json(request, table)
    assert scoring["text"] == "words.txt"
    info = run(open_model(str(folder), dtype="float32")).info
    asked = ExportRequest(PruningPlan(), tmp_path, scoring=scoring)
    recipe = tmp_path / "blockviz_recipe.json"
    recipe.write_text(json.dumps(recipe_to_json(info, asked, "none")))
    asked = ["score", "--model", str(folder), "--dtype", "float32", "--recipe", str(recipe)]
    assert "words.txt" in refusal(capsys, *asked)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main([*asked, "--out", str(again)]) == 0
    assert "another one" not in capsys.readouterr().err
    found = ScoreTable.from_json(json.loads(again.read_text()))
    assert {n: s.values for n, s in found.metrics.items()} == {
        n: s.values for n, s in table.metrics.items()
    }
    monkeypatch.chdir(folder)
    text.write_text("w1 " + text.read_text())
    assert main([*asked, "--calibration", str(text), "--out", str(again)]) == 0
    assert "another one than the recipe was written for" in capsys.readouterr().err
    bare = recipe_to_json(info, ExportRequest(PruningPlan(), tmp_path), "none")
    recipe.write_text(json.dumps(bare))
    assert "nothing of a scoring" in refusal(capsys, *asked)


def test_score_writes_every_block_under_every_metric(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.json"
    assert score(folder, text, out) == 0
    data = json.loads(out.read_text())
    assert data["schema"] == "blockviz/scores/1"
    assert set(data["metrics"]) == {"bi", "rm", "ppl", "lds"}
    for metric in data["metrics"].values():
        assert set(metric["values"]) == {f"{i}.{p}" for i in range(4) for p in ("attn", "mlp")}
        assert metric["higher_means"] == "keep"
        assert all(math.isfinite(v) for v in metric["stderr"].values())
    provenance = data["provenance"]
    assert (provenance["n_samples"], provenance["seq_len"], provenance["n_tokens"]) == (4, 32, 128)
    assert provenance["dtype"] == "float32"
    assert len(provenance["token_hash"]) == 64
    assert ScoreTable.from_json(data).to_json() == data
    assert "8 blocks, low = removable" in capsys.readouterr().out


def test_both_engines_say_the_same(folder: Path, text: Path, tmp_path: Path) -> None:
    found = {}
    for engine in ("fast", "reference"):
        out = tmp_path / f"{engine}.json"
        assert score(folder, text, out, "--engine", engine, "--unit", "layer") == 0
        found[engine] = json.loads(out.read_text())["metrics"]
    for name, metric in found["fast"].items():
        for block, value in metric["raw"].items():
            assert value == pytest.approx(
                found["reference"][name]["raw"][block], rel=1e-5, abs=1e-6
            )
    assert set(found["fast"]["ppl"]["raw"]) == {f"{i}.layer" for i in range(4)}


def test_a_metric_takes_its_parameters(folder: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.json"
    assert score(folder, text, out, "--metrics", "lds:k=7:space=centered") == 0
    assert json.loads(out.read_text())["metrics"]["lds"]["parameters"] == {
        "k": 7,
        "space": "centered",
    }


def test_evaluate_equals_a_plain_transformers_loop(
    folder: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    names = ["--model", str(folder), "--data", str(text), "--out", str(out)]
    sizes = ["--n-samples", "5", "--seq-len", "24", "--dtype", "float32"]
    assert main(["evaluate", *names, *sizes, "--remove", "2.attn,1.layer"]) == 0
    report = json.loads(out.read_text())
    original, pruned = report["rows"]
    assert (original["variant"], pruned["variant"]) == ("original", "pruned")
    assert pruned["removed"] == ["2.attn", "1.attn", "1.mlp"]

    module = tiny.module(*tiny.CASES["llama"])
    ids = torch.tensor(tiny.tokenizer()(text.read_text())["input_ids"][: 5 * 24]).view(5, 24)
    with torch.no_grad():
        losses = [module(input_ids=w[None], labels=w[None]).loss.item() for w in ids]
    assert original["perplexity"]["value"] == pytest.approx(math.exp(sum(losses) / 5), rel=1e-4)
    assert original["perplexity"]["n_tokens"] == 5 * 23
    spread = torch.tensor(losses).double().std().item() / math.sqrt(5)
    assert original["perplexity"]["stderr"] == pytest.approx(
        original["perplexity"]["value"] * spread, rel=1e-3
    )
    kept = original["params"]["total"] * (1 - pruned["params"]["removed_ratio"])
    assert pruned["params"]["total"] == pytest.approx(kept)
    assert pruned["kv_bytes_per_token"] == original["kv_bytes_per_token"] / 2


def test_evaluate_reads_a_plan_file(folder: Path, text: Path, tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "r.json"
    plan.write_text(json.dumps({"schema": "blockviz/plan/1", "removed": ["3.mlp"]}))
    names = ["--model", str(folder), "--data", str(text), "--plan", str(plan), "--out", str(out)]
    assert main(["evaluate", *names, "--n-samples", "2", "--seq-len", "16"]) == 0
    assert json.loads(out.read_text())["rows"][1]["removed"] == ["3.mlp"]


def test_generate_writes_both_texts(folder: Path, tmp_path: Path) -> None:
    for mode in ("--raw", "--chat"):
        out = tmp_path / f"g{mode}.json"
        argv = ["generate", "--model", str(folder), "--prompt", "w3 w9 w27", mode]
        argv += ["--remove", "0.attn,2.layer", "--max-new-tokens", "6", "--out", str(out)]
        assert main(argv) == 0
        data = json.loads(out.read_text())
        assert data["mode"] == mode.removeprefix("--")
        assert len(data["original"].split()) == 6
        assert data["original"] != data["pruned"]
        cut = data["first_difference"]
        assert data["original"][:cut] == data["pruned"][:cut]


def test_info_says_what_was_found(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "i.json"
    assert main(["info", "--model", str(folder), "--out", str(out)]) == 0
    info = json.loads(out.read_text())["model"]
    assert [b["id"] for b in info["blocks"]][:3] == ["0.attn", "0.mlp", "1.attn"]
    assert "4 (8 blocks)" in capsys.readouterr().out
    assert main(["info", "--metrics"]) == 0
    assert "Logit disruption" in capsys.readouterr().out
    assert main(["info", "--families"]) == 0
    assert "gemma3_text" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("remove", "says"),
    [
        ("9.attn", "layers 0 to 3"),
        ("4.mlp", "layers 0 to 3"),
        ("1.norm", "LAYER.PART"),
        ("-1.attn", "LAYER.PART"),
        ("0.layer,1.layer,2.layer,3.layer", "removes all 8 blocks"),
        (",", "names no block"),
    ],
)
def test_bad_plans_are_refused(
    folder: Path, text: Path, remove: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["evaluate", "--model", str(folder), "--data", str(text), f"--remove={remove}"]
    assert says in refusal(capsys, *argv, "--n-samples", "2", "--seq-len", "16")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"w1 w2 w3", "longer text"),
        (b"w1 w2 w3 " * 30, "lower n_samples to 5"),
        (b"w1 \xff\xfe w2 " * 200, "UTF-8"),
        (b"\x00\x01\x02PNG\x00" * 200, "text"),
    ],
)
def test_bad_calibration_files_are_refused(
    folder: Path,
    tmp_path: Path,
    content: bytes,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    argv = ["score", "--model", str(folder), "--calibration", str(path), "--seq-len", "16"]
    assert says in refusal(capsys, *argv)


def test_impossible_settings_are_refused(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["score", "--model", str(folder), "--calibration", str(text)]
    assert "at most 64" in refusal(capsys, *base, "--seq-len", "65")
    assert "Did you mean 'ppl'" in refusal(capsys, *base, "--metrics", "pll")
    assert "Did you mean 'bi'" in refusal(capsys, *base, "--metrics", "blok_influence")
    assert "k=none" in refusal(capsys, *base, "--metrics", "lds:k=none")
    assert "no such unit" in refusal(capsys, *base, "--unit", "head")
    assert "no such engine" in refusal(capsys, *base, "--engine", "warp")
    assert "does not run models in it" in refusal(capsys, *base, "--dtype", "int8")
    assert "no such device" in refusal(capsys, *base, "--device", "abacus")
    missing = tmp_path / "no" / "s.json"
    assert "folder is missing" in refusal(capsys, *base, "--out", str(missing))
    assert "no such correction" in refusal(
        capsys, "evaluate", "--model", str(folder), "--correction", "glue"
    )
    assert "--help" in refusal(capsys, "score", "--colour", "red")
    assert "path" in refusal(capsys, "score", "--model", str(tmp_path / "nowhere"))


def copied(folder: Path, to: Path, **changes: object) -> Path:
    """A copy of the model folder with settings changed in its config; None deletes one."""
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    config = json.loads((to / "config.json").read_text())
    config = {k: v for k, v in {**config, **changes}.items() if v is not None}
    (to / "config.json").write_text(json.dumps(config))
    return to


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "decoder"),
        ({"model_type": "own", "auto_map": {"AutoModelForCausalLM": "x.Y"}}, "code"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
    ],
)
def test_models_that_may_not_be_run_are_refused_before_their_weights(
    folder: Path,
    tmp_path: Path,
    changes: dict[str, object],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = copied(folder, tmp_path / "bad", **changes)
    (bad / "model.safetensors").write_bytes(b"never read")
    assert says in refusal(capsys, "info", "--model", str(bad)).lower()


def test_pickled_weights_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = copied(folder, tmp_path / "bad")
    (bad / "model.safetensors").rename(bad / "pytorch_model.bin")
    assert "safetensors" in refusal(capsys, "info", "--model", str(bad))


def test_a_checkpoint_that_lacks_weights_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = copied(folder, tmp_path / "bad")
    tensors = safetensors.torch.load_file(bad / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    safetensors.torch.save_file(tensors, bad / "model.safetensors", {"format": "pt"})
    assert "model.layers.1.mlp.down_proj.weight" in refusal(capsys, "info", "--model", str(bad))


def test_ctrl_c_keeps_the_windows_done_so_far(folder: Path, tmp_path: Path) -> None:
    """A real SIGINT to a real process, sent once the first batch must be through."""
    out, text = tmp_path / "s.json", tmp_path / "long.txt"
    text.write_text(" ".join(f"w{i * 7 % tiny.VOCAB}" for i in range(64 * 1200)))
    argv = ["score", "--model", str(folder), "--calibration", str(text), "--out", str(out)]
    argv += ["--n-samples", "1200", "--seq-len", "64", "--engine", "reference"]
    program = (
        "import sys, os, signal, blockviz.session.scoring as s\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "plain = s.sweep\n"
        "def sweep(*a, **k):\n"
        "    for event in plain(*a, **k):\n"
        "        yield event\n"
        "        if getattr(event, 'partial', None) is not None:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "s.sweep = sweep\n"
        "from blockviz.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = warm.run(program, *argv)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    data = json.loads(out.read_text())
    assert data["partial"] is True
    assert 0 < data["provenance"]["n_samples"] < 1200
    assert len(data["metrics"]["ppl"]["values"]) == 8


def test_a_plan_of_another_schema_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.json"
    for content in ('{"removed": ["1.attn"]}', "[1]", "no json", '{"schema": "blockviz/plan/1"}'):
        plan.write_text(content)
        argv = ["evaluate", "--model", str(folder), "--plan", str(plan)]
        assert "plan" in refusal(capsys, *argv)


def test_a_plan_survives_its_json() -> None:
    plan = PruningPlan.from_json({"schema": "blockviz/plan/1", "removed": ["3.layer", "1.attn"]})
    assert PruningPlan.from_json(plan.to_json()) == plan
    assert plan.shown() == ("3.layer", "1.attn")
    assert [str(b) for b in plan.removed] == ["3.attn", "3.mlp", "1.attn"]


def test_damaged_weights_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = copied(folder, tmp_path / "bad")
    whole = (bad / "model.safetensors").read_bytes()
    for damaged, says in (
        (whole[: len(whole) // 2], "cut short"),
        (b"garbage" * 50, "no safetensors file"),
        (whole[:8] + b"x" + whole[9:], "damaged"),
    ):
        (bad / "model.safetensors").write_bytes(damaged)
        assert says in refusal(capsys, "info", "--model", str(bad))
    (bad / "model.safetensors").write_bytes(whole)
    assert "(64, 32) in the file, (64, 48) by config.json" in refusal(
        capsys, "info", "--model", str(copied(bad, tmp_path / "wide", hidden_size=48))
    )


def test_a_model_of_the_hub_is_fetched_and_scored(
    folder: Path,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BLOCKVIZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache" / "huggingface"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    local, remote = tmp_path / "local.json", tmp_path / "remote.json"
    with fake_hub({"owner/tiny": Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert score(Path("owner/tiny"), text, remote) == 0
        message = refusal(capsys, "info", "--model", "owner/nothing")
        assert "no model of that name" in message
    assert score(folder, text, local) == 0
    found, expected = (json.loads(p.read_text()) for p in (remote, local))
    assert found["metrics"]["ppl"]["raw"] == expected["metrics"]["ppl"]["raw"]
    assert found["provenance"]["model"] == "owner/tiny"
    assert hub.tokens == []


def test_a_corrupt_gguf_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in (b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 400, b"not a model"):
        path = tmp_path / "bad.gguf"
        path.write_bytes(content)
        assert "bad.gguf" in refusal(capsys, "info", "--model", str(path))


def task_rows(n: int) -> list[dict]:
    """Questions of 3 words, each with one of two options of 2 words right."""
    drawn = torch.randint(tiny.VOCAB, (n, 8), generator=torch.Generator().manual_seed(4)).tolist()
    rows = []
    for i, (first, second, third, *rest, answer) in enumerate(drawn):
        choices = [f"w{rest[0]} w{rest[1]}", f"w{rest[2]} w{rest[3]}"]
        query = f"w{first} w{second} w{third}"
        rows.append(
            {"id": f"q{i}", "mode": "choices", "query": query, "choices": choices}
            | {"answer": answer % 2}
        )
    return rows


def right_answers(rows: list[dict], *removed: str) -> list[bool]:
    model, found = tiny.model("llama"), []
    for row in rows:
        sums = []
        for choice in row["choices"]:
            ids = [int(w[1:]) for w in f"{row['query']} {choice}".split()]
            with torch.no_grad(), model.masked(tiny.ids(*removed)):
                logs = model.module(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
            sums.append(logs[2, ids[3]].item() + logs[3, ids[4]].item())
        found.append((sums[1] > sums[0]) == bool(row["answer"]))
    return found


def test_evaluate_answers_tasks(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, out = task_rows(30), tmp_path / "r.json"
    tasks = tmp_path / "mine.jsonl"
    tasks.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    argv = ["evaluate", "--model", str(folder), "--data", str(text), "--out", str(out)]
    argv += ["--n-samples", "2", "--seq-len", "16", "--dtype", "float32", "--remove", "1.layer"]
    assert main([*argv, "--tasks", str(tasks), "--limit", "20"]) == 0
    original, pruned = json.loads(out.read_text())["rows"]
    before, after = right_answers(rows[:20]), right_answers(rows[:20], "1.layer")
    assert before != after
    entry = original["tasks"]["mine"]
    assert (entry["n"], entry["n_available"], entry["add_bos"]) == (20, 30, False)
    assert entry["acc"] == pytest.approx(sum(before) / 20)
    assert entry["stderr"] == pytest.approx(math.sqrt(entry["acc"] * (1 - entry["acc"]) / 20))
    assert "change" not in entry and entry["perplexity"] is None
    entry = pruned["tasks"]["mine"]
    gaps = torch.tensor(after).double() - torch.tensor(before).double()
    assert entry["acc"] == pytest.approx(sum(after) / 20)
    assert entry["change"] == pytest.approx(gaps.mean().item())
    assert entry["change_stderr"] == pytest.approx(gaps.std(correction=0).item() / math.sqrt(20))
    assert "20 of 30" in capsys.readouterr().out

    assert main(argv) == 0
    assert [row["tasks"] for row in json.loads(out.read_text())["rows"]] == [{}, {}]
    assert "acc" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tasks", "more", "says"),
    [
        ("piqaa", (), "Did you mean piqa?"),
        ("none.jsonl", (), "none.jsonl was to be read"),
        ("piqa,piqa", (), "go by the name piqa"),
        ("piqa", ("--limit", "0"), "first 0 rows"),
    ],
)
def test_bad_tasks_are_refused_before_the_model_is_read(
    tasks: str, more: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(capsys, "evaluate", "--model", "no/such-model", "--tasks", tasks, *more)
    assert says in error
    assert "no/such-model" not in error


def test_a_bos_token_that_is_not_there_is_refused(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = tmp_path / "mine.jsonl"
    tasks.write_text(json.dumps(task_rows(1)[0]), encoding="utf-8")
    argv = ["evaluate", "--model", str(folder), "--data", str(text), "--tasks", str(tasks)]
    sizes = ["--n-samples", "2", "--seq-len", "16"]
    assert "tokenizer has none" in refusal(capsys, *argv, *sizes, "--add-bos", "yes")


def metrics_in(path: Path) -> dict:
    """Every metric's numbers in a scores file, without the seconds they took."""
    metrics = json.loads(path.read_text())["metrics"]
    return {n: {k: v for k, v in m.items() if k != "seconds"} for n, m in metrics.items()}


FEW = "all,shapley_perm:m=1,shapley_random:m=8"


def test_all_metrics_with_a_task(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, out, tasks = task_rows(12), tmp_path / "s.json", tmp_path / "mine.jsonl"
    tasks.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    asked = ["--metrics", FEW, "--tasks", str(tasks), "--limit", "9"]
    assert score(folder, text, out, *asked) == 0
    found = metrics_in(out)
    assert len(found) == 20
    assert found["acc"]["raw"]["1.attn"] == sum(right_answers(rows[:9], "1.attn")) / 9
    assert found["acc"]["parameters"]["rows"] == 9
    assert set(found["cos_win"]["windows"]) >= {"0+1", "2+2", "0+4"}
    shown = capsys.readouterr().out
    heads = [line for line in shown.splitlines() if line.startswith("block")]
    assert len(heads) == 2 and heads[1].split() == ["block", "ang_win", "cos_win"]
    assert "8 blocks and 4 layers, low = removable (high, under cos_win, acc)" in shown
    assert score(folder, text, out, "--metrics", FEW) == 0
    assert metrics_in(out).keys() == found.keys() - {"acc"}


def test_a_metric_that_is_there_twice_has_its_settings_in_the_head(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.json"
    assert score(folder, text, out, "--metrics", "lds:k=5,lds:k=9,ppl") == 0
    assert metrics_in(out).keys() == {"lds:k=5", "lds:k=9", "ppl"}
    assert capsys.readouterr().out.splitlines()[0].split() == ["block", "lds:k=5", "lds:k=9", "ppl"]


def test_evaluations_are_kept_for_the_next_run(
    folder: Path,
    text: Path,
    tmp_path: Path,
    own_cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, out = tmp_path / "first.json", tmp_path / "s.json"
    asked = ["--metrics", "ppl,lds:k=5,shapley_perm:m=1"]
    assert score(folder, text, first, *asked) == 0
    assert "evaluations known" not in capsys.readouterr().out
    files = len(list((own_cache / "results").rglob("*.json")))
    assert files == 2 * 9 + 9
    assert score(folder, text, out, *asked) == 0
    assert metrics_in(out) == metrics_in(first)
    assert "18 of 18 evaluations known from other runs; --no-resume" in capsys.readouterr().out
    assert score(folder, text, out, *asked, "--no-resume") == 0
    assert "evaluations known" not in capsys.readouterr().out
    assert metrics_in(out) == metrics_in(first)
    assert len(list((own_cache / "results").rglob("*.json"))) == files


def test_info_lists_what_every_metric_scores_and_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.json"
    assert main(["info", "--metrics", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    for says in (
        "cvr             Calibrated weights (block; one pass)",
        "ang_win         Angular distance (layer; one pass)",
        "k=100 (2 to 100000)",
        "space=raw (raw, centered, logprob)",
        "needs --tasks",
        "https://arxiv.org/abs/2406.10594",
    ):
        assert says in shown
    data = json.loads(out.read_text())
    assert data["schema"] == "blockviz/metrics/1" and len(data["metrics"]) == 20


def test_bad_tasks_of_a_score_are_refused_before_the_model_is_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for asked, says in (
        (["--metrics", "acc"], "--tasks"),
        (["--metrics", "acc", "--tasks", "piqaa"], "Did you mean piqa?"),
        (["--metrics", "acc", "--tasks", "piqa", "--limit", "0"], "first 0 rows"),
    ):
        error = refusal(capsys, "score", "--model", "no/such-model", *asked)
        assert says in error and "no/such-model" not in error
