"""Sparse models against a slow walk with hooks, their states, tables, and the command."""

from __future__ import annotations

import copy
import functools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from test_cli import folder, own_cache, refusal, text
from test_cli_correct import DATA, FIT, PLAN, found_info, losses, other, windows

from blockviz.cli import main, sparsify_commands
from blockviz.corrections import CORRECTIONS, Repair, fit, repaired_model
from blockviz.corrections.linears import linear_maps, weight_of
from blockviz.corrections.sparse import SCORES, Pattern, compensated
from blockviz.corrections.sparsifying import NoCorrection, Sparsity, sparsify
from blockviz.errors import BadInput, BadPlan, UnsupportedModel
from blockviz.models.model import BlockModel
from blockviz.models.writers import writer
from blockviz.session.opening import provenance_of
from blockviz.session.repair_state import STATE, load_repair, save_repair
from blockviz.session.repair_views import RepairRequest
from blockviz.session.sparsify_views import SparseTable, SparsifyRequest
from blockviz.session.sparsifying import sparsify_windows
from blockviz.settings import parse_method
from blockviz.types import BlockId, CalibrationSet, run

__all__ = ["folder", "other", "own_cache", "text"]

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("1.attn", "2.mlp")
FIT_SET, OTHER = tiny.windows(6, 20), tiny.windows(5, 20, seed=6)
QKV, GATED = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
# Case -> the linear maps of its attention and of its MLP.
LINEARS = {
    **dict.fromkeys(tiny.CASES, (QKV, GATED)),
    "phi3": (("o_proj", "qkv_proj"), ("gate_up_proj", "down_proj")),
    "gpt2": (("c_attn", "c_proj"), ("c_fc", "c_proj")),
    **dict.fromkeys(
        ("neox", "neox-serial"),
        (("query_key_value", "dense"), ("dense_h_to_4h", "dense_4h_to_h")),
    ),
}

shared = functools.cache(tiny.model)
every_case = pytest.mark.parametrize("case", tiny.CASES)


def asked(score: str, pattern: str = "2:4", **more) -> Sparsity:
    return Sparsity(parse_method(SCORES, score), Pattern.parse(pattern), **more)


def bare(*names: str) -> Repair:
    return Repair(NoCorrection(), tiny.plan(*(names or NAMES)))


def sparse(
    model: BlockModel, score: str, pattern: str = "2:4", *, repair=None, on=FIT_SET, **more
) -> Repair:
    batch = {"batch_tokens": more.pop("batch_tokens", 2048)}
    return run(sparsify(model, repair or bare(), on, asked(score, pattern, **more), **batch))


# -- the slow way --


def lowest(scores: np.ndarray, pattern: str) -> np.ndarray:
    """True where a weight goes, by sorting one group of one row after the other."""
    gone = np.zeros(scores.shape, dtype=bool)
    for row, values in enumerate(scores):
        if ":" in pattern:
            n, m = map(int, pattern.split(":"))
            for start in range(0, len(values), m):
                gone[row, start + np.argsort(values[start : start + m])[: m - n]] = True
        else:
            gone[row, np.argsort(values)[: round(float(pattern) * len(values))]] = True
    return gone


def slow_scores(name: str, w: np.ndarray, x: np.ndarray) -> np.ndarray:
    if name == "wanda":
        return np.abs(w) * np.sqrt((x**2).sum(axis=0))
    return np.abs(w) * x.var(axis=0) ** 0.25 * (w.var(axis=0) + 1e-8) ** -0.25


def noted(found: list[torch.Tensor], _module: object, args: tuple, _output: object) -> None:
    found.append(args[0])


def slow(
    case: str, start: BlockModel, name: str, pattern: str, *, on=FIT_SET, energy=(), first=1,
    is_sequential=True,
) -> BlockModel:  # fmt: skip
    """A copy of a model whose layers were made sparse one by one, each after plain forwards of the
    whole model, window by window, with hooks on its linear maps."""
    family, info = start.family, start.info
    changed = BlockModel(copy.deepcopy(start.module), start.tokenizer, family, info)
    source = changed if is_sequential else start
    for layer in range(tiny.LAYERS):
        reads: dict[str, list[torch.Tensor]] = {}
        handles, paths = [], []
        for block, names in zip(BlockId(layer, "layer").parts, LINEARS[case], strict=True):
            if str(block) in NAMES:
                continue
            for one in names:
                path = f"{family.module(block.part)}.{one}"
                paths.append(path)
                note = functools.partial(noted, reads.setdefault(path, []))
                module = source.layers[layer].get_submodule(path)
                handles.append(module.register_forward_hook(note))
        for batch in on.batches(1):
            with source.masked(tiny.plan(*NAMES)):
                source.logits(batch)
        for handle in handles:
            handle.remove()
        for path in paths:
            rows = [
                read[0, first : int(mask.sum())].double()
                for read, mask in zip(reads[path], on.attention_mask, strict=True)
            ]
            module = changed.layers[layer].get_submodule(path)
            with torch.no_grad():
                weight = module.weight.T if case == "gpt2" else module.weight
                scores = slow_scores(name, weight.double().numpy(), torch.cat(rows).numpy())
                gone = torch.from_numpy(lowest(scores, pattern))
                new = compensated(weight, gone, energy)
                module.weight.copy_(new.T if case == "gpt2" else new)
    return changed


def check_same(found: BlockModel, expected: BlockModel) -> None:
    """Every weight of blocks that run."""
    for block in (b.id for b in expected.info.blocks if str(b.id) not in NAMES):
        for path, module in linear_maps(found, block).items():
            other = expected.layers[block.layer].get_submodule(path).weight
            assert torch.equal(module.weight != 0, other != 0), (block, path)
            torch.testing.assert_close(module.weight, other, rtol=1e-5, atol=1e-6)


@every_case
@pytest.mark.parametrize(("name", "pattern"), [("wanda", "2:4"), ("cvr", "0.4"), ("cvr", "4:8")])
def test_it_is_what_a_slow_walk_with_hooks_gives(case: str, name: str, pattern: str) -> None:
    model = shared(case)
    found = repaired_model(model, sparse(model, name, pattern))
    expected = slow(case, model, name, pattern)
    check_same(found, expected)
    with expected.masked(tiny.plan(*NAMES)):
        logits = expected.logits(tiny.batch())
    assert tiny.distance(found.logits(tiny.batch()), logits) < 1e-5


@pytest.mark.parametrize("case", ["llama", "gpt2", "neox"])
@pytest.mark.parametrize("name", ["wanda", "cvr"])
def test_layers_in_front_are_sparse_already_or_not_as_asked(case: str, name: str) -> None:
    model = shared(case)
    label = f"{name}:is_sequential=false"
    found = repaired_model(model, sparse(model, label, "0.5", energy=("column", "row")))
    how = {"energy": ("row", "column")}
    check_same(found, slow(case, model, name, "0.5", is_sequential=False, **how))
    behind = repaired_model(model, sparse(model, name, "0.5", **how))
    check_same(behind, slow(case, model, name, "0.5", **how))
    # What the first layer reads is the same; what the last one reads is not.
    first, last = (
        [
            torch.equal(a.weight, b.weight)
            for a, b in zip(
                linear_maps(found, BlockId(layer, "mlp")).values(),
                linear_maps(behind, BlockId(layer, "mlp")).values(),
                strict=True,
            )
        ]
        for layer in (0, 3)
    )
    assert all(first) and not any(last)


@pytest.mark.parametrize("tokens", ["all", "skip_first"])
def test_padding_has_no_say_and_the_first_position_as_asked(tokens: str) -> None:
    model = shared("llama")
    padded = tiny.windows(4, 20, lengths=(20, 9, 4, 13))
    found = repaired_model(model, sparse(model, f"wanda:tokens={tokens}", on=padded))
    first = int(tokens == "skip_first")
    check_same(found, slow("llama", model, "wanda", "2:4", on=padded, first=first))
    ids = padded.input_ids.clone()
    ids[~padded.attention_mask] = 9
    noisy = CalibrationSet(ids, padded.attention_mask, padded.origin)
    again = repaired_model(model, sparse(model, f"wanda:tokens={tokens}", on=noisy))
    check_same(again, found)


@pytest.mark.parametrize("score", ["cvr", "wanda"])
def test_it_is_the_same_for_every_size_of_batch(score: str) -> None:
    model = shared("qwen3")
    found = [
        repaired_model(model, sparse(model, score, "0.5", energy=("column",), batch_tokens=n))
        for n in (1, 40, 80, 2048)
    ]
    for one in found[1:]:
        check_same(one, found[0])


# -- what is changed and what is not --


@every_case
def test_only_matrices_of_surviving_blocks_are_changed(case: str) -> None:
    model = shared(case)
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    repair = sparse(model, "magnitude", "0.5", energy=("column", "row"))
    survivors = {b.id for b in model.info.blocks} - set(tiny.ids(*NAMES))
    assert set(repair.weights) == survivors and repair.maps == repair.writers == {}
    for block, tensors in repair.weights.items():
        names = LINEARS[case][block.part == "mlp"]
        prefix = model.family.module(block.part)
        assert set(tensors) == {f"{prefix}.{name}.weight" for name in names}
    found = repaired_model(model, repair)
    mine = {t.data_ptr() for t in model.module.parameters()}
    changed = [n for n, t in found.module.named_parameters() if t.data_ptr() not in mine]
    assert len(changed) == sum(len(tensors) for tensors in repair.weights.values())
    after = model.module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())
    assert found.n_added == 0


def test_gpt2_keeps_its_matrices_the_other_way_round():
    """Groups of four run along the inputs, which are the rows there."""
    repair = sparse(shared("gpt2"), "wanda")
    stored = repair.weights[BlockId(0, "attn")]["attn.c_proj.weight"]
    kept = stored != 0
    assert stored.shape == (32, 32)
    assert kept.unflatten(0, (-1, 4)).sum(dim=1).unique().tolist() == [2]
    assert kept.unflatten(1, (-1, 4)).sum(dim=2).unique().tolist() != [2]
    wide = repair.weights[BlockId(0, "mlp")]["mlp.c_fc.weight"]
    assert wide.shape == (32, 128)
    # Half of what each output reads, by Wanda's rows.
    half = sparse(shared("gpt2"), "wanda", "0.5").weights[BlockId(0, "mlp")]["mlp.c_fc.weight"]
    assert (half == 0).sum(dim=0).unique().tolist() == [16]


@pytest.mark.parametrize("names", [("0.layer", "2.layer"), ("3.layer",), ("0.attn", "3.mlp"), ()])
def test_any_plan_will_do_and_no_plan_is_the_whole_model(names: tuple[str, ...]) -> None:
    model = shared("llama")
    repair = sparse(model, "wanda", repair=Repair(NoCorrection(), tiny.plan(*names)))
    found = repaired_model(model, repair)
    blocks = [b.id for b in model.info.blocks if repair.plan.keeps(b.id)]
    matrices = [weight_of(m) for b in blocks for m in linear_maps(found, b).values()]
    assert {float((m == 0).float().mean()) for m in matrices} == {0.5}
    assert set(repair.weights) == set(blocks)
    assert found.logits(tiny.batch()).isfinite().all()


def test_two_passes_at_most_and_none_without_a_look():
    model = shared("llama")
    assert 1.5 < sparse(model, "wanda").passes < 2
    assert sparse(model, "wanda:is_sequential=false").passes == 1
    assert sparse(model, "magnitude", on=None).passes == 0
    assert sparse(model, "wanda").n_tokens == 6 * 19
    assert sparse(model, "cvr:tokens=all").n_tokens == 6 * 20


# -- on top of a correction --


def corrected(model: BlockModel, name: str) -> Repair:
    correction = parse_method(CORRECTIONS, name)
    return run(fit(model, tiny.plan(*NAMES), correction, tiny.windows(24, 20)))


MADE = ["writer_refit", "fold_asc", "ridge", "asc:site=norm_out", "none"]


@pytest.mark.parametrize("name", MADE)
def test_a_correction_stays_and_its_weights_are_made_sparse(name: str) -> None:
    """The first two give writers a bias, ridge maps the stream, asc here what blocks read."""
    model = shared("llama")
    repair = bare() if name == "none" else corrected(model, name)
    start = repaired_model(model, repair)
    made = sparse(model, "wanda", repair=repair)
    found = repaired_model(model, made)
    assert made.writers == {} and (made.maps, made.inputs) == (repair.maps, repair.inputs)
    for block in made.weights:
        for path, module in linear_maps(found, block).items():
            dense = start.layers[block.layer].get_submodule(path)
            kept = module.weight != 0
            assert torch.equal(module.weight[kept], dense.weight[kept])
            assert int(kept.sum()) == dense.weight.numel() // 2
            assert dense.bias is None or torch.equal(module.bias, dense.bias)
    biased = {block for block, writing in repair.writers.items() if writing.bias is not None}
    assert biased == set(repair.writers)
    assert bool(biased) == (name in ("fold_asc", "writer_refit"))
    for block in biased:
        assert not torch.equal(writer(found, block).bias, writer(model, block).bias)
    assert made.notes[-1] == "Weights made sparse: 2:4 by wanda."
    assert made.n_tokens == (repair.n_tokens or 6 * 19) and made.fits == repair.fits


def test_what_a_corrected_model_reads_is_looked_at_not_the_bare_plans():
    model = shared("llama")
    repair = corrected(model, "writer_refit")
    start = repaired_model(model, repair)
    plain = BlockModel(copy.deepcopy(model.module), model.tokenizer, model.family, model.info)
    with torch.no_grad():
        for block in repair.writers:
            for path, module in linear_maps(start, block).items():
                own = plain.layers[block.layer].get_submodule(path)
                own.weight.copy_(module.weight)
                own.bias.copy_(module.bias)
    found = repaired_model(model, sparse(model, "wanda", repair=repair))
    check_same(found, slow("llama", plain, "wanda", "2:4"))


@pytest.mark.parametrize("flag", ["true", "false"])
def test_the_map_of_a_layer_that_is_gone_is_gone_through(flag: str) -> None:
    """What layer 2 reads has been through the map that stands for layer 1."""
    model, plan = shared("llama"), tiny.plan("1.layer")
    repair = run(fit(model, plan, parse_method(CORRECTIONS, "ridge"), tiny.windows(24, 20)))
    made = sparse(model, f"wanda:is_sequential={flag}", repair=repair)
    weights = {b: w for b, w in made.weights.items() if b.layer < 2 and flag == "true"}
    start = repaired_model(model, replace(repair, weights=weights))
    module, reads = linear_maps(start, BlockId(2, "attn"))["self_attn.q_proj"], []
    handle = module.register_forward_hook(functools.partial(noted, reads))
    start.logits(tiny.batch(6, 20))
    handle.remove()
    rows = reads[0][:, 1:].flatten(0, 1).double().numpy()
    gone = lowest(slow_scores("wanda", module.weight.detach().numpy(), rows), "2:4")
    found = made.weights[BlockId(2, "attn")]["self_attn.q_proj.weight"]
    np.testing.assert_array_equal(found == 0, gone)


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize(("case", "dtype"), [("llama", torch.bfloat16), ("gpt2", torch.float32)])
def test_a_saved_sparse_model_is_the_same_one_bit_for_bit(case, dtype, name, tmp_path) -> None:
    def made() -> BlockModel:
        model = tiny.model(case)
        model.module.to(dtype)
        return model

    model = made()
    repair = bare() if name == "none" else corrected(model, name)
    done = sparse(model, "cvr", "0.5", repair=repair, energy=("column",))
    save_repair(tmp_path / "s", model, done, provenance_of(model, FIT_SET.origin))
    found = load_repair(tmp_path / "s", made())
    assert (found.correction, found.plan.removed) == (repair.correction, repair.plan.removed)
    assert (found.notes, found.n_tokens) == (done.notes, done.n_tokens)
    one, other = repaired_model(model, done), repaired_model(made(), found)
    assert torch.equal(one.logits(tiny.batch()), other.logits(tiny.batch()))
    ours, theirs = one.module.state_dict(), other.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert json.loads((tmp_path / "s" / STATE).read_text())["notes"] == list(done.notes)


# -- refusals --


def test_a_width_that_is_no_multiple_is_refused():
    model = tiny.model("llama", intermediate_size=50)
    with pytest.raises(UnsupportedModel) as refused:
        sparse(model, "magnitude", "4:8")
    assert refused.value.asked == "4:8 zeros were asked for, in groups of 8 inputs."
    assert refused.value.found.startswith("mlp.down_proj of layer 0 reads 50 inputs")
    assert refused.value.todo.startswith("Use a pattern N:M whose M divides 50")
    assert sparse(model, "magnitude", "1:2").weights
    assert sparse(model, "magnitude", "4:8", repair=bare(*(f"{i}.mlp" for i in range(4)))).weights


def test_matrices_outside_of_linear_maps_are_refused():
    model = tiny.model("llama")
    model.part(BlockId(3, "mlp")).experts = torch.nn.Parameter(torch.zeros(2, 3, 4))
    with pytest.raises(UnsupportedModel, match=r"of 3\.mlp .* keeps experts outside of one"):
        sparse(model, "magnitude")


def test_too_little_memory_and_no_position_are_refused():
    model = shared("llama")
    blocks = [b.id for b in model.info.blocks if str(b.id) not in NAMES]
    n = sum(m.weight.numel() for b in blocks for m in linear_maps(model, b).values())
    room = 4 * (n + 6 * 20 * 32)
    run(sparsify(model, bare(), FIT_SET, asked("wanda"), memory_bytes=room))
    with pytest.raises(BadInput, match=r"to be made sparse by wanda, on 120 tokens"):
        run(sparsify(model, bare(), FIT_SET, asked("wanda"), memory_bytes=room - 1))
    run(sparsify(model, bare(), None, asked("magnitude"), memory_bytes=4 * n))
    for none in (None, tiny.windows(3, 20, lengths=(1, 1, 1))):
        with pytest.raises(BadInput, match="no position is left"):
            run(sparsify(model, bare(), none, asked("cvr")))


def test_scores_that_are_no_numbers_are_refused():
    model = tiny.model("llama")
    with torch.no_grad():
        model.part(BlockId(2, "attn")).k_proj.weight[0, 0] = float("nan")
    with pytest.raises(BadInput, match=r"k_proj in layer 2 were to be scored by magnitude"):
        sparse(model, "magnitude")


def test_energies_and_bounds_that_are_none_are_refused():
    with pytest.raises(BadInput, match="Only columns and rows have one"):
        asked("wanda", energy=("diagonal",))
    for clip in ((0.0, 2.0), (1.5, 2.0), (0.5, 0.9), (0.5, math.inf), (math.nan, 2.0)):
        with pytest.raises(BadInput, match="the bounds must be around it"):
            asked("wanda", clip=clip)


# -- the table --


def table_of(model: BlockModel, scores: tuple[str, ...], correction: str = "none", **more):
    plan = tiny.plan(*more.pop("names", NAMES))
    kept: list[Repair] = []
    request = SparsifyRequest(RepairRequest(plan, (correction,)), scores, **more)
    found = run(sparsify_windows(model, FIT_SET, OTHER, request, kept.append))
    return found, kept


def test_the_table_has_a_row_a_variant_with_what_each_holds():
    model = shared("llama")
    how = {"pattern": "2:4", "energy": ("row", "column")}
    found, kept = table_of(model, ("cvr", "magnitude"), "writer_refit", **how)
    assert [row.label() for row in found.rows] == [
        "original",
        "pruned",
        "pruned + writer_refit",
        "pruned + writer_refit + cvr",
        "pruned + writer_refit + cvr + energy",
        "pruned + writer_refit + magnitude",
        "pruned + writer_refit + magnitude + energy",
    ]
    whole = losses(model.module, OTHER.input_ids)
    for row, repair in zip(found.sparse, kept, strict=True):
        nll = losses(repaired_model(model, repair).module, OTHER.input_ids)
        assert row.nll == pytest.approx(sum(nll) / 5, rel=1e-5)
        assert row.rise == pytest.approx((sum(nll) - sum(whole)) / 5, abs=1e-5)
        paired = torch.tensor(nll) - torch.tensor(whole)
        assert row.rise_stderr == pytest.approx(paired.std().item() / math.sqrt(5), rel=1e-3)
        assert row.energy == (("column", "row") if "energy" in row.label() else ())
    n_all, gone = model.info.n_parameters, model.info.parameters_of(tiny.ids(*NAMES))
    n_matrices = 4 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 48) - 3072 - 4608
    original, plan, *_ = found.rows
    assert (original.n_nonzero, original.sparsity, original.rise) == (n_all, 0.0, 0.0)
    assert (plan.n_parameters, plan.n_weights, plan.n_zeros) == (n_all - gone, n_matrices, 0)
    for row in found.sparse:
        assert (row.n_weights, row.n_zeros, row.sparsity) == (n_matrices, n_matrices // 2, 0.5)
        assert row.n_nonzero == n_all - gone - n_matrices // 2
    assert SparseTable.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_without_a_plan_or_a_text_there_are_fewer_rows():
    model = shared("llama")
    found, _ = table_of(model, ("magnitude",), names=(), pattern="0.3")
    assert [row.label() for row in found.rows] == ["original", "original + magnitude"]
    request = SparsifyRequest(RepairRequest(tiny.plan(*NAMES), ()), ("magnitude",))
    found = run(sparsify_windows(model, None, OTHER, request))
    assert found.provenance.data is None and len(found.rows) == 3
    same, _ = table_of(model, ("magnitude",))
    assert same.rows[2].nll == found.rows[2].nll
    request = SparsifyRequest(RepairRequest(tiny.plan(*NAMES), ()), ("wanda",))
    assert run(sparsify_windows(model, OTHER, OTHER, request)).warning
    assert found.warning == same.warning == ""


def test_what_cannot_be_is_refused_before_anything_is_run():
    model = tiny.model("llama", intermediate_size=50)
    with pytest.raises(UnsupportedModel, match="50 inputs"):
        table_of(model, ("cvr",), pattern="2:4")
    with pytest.raises(BadPlan, match=r"9\.attn"):
        table_of(model, ("cvr",), names=("9.attn",))
    with pytest.raises(BadInput, match="may be used"):
        request = RepairRequest(tiny.plan(*NAMES), ("none",), memory_bytes=1000)
        run(sparsify_windows(model, FIT_SET, OTHER, SparsifyRequest(request)))


# -- the command --


def common(folder: Path, text: Path, other: Path) -> list[str]:
    names = ["--model", str(folder), "--calibration", str(text), "--data", str(other)]
    return ["sparsify", *names, *PLAN, *FIT, *DATA]


def test_the_command_equals_the_library_and_saves_the_state(
    folder: Path, text: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, state = tmp_path / "s.json", tmp_path / "state"
    argv = [*common(folder, text, other), "--score", "cvr:alpha=0.3", "--pattern", "2:4"]
    more = ["--energy", "row,column", "--correction", "writer_refit", "--out", str(out)]
    assert main([*argv, *more, "--state", str(state)]) == 0
    data = json.loads(out.read_text())
    assert data["schema"] == "blockviz/sparsify/1" and "partial" not in data
    found = SparseTable.from_json(data)
    assert [row.label() for row in found.sparse] == [
        "pruned + writer_refit + cvr:alpha=0.3",
        "pruned + writer_refit + cvr:alpha=0.3 + energy",
    ]
    ids = windows(text, 0, 12, 32)
    fit_set = CalibrationSet(ids, torch.ones_like(ids, dtype=torch.bool), FIT_SET.origin)
    model = tiny.model("llama")
    refit = parse_method(CORRECTIONS, "writer_refit")
    repair = run(fit(model, tiny.plan(*NAMES), refit, fit_set))
    for row, energy in zip(found.sparse, ((), ("column", "row")), strict=True):
        made = sparse(model, "cvr:alpha=0.3", repair=repair, on=fit_set, energy=energy)
        nll = losses(repaired_model(model, made).module, windows(other, 0, 5, 24))
        assert row.nll == pytest.approx(sum(nll) / 5, rel=1e-4)
    assert (found.provenance.data.n_samples, found.evaluation.data.n_samples) == (12, 5)

    model.info = found_info(folder)
    loaded = repaired_model(model, load_repair(state, model)).module
    assert losses(loaded, windows(other, 0, 5, 24)) == pytest.approx(nll, rel=1e-5)
    shown = capsys.readouterr()
    assert "+ energy: perplexity" in shown.err
    head, *rows = shown.out.splitlines()
    assert "nonzero parameters" in head and "zeros" in head and "rise" in head
    assert rows[3].count("50.00 %") == 1 and f"{found.sparse[0].n_nonzero:,}" in rows[3]
    assert "its file gets no smaller" in shown.out
    assert f"Saved: pruned + writer_refit + cvr:alpha=0.3 + energy in {state}" in shown.out


def test_several_scores_are_rows_of_one_table(
    folder: Path, text: Path, other: Path, tmp_path: Path
) -> None:
    out = tmp_path / "s.json"
    argv = [*common(folder, text, other), "--score", "cvr, wanda,magnitude", "--pattern", "0.25"]
    assert main([*argv, "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["score"] for row in rows] == ["", "", "cvr", "wanda", "magnitude"]
    assert {row["sparsity"] for row in rows[2:]} == {0.25}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--pattern", "4:2"), "0 < N < M"),
        (("--pattern", "1.5"), "a share of zeros between 0 and 1"),
        (("--score", "wandaa"), "Did you mean 'wanda'"),
        (("--score", "magnitude:alpha=1"), "no setting"),
        (("--score", ","), "No score was named"),
        (("--energy", "colum"), "Only columns and rows"),
        (("--energy-clip", "2"), "They are not two numbers"),
        (("--energy-clip", "2,3"), "must be around it"),
        (("--correction", "mean,ridge"), "at a time"),
        (("--correction", "ridgee"), "Did you mean 'ridge'"),
        (("--fit-samples", "0"), "0 windows to look at"),
        (("--n-samples", "0"), "0 windows to measure on"),
        (("--score", "cvr,wanda", "--state", "s"), "One state holds those of one score"),
        (("--state", "/no/such/folder/s"), "new or empty folder"),
        (("--out", "/no/such/folder/s.json"), "Give --out"),
    ],
)
def test_what_cannot_be_is_refused_before_the_model_is_read(
    more: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(capsys, "sparsify", "--model", "no/such-model", *PLAN, *more)
    assert says in error and "no/such-model" not in error


def test_a_correction_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "The plan removes nothing" in refusal(capsys, "sparsify", "--correction", "ridge")


def test_a_width_is_refused_by_the_command(
    folder: Path, text: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, *argv = common(folder, text, other)
    assert "reads 32 inputs" in refusal(capsys, "sparsify", *argv, "--pattern", "3:7")


@pytest.mark.parametrize("n_rows", [1, 3])
def test_ctrl_c_keeps_the_rows_done(
    n_rows: int,
    folder: Path,
    text: Path,
    other: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = sparsify_commands.sparsify_request

    def stopped(*given: object):
        for event in whole(*given):
            yield event
            if event.partial and len(event.partial.rows) == n_rows:
                raise KeyboardInterrupt

    monkeypatch.setattr(sparsify_commands, "sparsify_request", stopped)
    out = tmp_path / "s.json"
    argv = [*common(folder, text, other), "--score", "wanda,magnitude", "--out", str(out)]
    assert main(argv) == 130
    data = json.loads(out.read_text())
    assert data["partial"] is True and len(data["rows"]) == n_rows
    assert f"{max(0, n_rows - 2)} of 2 sparse rows" in capsys.readouterr().err
    assert SparseTable.from_json(data).is_partial
