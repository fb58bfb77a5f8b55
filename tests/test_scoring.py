"""A scoring run: all metrics at once, units, partial tables, tasks, and what is kept."""

from __future__ import annotations

import functools
import importlib
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import tiny
import torch
from tokenizers.models import WordLevel

from blockviz.engine import sweep
from blockviz.errors import BadInput, BadSource, UnsupportedModel
from blockviz.evaluate import choices, score_choices
from blockviz.json_files import sealed, unsealed
from blockviz.metrics import METRICS, AblationMetric, Metric, parse_metrics
from blockviz.models.load import wrap
from blockviz.models.model import BlockModel
from blockviz.session import ScoreRequest
from blockviz.session.kept import KeptResults, identity_of
from blockviz.session.scoring import check_request, score_windows
from blockviz.store import JsonFolder, Store
from blockviz.types import (
    CalibrationSet,
    Done,
    Progress,
    Scores,
    ScoreTable,
    TaskRow,
    TaskSet,
    run,
)

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOWS, PADDED = tiny.windows(3, 16), tiny.windows(3, 16, lengths=(16, 7, 11))
GAMES = "shapley_perm:m=2", "shapley_random:m=6"
TASKS = TaskSet(
    "toy",
    "none",
    tuple(
        TaskRow(f"q{i}", "choices", f"w{i} w{i + 9}", (f"w{i + 3}", f"w{2 * i}", "w5"), i % 3)
        for i in range(6, 24)
    ),
)
ON_LAYERS, ON_BLOCKS = {"ang_win", "cos_win"}, {"cvr"}


@functools.cache
def shared(case: str) -> BlockModel:
    """A tiny model whose tokenizer has a word for the letters A to C too."""
    model = tiny.model(case)
    words = {**{f"w{i}": i for i in range(61)}, "A": 61, "B": 62, "C": 63}
    model.tokenizer.backend_tokenizer.model = WordLevel(words, unk_token="w0")
    return model


def scored(
    names: Iterable[str],
    *,
    model: BlockModel | None = None,
    windows: CalibrationSet = WINDOWS,
    kept: KeptResults | None = None,
    **request: object,
) -> ScoreTable:
    tasks = TASKS if request.pop("has_tasks", False) else None
    metrics = parse_metrics(names, has_tasks=tasks is not None)
    asked = ScoreRequest(metrics=tuple(names), **request)
    return run(
        score_windows(model or shared("llama"), windows, metrics, asked, tasks=tasks, kept=kept)
    )


def numbers(scores: Scores) -> dict:
    """Everything of a metric's JSON but the time that it took."""
    data = scores.to_json()
    del data["seconds"]
    return data


def assert_close(found: Scores, expected: Scores, *, rel: float, abs_: float = 1e-9) -> None:
    one, other = numbers(found), numbers(expected)
    assert one["parameters"] == other["parameters"]
    for name in ("values", "raw", "stderr", "windows"):
        assert (one[name] or {}) == pytest.approx(other[name] or {}, rel=rel, abs=abs_), name


# --- all at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["llama", "gpt2", "neox"])
@pytest.mark.parametrize("windows", [WINDOWS, PADDED], ids=["full", "padded"])
def test_all_at_once_is_each_alone(case: str, windows: CalibrationSet):
    how = {"model": shared(case), "windows": windows, "has_tasks": True}
    together = scored(("all", *GAMES), **how)
    names = [n for n in METRICS.names() if not n.startswith("shapley_r") and n != "shapley_perm"]
    assert {*together.metrics} == {*METRICS.names()} and not together.is_partial
    for name in (*names, *GAMES):
        alone = scored((name,), **how).metrics[name.split(":")[0]]
        assert_close(together.metrics[name.split(":")[0]], alone, rel=1e-6)


def test_the_order_in_which_metrics_are_named_changes_their_order_only():
    names = ["ppl", "kl", "lds:k=9", "bi", "ang_win", "taylor:n=2", "mag", "cka", *GAMES]
    there, back = scored(names), scored(names[::-1])
    assert [*there.metrics] == [n.split(":")[0] for n in names] == [*back.metrics][::-1]
    for name, scores in there.metrics.items():
        assert numbers(scores) == numbers(back.metrics[name])


def test_a_metric_asked_for_twice_is_reported_under_its_settings():
    table = scored(("lds:k=5", "lds:k=9:space=centered", "all", *GAMES))
    assert {n for n in table.metrics if n.startswith("lds")} == {
        "lds:k=5",
        "lds:k=9:space=centered",
    }
    for name in ("lds:k=5", "lds:k=9:space=centered"):
        assert_close(table.metrics[name], scored((name,)).metrics["lds"], rel=1e-6)


@pytest.mark.parametrize("case", ["llama", "qwen3", "neox"])
@pytest.mark.parametrize("unit", ["block", "layer"])
def test_the_plain_engine_gives_the_same_for_every_ablation_metric(case: str, unit: str):
    names = [cls.name for cls in METRICS.classes() if issubclass(cls, AblationMetric)]
    assert len(names) == 7
    how = {"model": shared(case), "windows": PADDED, "unit": unit}
    fast, plain = (scored(names, engine=engine, **how) for engine in ("fast", "reference"))
    for name in names:
        assert_close(fast.metrics[name], plain.metrics[name], rel=2e-4, abs_=2e-6)


# --- units ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["block", "layer", "attn", "mlp"])
def test_every_metric_scores_the_unit_that_is_asked_for_or_the_one_it_can(unit: str):
    model = shared("llama")
    table = scored(("all", *GAMES), unit=unit, has_tasks=True)
    for name, scores in table.metrics.items():
        can = "layer" if name in ON_LAYERS else unit
        can = "block" if name in ON_BLOCKS and unit == "layer" else can
        assert tuple(sorted(scores.values)) == tuple(sorted(model.info.units(can))), name
        assert METRICS.get(name)().unit_for(unit) == can


def test_a_block_s_score_hangs_on_what_else_is_scored_only_where_it_is_relative():
    """cvr is standardised among its part's blocks; the rest score a block as it is."""
    both, attn = scored(("all", *GAMES)), scored(("all", *GAMES), unit="attn")
    for name in both.metrics.keys() - ON_LAYERS - {"shapley_perm", "shapley_random", "tabp_ddf"}:
        for block, value in attn.metrics[name].values.items():
            assert value == pytest.approx(both.metrics[name].values[block], rel=1e-5), name


@dataclass(frozen=True)
class LayersOnly(AblationMetric):
    """A metric of somebody else's that is known for layers only."""

    name, title, meaning, reference = "layers_only", "Layers", "A test.", "https://example.org"
    units = ("layer",)

    def per_position(self, readout, kept):
        return readout.log_sum_exp


def test_an_ablation_metric_of_layers_is_scored_on_layers_beside_one_of_blocks():
    model = shared("llama")
    metrics = {"layers_only": LayersOnly(), **parse_metrics(["ppl", "shapley_loo:baseline=masks"])}
    table = run(score_windows(model, WINDOWS, metrics, ScoreRequest()))
    assert tuple(table.metrics["layers_only"].values) == model.info.units("layer")
    assert_close(table.metrics["ppl"], scored(("ppl",)).metrics["ppl"], rel=1e-6)
    # What it is compared with are the other blocks alone, not the layers too.
    alone = scored(("shapley_loo:baseline=masks",)).metrics["shapley_loo"]
    assert_close(table.metrics["shapley_loo"], alone, rel=1e-6)


# --- steps, partial tables, provenance ------------------------------------------------------------


def four_batches() -> CalibrationSet:
    """1024 tokens are a batch: windows of 64 are cut up by sixteen."""
    return tiny.windows(50, 64, seed=5)


def test_after_every_batch_there_is_a_table_of_the_windows_so_far():
    model, windows = shared("llama"), four_batches()
    names = ["ppl", "bi", "lds:k=5"]
    events = list(score_windows(model, windows, parse_metrics(names), ScoreRequest()))
    assert all(isinstance(e, Progress) for e in events[:-1]) and isinstance(events[-1], Done)
    partial = [e.partial for e in events[:-1] if e.partial is not None]
    assert [p.provenance.data.n_samples for p in partial] == [16, 32, 48, 50]
    assert [p.provenance.data.n_tokens for p in partial] == [64 * n for n in (16, 32, 48, 50)]
    assert [p.is_partial for p in partial] == [True, True, True, False]
    first = replace(
        windows, input_ids=windows.input_ids[:16], attention_mask=windows.attention_mask[:16]
    )
    expected = scored(names, windows=first)
    for name, scores in partial[0].metrics.items():
        assert numbers(scores) == numbers(expected.metrics[name])
    assert "partial" in partial[0].to_json() and "partial" not in events[-1].result.to_json()


def test_what_is_done_before_the_run_is_over_is_a_partial_table():
    metrics = parse_metrics(["ppl", "mag", "shapley_perm:m=1", "taylor:n=1"])
    last = None
    for event in score_windows(shared("llama"), WINDOWS, metrics, ScoreRequest()):
        if isinstance(event, Progress) and event.partial is not None:
            if event.stage != "shapley_perm":
                assert event.partial.is_partial
                assert "shapley_perm" not in event.partial.metrics
            last = event.partial
    assert not last.is_partial and [*last.metrics] == [*metrics]


def test_a_run_that_is_closed_midway_leaves_the_model_as_it_was():
    model = shared("llama")
    batch = next(WINDOWS.batches(3))
    before = model.logits(batch)
    metrics = parse_metrics(["all", *GAMES], has_tasks=True)
    n_events = sum(1 for _ in score_windows(model, WINDOWS, metrics, ScoreRequest(), tasks=TASKS))
    for n in range(1, n_events, 7):
        events = score_windows(model, WINDOWS, metrics, ScoreRequest(), tasks=TASKS)
        for _ in range(n):
            next(events)
        events.close()
        for module in model.module.modules():
            assert "forward" not in module.__dict__
            assert not module._forward_hooks and not module._forward_pre_hooks
    assert torch.equal(model.logits(batch), before)


def test_provenance_is_that_of_the_model_and_the_windows():
    found = scored(("ppl",), windows=PADDED).provenance
    assert found.data == PADDED.origin and found.data.n_tokens == 34
    assert (found.model, found.dtype, found.device) == ("llama", "float32", "cpu")
    assert {"blockviz", "torch", "transformers", "python"} == found.versions.keys()


def test_a_task_is_named_in_what_was_computed_from_it():
    table = scored(("acc", "tabp_ssn:form=choices", "ppl"), has_tasks=True)
    for name in ("acc", "tabp_ssn"):
        parameters = table.metrics[name].parameters
        assert (parameters["task"], parameters["rows"]) == ("toy", 18)
        assert TASKS.hash.startswith(parameters["task_hash"])
    assert "task" not in table.metrics["ppl"].parameters


@pytest.mark.parametrize("unit", ["block", "layer"])
def test_acc_is_the_share_of_right_answers_with_the_block_masked(unit: str):
    model = shared("gpt2")
    scores = scored(("acc",), model=model, unit=unit, has_tasks=True).metrics["acc"]
    assert scores.baseline == run(score_choices(model, TASKS)).acc
    for block in model.info.units(unit):
        found = run(score_choices(model, TASKS, removed=(block,)))
        assert scores.raw[block] == pytest.approx(found.acc, abs=1e-12)
        assert scores.values[block] == -scores.raw[block]  # high = it can go
        assert scores.per_window[block] == tuple(-float(right) for right in found.correct)
        # The sample deviation of n zeros and ones, over the root of n.
        error = (found.acc * (1 - found.acc) / 17) ** 0.5
        assert scores.stderr[block] == pytest.approx(error, abs=1e-12)
    assert len({*scores.raw.values()}) > 1


def test_a_table_survives_its_json():
    table = scored(("all", *GAMES), has_tasks=True)
    data = json.loads(json.dumps(table.to_json()))
    assert json.loads(json.dumps(ScoreTable.from_json(data).to_json())) == data
    again = ScoreTable.from_json(data)
    windows = data["metrics"]["cos_win"]["windows"]
    assert {"0+1", "1+3", "0+4"} <= windows.keys() and len(windows) == 10
    assert again.metrics["cos_win"].windows[1, 3] == windows["1+3"]
    matrix = again.metrics["cka"].matrix
    assert matrix == table.metrics["cka"].matrix and len(matrix.labels) == len(matrix.values)
    per_window = again.metrics["ppl"].per_window
    assert {len(v) for v in per_window.values()} == {3}
    assert data["metrics"]["mag"]["per_window"] is None


@pytest.mark.parametrize("name", [n for n in METRICS.names() if n != "acc"])
def test_numbers_a_window_order_the_blocks_as_the_scores_do(name: str):
    """Higher = keep there too; their mean is the score, or a growing function of it (exp)."""
    asked = {game.split(":")[0]: game for game in GAMES}.get(name, name)
    scores = scored((asked,)).metrics[name]
    if scores.per_window is None:
        return
    means = {b: sum(v) / len(v) for b, v in scores.per_window.items()}
    by_score = sorted(scores.values, key=scores.values.get)
    assert [round(means[b], 9) for b in by_score] == sorted(round(m, 9) for m in means.values())


# --- results that are kept ------------------------------------------------------------------------

KEPT_NAMES = ["ppl", "lds:k=5", "kl", "shapley_loo", "bi", "mag", *GAMES]


@pytest.fixture
def shelf(tmp_path: Path) -> JsonFolder:
    return JsonFolder(tmp_path / "results")


def keeping(shelf: object, model: BlockModel | None = None, engine: str = "fast") -> KeptResults:
    return KeptResults(shelf, model or shared("llama"), engine=engine)


def again(shelf: object, names: Iterable[str], **how: object) -> tuple[ScoreTable, int, int]:
    """The table, how many evaluations were made for it, and how many were known."""
    kept = keeping(shelf, how.get("model"), how.get("engine", "fast"))
    table = scored(names, kept=kept, **how)
    return table, kept.n_evaluated, kept.n_reused


def assert_same(found: ScoreTable, expected: ScoreTable) -> None:
    """Bit for bit."""
    assert [*found.metrics] == [*expected.metrics]
    for name, scores in expected.metrics.items():
        assert numbers(found.metrics[name]) == numbers(scores), name


@pytest.mark.parametrize("case", ["llama", "neox"])
@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_a_run_that_was_stopped_goes_on_where_it_stopped(case: str, engine: str, shelf: JsonFolder):
    model, windows = shared(case), four_batches()
    names = ["ppl", "lds:k=5", "bi"]
    whole = scored(names, model=model, windows=windows, engine=engine)
    request = ScoreRequest(engine=engine)
    kept = keeping(shelf, model, engine)
    events = score_windows(model, windows, parse_metrics(names), request, kept=kept)
    for _ in range(13):  # the whole model and 8 blocks on a batch, then four more
        next(events)
    events.close()
    table, evaluated, reused = again(shelf, names, model=model, windows=windows, engine=engine)
    assert (evaluated, reused) == (4 * 9 - 13, 13)
    assert_same(table, whole)
    table, evaluated, reused = again(shelf, names, model=model, windows=windows, engine=engine)
    assert (evaluated, reused) == (0, 36)
    assert_same(table, whole)


@pytest.mark.parametrize("case", ["llama", "neox"])
@pytest.mark.parametrize("name", GAMES)
def test_a_game_that_was_stopped_goes_on_where_it_stopped(case: str, name: str, shelf: JsonFolder):
    model = shared(case)
    whole = scored((name,), model=model)
    kept = keeping(shelf, model)
    metrics = parse_metrics([name])
    events = score_windows(model, WINDOWS, metrics, ScoreRequest(), kept=kept)
    for _ in range(4):
        next(events)
    events.close()
    assert (kept.n_evaluated, kept.n_reused) == (4, 0)
    n_sets = metrics[name.split(":")[0]].n_sets(8)
    table, evaluated, reused = again(shelf, (name,), model=model)
    assert evaluated + reused == n_sets and evaluated <= n_sets - 4
    assert_same(table, whole)
    assert again(shelf, (name,), model=model)[1:] == (0, n_sets)


def test_more_orders_start_from_the_sets_of_fewer(shelf: JsonFolder):
    first, evaluated, _ = again(shelf, ("shapley_perm:m=2",))
    more, evaluated_more, reused = again(shelf, ("shapley_perm:m=4",))
    assert reused >= evaluated == 2 + 2 * 7 and evaluated_more <= 2 * 7
    assert_same(more, scored(("shapley_perm:m=4",)))
    # Without b alone, with everything: sets are shared between the metrics that ask for them.
    assert first.metrics["shapley_perm"].baseline == more.metrics["shapley_perm"].baseline


def test_all_that_is_kept_gives_the_same_table(shelf: Store):
    whole = scored(KEPT_NAMES, windows=PADDED)
    for store in (shelf, Store()):
        again(store, KEPT_NAMES, windows=PADDED)
        table, evaluated, _ = again(store, KEPT_NAMES, windows=PADDED)
        assert evaluated == 0
        assert_same(table, whole)


def test_more_windows_reuse_the_first_batches(shelf: JsonFolder):
    windows = four_batches()
    fewer = replace(
        windows, input_ids=windows.input_ids[:32], attention_mask=windows.attention_mask[:32]
    )
    again(shelf, ["ppl"], windows=fewer)
    table, evaluated, reused = again(shelf, ["ppl"], windows=windows)
    assert (evaluated, reused) == (18, 18)
    assert_same(table, scored(["ppl"], windows=windows))


def test_a_metric_that_is_added_is_computed_from_the_whole_model_s_output(shelf: JsonFolder):
    """LDS keeps rows of the dense model, which are not stored: they have to be made anew."""
    again(shelf, ["ppl"])
    table, *_ = again(shelf, ["ppl", "lds:k=5", "kl"])
    assert_same(table, scored(["ppl", "lds:k=5", "kl"]))
    assert again(shelf, ["kl"])[1:] == (0, 9)
    assert again(shelf, ["kl", "ppl"])[1:] == (0, 9)


def test_a_unit_that_is_added_needs_the_whole_model_again(shelf: JsonFolder):
    """The whole model's own numbers are known, and still it has to be read for what is compared."""
    names = ["lds:k=5", "norm"]
    again(shelf, names, unit="attn")
    table, evaluated, reused = again(shelf, names, unit="block")
    assert (evaluated, reused) == (4, 5)
    assert_same(table, scored(names, unit="block"))


def test_statistics_are_gathered_even_if_every_evaluation_is_known(shelf: JsonFolder):
    again(shelf, ["ppl"])
    table, evaluated, _ = again(shelf, ["ppl", "bi", "cka"])
    assert evaluated == 0
    assert_same(table, scored(["ppl", "bi", "cka"]))


def test_what_was_computed_from_something_else_is_not_reused(shelf: JsonFolder):
    names, n = ["lds:k=5", "shapley_perm:m=1"], 9 + 2 + 7
    assert again(shelf, names)[1:] == (n, 0)
    assert again(shelf, names)[1:] == (0, n)
    llama = tiny.CASES["llama"]
    half = wrap(tiny.module(*llama).to(torch.bfloat16), tiny.tokenizer(), name="llama")
    renamed = wrap(tiny.module(*llama), tiny.tokenizer(), name="other")
    retrained = wrap(tiny.module(*llama, seed=1), tiny.tokenizer(), name="llama")
    for model in (half, renamed, retrained):
        assert again(shelf, names, model=model)[1:] == (n, 0)
    revised = wrap(tiny.module(*llama), tiny.tokenizer(), name="llama")
    revised.info = replace(revised.info, revision="other")
    assert again(shelf, names, model=revised)[1:] == (n, 0)
    assert again(shelf, names, windows=tiny.windows(3, 16, seed=2))[1:] == (n, 0)
    assert again(shelf, names, windows=PADDED)[1:] == (n, 0)
    assert again(shelf, names, engine="reference")[1:] == (n, 0)
    assert again(shelf, ["lds:k=6"])[1:] == (9, 0)
    assert again(shelf, ["lds:k=5:space=centered"])[1:] == (9, 0)
    assert again(shelf, names)[1:] == (0, n)


def test_one_changed_weight_is_noticed(shelf: JsonFolder):
    model = tiny.model("llama")
    again(shelf, ["ppl"], model=model)
    assert again(shelf, ["ppl"], model=model)[1] == 0
    with tiny.zeroed(model, "llama", tiny.ids("2.attn")):
        assert again(shelf, ["ppl"], model=model)[1] == 9


FORMULA = """
from dataclasses import dataclass
from blockviz.metrics import AblationMetric

def factor():
    return {factor}

@dataclass(frozen=True)
class Mine(AblationMetric):
    name, title, meaning, reference = "mine", "Mine", "A test.", "https://example.org"

    def per_position(self, readout, kept):
        return readout.log_sum_exp * factor()
"""


def test_a_changed_formula_is_computed_anew(
    shelf: JsonFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    found = []
    for factor in (1, 1, 20):  # in a function beside the class: its own text stays the same
        (tmp_path / "mine_metric.py").write_text(FORMULA.format(factor=factor))
        sys.modules.pop("mine_metric", None)
        importlib.invalidate_caches()
        metric: Metric = importlib.import_module("mine_metric").Mine()
        kept = keeping(shelf)
        table = run(
            score_windows(shared("llama"), WINDOWS, {"mine": metric}, ScoreRequest(), kept=kept)
        )
        found.append((kept.n_evaluated, next(iter(table.metrics["mine"].values.values()))))
    assert [n for n, _ in found] == [9, 0, 9]
    assert found[2][1] == pytest.approx(20 * found[0][1])


def test_a_metric_whose_text_does_not_say_all_is_never_kept(shelf: JsonFolder):
    def made(factor: float) -> Metric:
        @dataclass(frozen=True)
        class Local(LayersOnly):
            def per_position(self, readout, kept):
                return factor * readout.log_sum_exp

        return Local()

    assert identity_of(made(1)) is None
    for factor in (1.0, 3.0):
        kept = keeping(shelf)
        metrics = {"local": made(factor)}
        run(score_windows(shared("llama"), WINDOWS, metrics, ScoreRequest(), kept=kept))
        assert (kept.n_evaluated, kept.n_reused) == (5, 0)


def test_identities_tell_settings_and_classes_apart():
    metrics = [*parse_metrics(["ppl", "lds", "kl"]).values(), *parse_metrics(["lds:k=7"]).values()]
    identities = [identity_of(m) for m in metrics]
    assert None not in identities and len({*identities}) == 4
    assert identity_of(parse_metrics(["lds:k=7"])["lds"]) == identities[3]


def test_damaged_and_unfinished_files_are_computed_anew(shelf: JsonFolder, tmp_path: Path):
    whole, *_ = again(shelf, ["ppl"])
    files = sorted((tmp_path / "results").rglob("*.json"))
    assert len(files) == 9
    kept = files[3].read_text()
    n = len(unsealed(kept))
    files[0].write_text("[1.0, 2")
    files[1].write_text(sealed([1.0]))  # of another number of windows
    files[2].write_text(sealed({"no": "list"}))
    files[3].write_text(kept.replace(": [", ": [1", 1))  # a digit more
    files[4].write_text(sealed([None] * n))
    files[5].write_text('{"value": [NaN, NaN]}')
    table, evaluated, reused = again(shelf, ["ppl"])
    assert (evaluated, reused) == (6, 3)
    assert_same(table, whole)


def test_a_folder_where_a_file_should_be_costs_what_would_have_been_kept(shelf, tmp_path):
    whole, *_ = again(shelf, ["ppl"])
    (first, *_) = sorted((tmp_path / "results").rglob("*.json"))
    first.unlink()
    first.mkdir()
    table, evaluated, reused = again(shelf, ["ppl"])
    assert (evaluated, reused) == (1, 8)
    assert_same(table, whole)


def test_a_full_disk_costs_what_would_have_been_kept_and_not_the_run(
    caplog: pytest.LogCaptureFixture,
):
    class Full:
        def get(self, key: str) -> None:
            return None

        def put(self, key: str, value: object) -> None:
            raise OSError(28, "No space left on device")

    table, evaluated, _ = again(Full(), ["ppl", "shapley_perm:m=1"])
    assert evaluated == 9 + 9
    assert_same(table, scored(["ppl", "shapley_perm:m=1"]))
    assert [r.message for r in caplog.records] == [
        "Results are not kept for a next run: No space left on device."
    ]


def test_a_sweep_counts_what_it_ran_and_what_it_knew(shelf: JsonFolder):
    model, metrics = shared("llama"), tuple(parse_metrics(["ppl", "norm"]).values())
    how = {"candidates": model.info.units("block"), "batch_tokens": 16}
    first = run(sweep(model, WINDOWS, metrics, kept=keeping(shelf), **how))
    assert (first.n_evaluated, first.n_reused) == (27, 0)
    second = run(sweep(model, WINDOWS, metrics, kept=keeping(shelf), **how))
    assert (second.n_evaluated, second.n_reused) == (0, 27)
    for one, other in zip(first.tables, second.tables, strict=True):
        assert torch.equal(one.baseline, other.baseline) and torch.equal(one.counts, other.counts)
        assert all(torch.equal(v, other.values[b]) for b, v in one.values.items())


def test_check_request_refuses_what_cannot_be():
    for request, says in [
        (ScoreRequest(unit="head"), "no such unit"),
        (ScoreRequest(metrics=("acc",)), "--tasks"),
        (ScoreRequest(metrics=("tabp_ddf:form=choices",)), "--tasks"),
        (ScoreRequest(metrics=("",)), "None was named"),
        (ScoreRequest(metrics=("acc",), tasks="piqa", limit=0), "first 0 rows"),
    ]:
        with pytest.raises(BadInput, match=says):
            check_request(request)
    with pytest.raises(BadSource, match="Did you mean piqa"):
        check_request(ScoreRequest(metrics=("acc",), tasks="piqaa"))
    assert "acc" in check_request(ScoreRequest(metrics=("all",), tasks="piqa"))
    assert "acc" not in check_request(ScoreRequest(metrics=("all",)))


def test_all_leaves_out_what_a_model_cannot_have_and_a_name_is_refused():
    """A model that lost half a layer has no last matrix there."""
    half = tiny.model("llama").prune(tiny.plan("1.attn"))
    found = run(score_request_of(half, "all"))
    assert "cvr" not in found.metrics and "bi" in found.metrics
    with pytest.raises(UnsupportedModel, match=r"The last linear map of 1\.attn was wanted"):
        run(score_request_of(half, "cvr,bi"))


def score_request_of(model, names):
    request = ScoreRequest(metrics=tuple(names.split(",")), n_samples=3, seq_len=20)
    metrics = check_request(request)
    cheap = {n: m for n, m in metrics.items() if m.cost in ("one pass", "no data")}
    return score_windows(model, tiny.windows(), cheap, request)


def test_what_is_partial_is_always_a_table(monkeypatch):
    """Questions are answered in groups, whose answers so far are not the scores so far."""
    monkeypatch.setattr(choices, "_GROUP_BATCHES", 0.01)
    names = ("bi", "ppl", "acc", "taylor:n=2", "shapley_perm:m=2", "tabp_ddf:form=choices")
    metrics = parse_metrics(names, has_tasks=True)
    events = list(
        score_windows(shared("llama"), WINDOWS, metrics, ScoreRequest(metrics=names), tasks=TASKS)
    )
    assert sum(e.stage.startswith("Asking") for e in events[:-1]) > 20
    partials = [e.partial for e in events[:-1] if e.partial is not None]
    assert partials and all(isinstance(p, ScoreTable) and p.is_partial for p in partials)
    assert not events[-1].result.is_partial
