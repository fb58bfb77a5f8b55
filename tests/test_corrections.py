"""Published corrections by hand, by numpy from their formulas, and by the laws they must obey."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from blockviz.corrections import (
    CORRECTIONS,
    Asc,
    Correction,
    Diag,
    DiagLeastSquares,
    FoldAsc,
    Hadamard,
    LowRank,
    Mean,
    Repair,
    ReplaceMe,
    Ridge,
    Scalar,
    fit,
    repaired_model,
)
from blockviz.corrections.base import Pair, Place, Writing
from blockviz.corrections.hadamard_matrix import hadamard, hadamard_base
from blockviz.errors import BadInput, UnsupportedModel
from blockviz.models.model import BlockModel
from blockviz.models.writers import watch_inputs, writer_weight
from blockviz.settings import parse_method
from blockviz.types import BlockId, CalibrationBatch, CalibrationSet, PruningPlan, run

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("llama", "gemma3", "gpt2", "neox")
LINEAR_WRITERS = ("llama", "gpt2", "neox", "mistral")
WINDOWS = tiny.windows(4, 20, lengths=(20, 17, 20, 9))
LAYER_1 = tiny.plan("1.attn", "1.mlp")
TWO_GAPS = tiny.plan("1.attn", "1.mlp", "3.attn")
EXACT_ASC = Asc(clip=1e9, eps=0)
PUBLISHED = ("scalar", "diag", "hadamard", "asc", "diag_ls", "fold_asc")


def rows(n: int = 400, size: int = 8, *, seed: int = 0, n_windows: int = 4) -> Pair:
    """Two streams that correlate by channel, and across channels; o is a part of the first."""
    draw = torch.Generator().manual_seed(seed)
    u = torch.randn(n, size, generator=draw) * torch.linspace(0.5, 3, size) + 0.4
    mixed = u @ torch.randn(size, size, generator=draw) * 0.3
    y = 1.3 * u + mixed + torch.randn(n, size, generator=draw) * 0.5 - 0.7
    update = 0.5 * u + torch.randn(n, size, generator=draw) + 0.2
    window = torch.arange(n) * n_windows // n
    return Pair(u, y, window, update=update, features=update)


def place(size: int = 8, **more: object) -> Place:
    return Place(size, BlockId(1, "mlp"), tiny.ids("1.mlp"), **more)


def fitted(correction: Correction, *pairs: Pair, at: Place | None = None) -> nn.Module:
    fitter = correction.fitter(at or place(pairs[0].u.shape[1]))
    for pair in pairs:
        fitter.add(pair)
    return fitter.result()


def mse(correction: Correction, pair: Pair) -> float:
    """Mean square distance of what a correction makes of u to y, fitted on the same rows."""
    return float((fitted(correction, pair)(pair.u) - pair.y).double().square().mean())


def learned(
    case: str,
    plan: PruningPlan,
    correction: Correction,
    windows: CalibrationSet = WINDOWS,
    **config: object,
) -> tuple[BlockModel, Repair]:
    model = tiny.model(case, **config)
    return model, run(fit(model, plan, correction, windows))


def counted(windows: CalibrationSet, correction: Correction) -> torch.Tensor:
    mask = windows.attention_mask.clone()
    if correction.tokens != "all":
        mask[:, 0] = False
    return mask


def as_batch(windows: CalibrationSet) -> CalibrationBatch:
    return CalibrationBatch(windows.input_ids, windows.attention_mask)


def streams(model: BlockModel, plan: PruningPlan | None, mask: torch.Tensor) -> dict[BlockId, dict]:
    """Block -> what it adds and the stream behind it, (token, hidden) float64, by one forward."""
    seen: dict[BlockId, dict] = {}

    def note(block: BlockId, before: torch.Tensor, update: torch.Tensor) -> None:
        kept = {"update": update, "stream": before + update}
        seen[block] = {name: value[mask].double() for name, value in kept.items()}

    with model.masked(plan or PruningPlan()), model.watch(note):
        model.logits(as_batch(WINDOWS))
    if model.family.is_parallel:
        for block in [b for b in seen if b.part == "mlp"]:
            seen[block]["stream"] = seen[BlockId(block.layer, "layer")]["stream"]
    return seen


def hooked_logits(
    model: BlockModel, plan: PruningPlan, hooks: dict[nn.Module, Callable]
) -> torch.Tensor:
    """Logits without the plan's blocks, each module's output put through a function of ours."""
    with ExitStack() as stack:
        stack.enter_context(model.masked(plan))
        for module, change in hooks.items():
            handle = module.register_forward_hook(lambda _m, _a, out, f=change: f(out))
            stack.callback(handle.remove)
        return model.logits(as_batch(WINDOWS))


def repaired_logits(model: BlockModel, repair: Repair) -> torch.Tensor:
    return repaired_model(model, repair).logits(as_batch(WINDOWS))


# What is declared.


def test_published_corrections_are_fitted_on_every_position_and_affine_ones_not_on_the_first():
    assert {n: CORRECTIONS.get(n)().tokens for n in PUBLISHED} == {
        **dict.fromkeys(("scalar", "diag", "hadamard"), "all"),
        **dict.fromkeys(("asc", "diag_ls", "fold_asc"), "skip_first"),
    }


def test_settings_are_read_from_text_and_checked():
    asc = parse_method(CORRECTIONS, "asc:site=norm_out:shrink=0.5")
    assert (asc.where, asc.shrink) == ("norm_out", 0.5)
    with pytest.raises(BadInput, match=r"asc:clip=0.5 .* from 1.0"):
        parse_method(CORRECTIONS, "asc:clip=0.5")
    with pytest.raises(BadInput, match=r"Use mean_of_ratios, ratio_of_means"):
        Scalar(pool="median")


@pytest.mark.parametrize("name", PUBLISHED)
def test_how_many_windows_go_together_changes_nothing(name: str):
    correction, model = CORRECTIONS.get(name)(), tiny.model("llama")
    one, all_ = (run(fit(model, TWO_GAPS, correction, WINDOWS, batch_tokens=n)) for n in (1, 999))
    assert tiny.distance(repaired_logits(model, one), repaired_logits(model, all_)) < 1e-5


# Prune&Comp.

HAND = Pair(
    u=torch.tensor([[1.0, 2.0], [3.0, -2.0], [1.0, 1.0]]),
    y=torch.tensor([[-4.0, 1.0], [4.0, 1.0], [1.0, 2.0]]),
    window=torch.tensor([0, 0, 1]),
)


def test_scalar_by_hand():
    # Window 0: mean |u| = (2, 2), mean |y| = (4, 1), ratios (2, 1/2); window 1: (1, 2). Means over
    # windows (1.5, 1.25), over channels 1.375. Pooled: |y| sums to 13, |u| to 10.
    assert fitted(Scalar(), HAND).scale.tolist() == [1.375]
    assert fitted(Scalar(pool="ratio_of_means"), HAND).scale.tolist() == pytest.approx([1.3])
    assert fitted(Diag(), HAND).scale.tolist() == [1.5, 1.25]


def test_a_window_may_come_in_pieces():
    pieces = [Pair(HAND.u[i], HAND.y[i], HAND.window[i]) for i in ([2, 0], [1])]
    assert fitted(Scalar(), *pieces).scale.tolist() == [1.375]
    assert fitted(Diag(), *pieces).scale.tolist() == [1.5, 1.25]


@pytest.mark.parametrize("case", FAMILIES)
def test_T_PC_1_the_map_is_an_explicit_hook_on_the_stream(case: str):
    model, repair = learned(case, LAYER_1, Scalar())
    mask = WINDOWS.attention_mask
    u = streams(model, LAYER_1, mask)[BlockId(0, "mlp")]["stream"].abs()
    y = streams(model, None, mask)[BlockId(1, "mlp")]["stream"].abs()
    number = torch.arange(len(mask))[:, None].expand(mask.shape)[mask]
    ratios = [y[number == n].mean(0) / u[number == n].mean(0) for n in range(len(mask))]
    alpha = float(torch.stack(ratios).mean())
    assert float(repair.maps[BlockId(1, "mlp")].scale) == pytest.approx(alpha, rel=1e-5)
    hooked = hooked_logits(model, LAYER_1, {model.layers[0]: lambda out: out * alpha})
    assert tiny.distance(repaired_logits(model, repair), hooked) < 1e-5


def scaled_by_hand(model: BlockModel, case: str, alpha: float, n_layers: int) -> BlockModel:
    """A copy whose embedding and first writers are alpha times as large; a tied head is evened."""
    module = copy.deepcopy(model.module)
    made = BlockModel(module, model.tokenizer, model.family, model.info)
    tables = [module.get_input_embeddings(), getattr(module.base_model, "wpe", None)]
    parts = [(BlockId(i, "layer").parts[k], k) for i in range(n_layers) for k in (0, 1)]
    writers = [made.part(block).get_submodule(tiny.WRITERS[case][k]) for block, k in parts]
    is_tied = module.config.tie_word_embeddings
    assert is_tied == (module.get_output_embeddings().weight is tables[0].weight)
    with torch.no_grad():
        for changed in filter(None, [*tables, *writers]):
            for tensor in changed.parameters(recurse=False):
                tensor *= alpha
        for tensor in made.final_norm.parameters():
            tensor /= alpha if is_tied else 1
    return made


# A norm's epsilon does not grow with the stream: at 1e-5 the two differ by 2e-4.
NO_EPSILON = {
    "llama": {"rms_norm_eps": 1e-12},
    "qwen2": {"rms_norm_eps": 1e-12},
    "gpt2": {"layer_norm_epsilon": 1e-12},
    "neox": {"layer_norm_eps": 1e-12},
}


def check_larger_weights(case: str, **config: object) -> None:
    """Larger weights in front of a gap and the map behind it give the same logits."""
    model, repair = learned(case, LAYER_1, Scalar(), **NO_EPSILON[case], **config)
    alpha = float(repair.maps[BlockId(1, "mlp")].scale)
    assert abs(alpha - 1) > 0.05
    with (larger := scaled_by_hand(model, case, alpha, 1)).masked(LAYER_1):
        logits = larger.logits(as_batch(WINDOWS))
    assert tiny.distance(repaired_logits(model, repair), logits) < 1e-5


@pytest.mark.parametrize("case", NO_EPSILON)
def test_T_PC_1_embedding_and_writers_in_front_that_are_larger_give_the_same(case: str):
    check_larger_weights(case, tie_word_embeddings=False)


@pytest.mark.parametrize("case", NO_EPSILON)
def test_T_PC_4_of_a_tied_model_if_its_final_norm_is_that_much_smaller(case: str):
    check_larger_weights(case, tie_word_embeddings=True)


@pytest.mark.parametrize("case", FAMILIES)
def test_T_PC_2_a_block_that_adds_nothing_is_made_up_for_by_nothing(case: str):
    model = tiny.model(case)
    with tiny.zeroed(model, case, LAYER_1.removed):
        maps = [run(fit(model, LAYER_1, c, WINDOWS)).maps for c in (Scalar(), Diag(), Hadamard())]
    scalar, diag, hadamard = (m[BlockId(1, "mlp")] for m in maps)
    assert scalar.scale.tolist() == [1]
    assert diag.scale.eq(1).all()
    assert hadamard.matrix.eq(0).all()


@pytest.mark.parametrize("case", FAMILIES)
def test_T_PC_3_one_positive_factor_and_no_other_number(case: str):
    model, repair = learned(case, TWO_GAPS, Scalar())
    assert all(float(m.scale) > 0 for m in repair.maps.values())
    repaired, sizes = repaired_model(model, repair), {}
    assert repaired.n_added == len(repair.maps) == 2
    for name, made in (("bare", repaired_model(model, Repair(Scalar(), TWO_GAPS))), ("", repaired)):
        sizes[name] = sum(p.numel() for p in made.module.parameters())
    assert sizes[""] == sizes["bare"]


# LinearPatch.


def patch(pair: Pair) -> torch.Tensor:
    """(hidden, hidden) float64 P of the fitted map."""
    made = fitted(Hadamard(), pair)
    return torch.eye(pair.u.shape[1], dtype=torch.float64) + made.matrix.double()


def rotated_scale(pair: Pair) -> torch.Tensor:
    """(channel,) s, from the formula, window by window."""
    turn = hadamard(pair.u.shape[1])
    found = []
    for n in pair.window.unique():
        u, y = ((x[pair.window == n].double() @ turn).abs().mean(0) for x in (pair.u, pair.y))
        found.append(y / u)
    return torch.stack(found).mean(0)


def test_hadamard_by_hand():
    # H = [[1, 1], [1, -1]] / sqrt 2 turns u = (3, 1) to (4, 2) / sqrt 2, y = (4, 4) to (8, 0): the
    # scales are 2 and 0, and P = H diag(2, 0) H^T = [[1, 1], [1, 1]] sends u to (4, 4).
    pair = Pair(torch.tensor([[3.0, 1.0]]), torch.tensor([[4.0, 4.0]]), torch.tensor([0]))
    assert patch(pair).flatten().tolist() == pytest.approx([1, 1, 1, 1])
    assert fitted(Hadamard(), pair)(pair.u).flatten().tolist() == pytest.approx([4, 4])


def test_T_LP_1_scales_of_one_leave_the_stream_bit_for_bit():
    pair = rows()
    made = fitted(Hadamard(), Pair(pair.u, pair.u, pair.window))
    assert torch.equal(made(pair.u), pair.u)
    assert torch.equal(patch(Pair(pair.u, pair.u, pair.window)), torch.eye(8).double())


@pytest.mark.parametrize("size", [8, 12, 36])
def test_T_LP_2_the_patch_is_symmetric_and_its_eigenvalues_are_the_scales(size: int):
    pair = rows(size=size)
    made, scale = patch(pair), rotated_scale(pair)
    assert tiny.distance(made, made.T) < 1e-6
    assert tiny.distance(torch.linalg.eigvalsh(made), scale.sort().values) < 1e-5
    assert float(made.trace()) == pytest.approx(float(scale.sum()), rel=1e-6)


def test_T_LP_3_of_sylvester_the_diagonal_is_the_mean_and_the_rest_hangs_on_i_xor_j():
    pair = rows(size=16)
    made, scale = patch(pair), rotated_scale(pair)
    assert tiny.distance(made.diagonal(), scale.mean().expand(16)) < 1e-6
    index = torch.arange(16)
    assert tiny.distance(made, made[0][index[:, None] ^ index]) < 1e-6
    assert (made[0] - made[0, 1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "size", [1, 2, 4, 8, 12, 20, 24, 28, 32, 36, 40, 44, 52, 60, 64, 84, 100, 576, 768, 896, 960]
)
def test_T_LP_4_rows_are_at_right_angles_and_all_entries_are_as_large(size: int):
    made = hadamard(size)
    assert torch.allclose(made @ made.T, torch.eye(size, dtype=made.dtype), atol=1e-12)
    assert torch.allclose(made.abs(), torch.full_like(made, size**-0.5), rtol=1e-12)


@pytest.mark.parametrize(
    ("size", "base"), [(576, 36), (2560, 20), (4096, 1), (52, 52), (1472, 368)]
)
def test_the_base_is_the_smallest_that_paley_gives(size: int, base: int):
    assert hadamard_base(size) == base


@pytest.mark.parametrize("size", [3, 6, 30, 92, 116])
def test_a_size_without_a_hadamard_matrix_is_refused_before_anything_is_fitted(size: int):
    assert hadamard_base(size) is None
    with pytest.raises(UnsupportedModel, match=rf"of size {size} .* the correction diag"):
        Hadamard().fitter(place(size))


def test_T_LP_5_mean_sizes_in_the_rotated_basis_are_met_on_one_window():
    pair = rows(size=12, n_windows=1)
    turn = hadamard(12)
    found = ((fitted(Hadamard(), pair)(pair.u).double()) @ turn).abs().mean(0)
    assert tiny.distance(found, (pair.y.double() @ turn).abs().mean(0)) < 1e-5


def test_T_LP_6_the_factor_of_prune_and_comp_is_the_mean_of_the_channel_scales():
    pair = rows()
    assert float(fitted(Scalar(), pair).scale) == pytest.approx(
        float(fitted(Diag(), pair).scale.double().mean()), rel=1e-6
    )


@pytest.mark.parametrize("case", FAMILIES)
def test_T_LP_5_on_a_model_with_one_window(case: str):
    one = tiny.windows(1, 20, seed=4)
    model, repair = learned(case, LAYER_1, Hadamard(), one)
    found = repair.maps[BlockId(1, "mlp")]
    kept: dict[str, torch.Tensor] = {}
    for name, made in (("whole", model), ("repaired", repaired_model(model, repair))):

        def note(block: BlockId, before: torch.Tensor, update: torch.Tensor, name=name) -> None:
            if block == BlockId(1, "layer"):
                kept[name] = (before + update)[0].double()

        with made.watch(note):
            made.logits(as_batch(one))
    turn = hadamard(tiny.HIDDEN)
    whole, repaired = ((kept[name] @ turn).abs().mean(0) for name in ("whole", "repaired"))
    assert tiny.distance(repaired, whole) < 1e-5
    assert found.matrix.abs().max() > 0.01


# ASC.


def moments(stream: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return stream.mean(0), stream.std(0, correction=0)


def meets_moments(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """T-ASC-1, in its own tolerance."""
    (mean, std), (mean_y, std_y) = moments(found.double()), moments(wanted.double())
    is_centred = (mean - mean_y).abs() < 1e-5 * std_y.clamp_min(1)
    return bool((is_centred & ((std / std_y - 1).abs() < 1e-4)).all())


def test_asc_by_hand():
    # u = 1, 3: mean 2, deviation 1; y = 10, 16: mean 13, deviation 3. g = 3, b = 13 - 6 = 7.
    pair = Pair(torch.tensor([[1.0], [3.0]]), torch.tensor([[10.0], [16.0]]), torch.tensor([0, 0]))

    def numbers(**how: object) -> list[float]:
        made = fitted(Asc(**{"eps": 0.0, **how}), pair)
        return [float(x) for x in (made.scale, made.shift) if x is not None]

    assert numbers() == pytest.approx([3, 7])
    # Half of it: halfway between u and 3 u + 7.
    assert numbers(shrink=0.5) == pytest.approx([2, 3.5])
    # At most 2 times: the mean is met still, 13 = 2 * 2 + 9.
    assert numbers(clip=2.0) == pytest.approx([2, 9])
    assert numbers(eps=1.0) == pytest.approx([4.5**0.5, 13 - 2 * 4.5**0.5])
    # Mean magnitudes 2 and 13; no shift.
    assert numbers(stat="absmean", clip=9.0) == pytest.approx([6.5])


def test_scalar_granularity_takes_moments_of_all_channels_at_once():
    pair = rows()
    made = fitted(Asc(granularity="scalar", eps=0), pair)
    scale = pair.y.double().std(correction=0) / pair.u.double().std(correction=0)
    shift = pair.y.double().mean() - scale * pair.u.double().mean()
    assert float(made.scale) == pytest.approx(float(scale), rel=1e-5)
    assert float(made.shift) == pytest.approx(float(shift), rel=1e-5)
    made = fitted(Asc(granularity="scalar", stat="absmean"), pair)
    assert float(made.scale) == pytest.approx(float(pair.y.abs().sum() / pair.u.abs().sum()))
    assert made.shift is None


def test_T_ASC_1_mean_and_deviation_are_met():
    pair = rows()
    assert meets_moments(fitted(EXACT_ASC, pair)(pair.u), pair.y)
    assert meets_moments(fitted(Asc(clip=1e9), pair)(pair.u), pair.y)
    assert not meets_moments(fitted(Asc(shrink=0.9), pair)(pair.u), pair.y)


@pytest.mark.parametrize("case", FAMILIES)
def test_T_ASC_2_where_nothing_is_missing_it_is_the_identity(case: str):
    model = tiny.model(case)
    with tiny.zeroed(model, case, LAYER_1.removed):
        made = run(fit(model, LAYER_1, Asc(), WINDOWS)).maps[BlockId(1, "mlp")]
    assert torch.allclose(made.scale, torch.ones(tiny.HIDDEN), atol=1e-4)
    assert torch.allclose(made.shift, torch.zeros(tiny.HIDDEN), atol=1e-4)
    empty = run(fit(model, PruningPlan(), Asc(), WINDOWS))
    assert not empty.maps
    assert torch.equal(repaired_logits(model, empty), model.logits(as_batch(WINDOWS)))


@pytest.mark.parametrize("case", FAMILIES)
def test_T_ASC_3_in_sequence_every_gap_meets_its_moments_in_parallel_the_first(case: str):
    mask = counted(WINDOWS, EXACT_ASC)
    found = {}
    for is_sequential in (True, False):
        how = Asc(clip=1e9, eps=0, is_sequential=is_sequential)
        model, repair = learned(case, TWO_GAPS, how)
        whole = streams(model, None, mask)
        corrected = streams(repaired_model(model, repair), None, mask)
        found[is_sequential] = [
            meets_moments(corrected[block]["stream"], whole[block]["stream"])
            for block in sorted(repair.maps)
        ]
    assert found == {True: [True, True], False: [True, False]}


def test_T_ASC_4_corrections_in_a_chain_come_to_the_one_at_its_end():
    first, second = rows(seed=1), rows(seed=2)
    stream = first.u
    for target in (first.y, second.y):
        pair = Pair(stream, target, first.window)
        stream = fitted(EXACT_ASC, pair)(stream)
    at_once = fitted(EXACT_ASC, Pair(first.u, second.y, first.window))(first.u)
    assert tiny.distance(stream, at_once) < 1e-5


def test_T_ASC_5_its_error_is_known_and_least_squares_is_never_worse():
    pair = rows()
    u, y = pair.u.double(), pair.y.double()
    rho = torch.stack(
        [torch.corrcoef(torch.stack([a, b]))[0, 1] for a, b in zip(u.T, y.T, strict=True)]
    )
    variance = y.var(0, correction=0)
    asc, least = mse(EXACT_ASC, pair), mse(DiagLeastSquares(), pair)
    assert asc == pytest.approx(float((2 * variance * (1 - rho)).mean()), rel=1e-5)
    assert least == pytest.approx(float((variance * (1 - rho.square())).mean()), rel=1e-5)
    assert least < asc


def test_T_ASC_5_where_streams_hardly_correlate_it_is_worse_than_nothing():
    draw = torch.Generator().manual_seed(3)
    u, y = torch.randn(2, 500, 8, generator=draw)
    pair = Pair(0.1 * u, y, torch.zeros(500, dtype=torch.int64))
    assert mse(EXACT_ASC, pair) > 1.5 * float((pair.u - y).square().mean())
    assert mse(DiagLeastSquares(), pair) < float((pair.u - y).square().mean())


EDGES = {
    "constant": (torch.full((9,), 0.3), None),
    "zero": (torch.zeros(9), None),
    "constant on both sides": (torch.full((9,), 0.3), torch.full((9,), 1e3)),
    "zero on both sides": (torch.zeros(9), torch.zeros(9)),
    "zero in the whole model": (None, torch.zeros(9)),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize(
    "text",
    [
        *PUBLISHED,
        *("scalar:pool=ratio_of_means", "asc:eps=0", "asc:stat=absmean", "asc:granularity=scalar"),
    ],
)
def test_T_ASC_6_channels_that_do_not_vary_give_finite_numbers(text: str, edge: str):
    correction, pair = parse_method(CORRECTIONS, text), rows(9)
    left, right = (x if v is None else v[:, None].expand_as(x)
                   for x, v in zip((pair.u, pair.y), EDGES[edge], strict=True))  # fmt: skip
    for u, y in ((left, right), (one_channel(pair.u, left), one_channel(pair.y, right))):
        at = place(weight=torch.ones(8, 8), bias=torch.ones(8))
        made = fitted(correction, Pair(u, y, pair.window, update=u, features=u), at=at)
        tensors = (made.weight, made.bias) if isinstance(made, Writing) else made.buffers()
        assert all(torch.isfinite(t).all() for t in tensors)
        if isinstance(made, nn.Module):
            assert torch.isfinite(made(pair.u * 10)).all()


def one_channel(usual: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
    return torch.cat([edge[:, :1], usual[:, 1:]], dim=1)


@pytest.mark.parametrize("rounding", [0.0, 2.0**-14])
def test_a_channel_that_does_not_vary_or_by_its_last_bit_alone_is_shifted(rounding: float):
    u = 1000 + rounding * (torch.arange(1000) % 3)[:, None]
    assert len(u.unique()) == (3 if rounding else 1)
    pair = Pair(u, torch.full_like(u, 7), torch.zeros(1000).long())
    for correction in (Asc(), Asc(eps=0), DiagLeastSquares()):
        made = fitted(correction, pair)
        assert float(made.scale) == 1
        assert float(made(u)[0]) == pytest.approx(7, abs=1e-3)


@pytest.mark.parametrize("case", FAMILIES)
def test_every_block_meets_its_moments_in_front_of_every_survivor(case: str):
    how = Asc(site="every_block", clip=1e9, eps=0)
    model, repair = learned(case, LAYER_1, how)
    parts = ("mlp",) if model.family.is_parallel else ("attn", "mlp")
    # Behind the last block no block reads.
    later = [BlockId(layer, part) for layer in (2, 3) for part in parts][:-1]
    assert sorted(repair.maps) == [BlockId(1, "mlp"), *later]
    mask = counted(WINDOWS, how)
    whole = streams(model, None, mask)
    corrected = streams(repaired_model(model, repair), None, mask)
    for block in repair.maps:
        assert meets_moments(corrected[block]["stream"], whole[block]["stream"]), block


@pytest.mark.parametrize("case", FAMILIES)
def test_norm_out_meets_the_moments_of_what_the_next_blocks_read(case: str):
    how = Asc(site="norm_out", clip=1e9, eps=0)
    model, repair = learned(case, LAYER_1, how)
    parts = ("2.attn", "2.mlp") if model.family.is_parallel else ("2.attn",)
    assert sorted(repair.inputs) == list(tiny.ids(*parts))
    assert not repair.maps
    mask, read = counted(WINDOWS, how), {}
    for name, made in (("whole", model), ("corrected", repaired_model(model, repair))):
        with watch_inputs(made, repair.inputs, lambda b, x, n=name: read.update({(n, b): x[mask]})):
            made.logits(as_batch(WINDOWS))
    for block in repair.inputs:
        assert meets_moments(read["corrected", block], read["whole", block])


# fold-ASC.


def mixed(pair: Pair, made: Writing) -> tuple[torch.Tensor, torch.Tensor]:
    """The stream with the update that a writer of unit weight and no bias was given, and s."""
    scale = made.weight.diagonal()
    return pair.u - pair.update + pair.update * scale + made.bias, scale


def test_fold_asc_by_hand():
    # o = -1, 1, -1, 1 and r = -1, -1, 1, 1: var 1 each, cov 0. y has var 5: s^2 + 1 = 5, s = 2;
    # mean(y) = 3, so b = 3.
    o = torch.tensor([[-1.0], [1.0], [-1.0], [1.0]])
    r = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
    y = torch.tensor([[1.0], [1.0], [5.0], [5.0]]) * 1.0
    y = 3 + (y - 3) * (5**0.5 / 2)
    pair = Pair(o + r, y, torch.zeros(4).long(), update=o, features=o)
    at = place(1, weight=torch.tensor([[4.0]]), bias=torch.tensor([0.5]))
    made = fitted(FoldAsc(), pair, at=at)
    assert float(made.weight) == pytest.approx(8)
    assert float(made.bias) == pytest.approx(2 * 0.5 + 3)
    at = place(1, weight=torch.tensor([[4.0]]))
    made = fitted(FoldAsc(), pair, at=at)
    assert float(made.weight) == pytest.approx(8)
    assert made.bias is None


def test_T_FASC_1_mean_and_deviation_are_met_where_there_is_a_root():
    pair = rows()
    r, o = (pair.u - pair.update).double(), pair.update.double()
    cov = ((r - r.mean(0)) * (o - o.mean(0))).mean(0)
    variances = [x.var(0, correction=0) for x in (o, r, pair.y.double())]
    has_root = cov.square() - variances[0] * (variances[1] - variances[2]) >= 0
    made = fitted(FoldAsc(), pair, at=place(weight=torch.eye(8), bias=torch.zeros(8)))
    found, _ = mixed(pair, made)
    assert int(has_root.sum()) >= 6
    assert meets_moments(found[:, has_root], pair.y[:, has_root])


def test_T_FASC_1_where_there_is_none_the_spread_comes_as_close_as_it_can():
    pair = rows()
    calm = Pair(pair.u, pair.y * 1e-3, pair.window, update=pair.update, features=pair.update)
    made = fitted(FoldAsc(), calm, at=place(weight=torch.eye(8), bias=torch.zeros(8)))
    found, scale = mixed(calm, made)
    rest = calm.u - calm.update
    for step in (-0.05, 0.05):
        other = rest + calm.update * (scale + step)
        assert (other.var(0) > found.var(0)).all()
    assert torch.allclose(found.mean(0), calm.y.mean(0), atol=1e-5)


@pytest.mark.parametrize("case", LINEAR_WRITERS)
def test_T_FASC_2_changed_weights_are_a_hook_on_what_the_block_adds(case: str):
    model, repair = learned(case, LAYER_1, FoldAsc())
    block, mask = BlockId(0, "mlp"), counted(WINDOWS, FoldAsc())
    assert list(repair.writers) == [block]
    pruned = streams(model, LAYER_1, mask)
    o, u = (x.numpy() for x in (pruned[block]["update"], pruned[block]["stream"]))
    y = streams(model, None, mask)[BlockId(1, "mlp")]["stream"].numpy()
    scale = np.array([root_nearest_to_one(*abc) for abc in quadratics(o, u - o, y)])
    scale = torch.from_numpy(scale).float()
    writer = model.part(block).get_submodule(tiny.WRITERS[case][1])
    shift = torch.zeros(())
    if writer.bias is not None:
        shift = torch.from_numpy(y.mean(0) - (u - o).mean(0)).float()
        shift = shift - scale * torch.from_numpy(o.mean(0)).float()
    assert (writer.bias is None) == (case == "mistral") == (repair.writers[block].bias is None)
    wanted = writer_weight(model, block) * scale[:, None]
    assert tiny.distance(repair.writers[block].weight, wanted) < 1e-4
    hooked = hooked_logits(model, LAYER_1, {model.part(block): lambda out: out * scale + shift})
    assert tiny.distance(repaired_logits(model, repair), hooked) < 1e-4


def quadratics(o: np.ndarray, r: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(channel, 3): var(o) s^2 + 2 cov(r, o) s + var(r) - var(y)."""
    cov = ((o - o.mean(0)) * (r - r.mean(0))).mean(0)
    return np.stack([o.var(0), 2 * cov, r.var(0) - y.var(0)], axis=1)


def root_nearest_to_one(a: float, b: float, c: float) -> float:
    roots = np.roots([a, b, c])
    if abs(roots.imag).max() > 0:
        return float(roots[0].real)
    return float(min(roots.real, key=lambda s: abs(s - 1)))


@pytest.mark.parametrize("case", LINEAR_WRITERS)
def test_T_FASC_3_where_nothing_is_missing_the_weights_stay(case: str):
    model = tiny.model(case)
    with tiny.zeroed(model, case, LAYER_1.removed):
        found = run(fit(model, LAYER_1, FoldAsc(), WINDOWS)).writers[BlockId(0, "mlp")]
    assert tiny.distance(found.weight, writer_weight(model, BlockId(0, "mlp"))) < 1e-5
    # An update that works against the rest of the stream has its other root above 1 or below 0.
    pair = rows()
    same = Pair(pair.u, pair.u, pair.window, update=-pair.update, features=pair.update)
    made = fitted(FoldAsc(), same, at=place(weight=torch.eye(8), bias=torch.zeros(8)))
    assert torch.allclose(made.weight, torch.eye(8), atol=1e-6)
    assert torch.allclose(made.bias, torch.zeros(8), atol=1e-6)


def test_fold_asc_refuses_a_writer_with_a_norm_behind_it():
    with pytest.raises(UnsupportedModel, match=r"0.mlp .* norm .* such as ridge or asc"):
        learned("gemma3", LAYER_1, FoldAsc())


# Least squares.


def test_T_RIDGE_1_errors_are_nested():
    pair = rows()
    none = float((pair.u - pair.y).double().square().mean())
    by_rank = [mse(LowRank(ridge=0, rank=r), pair) for r in range(9)]
    mean, full = mse(Mean(), pair), mse(Ridge(ridge=0), pair)
    assert all(a >= b for a, b in zip([none, *by_rank], by_rank, strict=False))
    assert by_rank[0] == pytest.approx(mean, rel=1e-6)
    assert by_rank[8] == pytest.approx(full, rel=1e-6)
    assert none > mean > mse(DiagLeastSquares(), pair) > full
    assert by_rank[1] > 1.01 * by_rank[4] > 1.02 * full


@pytest.mark.parametrize("case", FAMILIES)
def test_T_RIDGE_1_on_a_model(case: str):
    errors = []
    for correction in (Mean(), DiagLeastSquares(), Ridge(ridge=0)):
        _, repair = learned(case, LAYER_1, correction)
        errors += [repair.fits[0].after.mse.mean()]
    before = repair.fits[0].before.mse.mean()
    assert before > errors[0] > errors[1] > errors[2]


def test_T_RIDGE_2_an_affine_map_is_found_again():
    pair = rows(size=6)
    draw = torch.Generator().manual_seed(5)
    matrix, shift = torch.randn(6, 6, generator=draw), torch.randn(6, generator=draw)
    made = fitted(Ridge(ridge=0), Pair(pair.u, pair.u @ matrix + shift, pair.window))
    assert torch.allclose(torch.eye(6) + made.matrix, matrix, atol=1e-4)
    assert torch.allclose(made.shift, shift, atol=1e-4)


def test_T_RIDGE_3_the_error_on_unseen_windows_stands_beside_that_of_the_fit():
    # 60 positions for 32 channels: a full map fits them far too well.
    model, few, others = tiny.model("llama"), tiny.windows(3, 21), tiny.windows(3, 21, seed=9)
    found = run(fit(model, LAYER_1, Ridge(ridge=0), few, held=others)).fits[0]
    assert found.held_after.n == 60
    assert found.after.mse.mean() < 0.7 * found.held_after.mse.mean()


def test_T_RIDGE_4_what_is_left_is_at_right_angles_to_the_stream():
    pair = rows()
    left = (pair.y - fitted(Ridge(ridge=0), pair)(pair.u)).double()
    centred = pair.u.double() - pair.u.double().mean(0)
    scale = left.norm() * centred.norm()
    assert float((centred.T @ left).abs().max() / scale) < 1e-6
    bare = (pair.y - pair.u).double()
    assert float((centred.T @ bare).abs().max() / scale) > 1e-2


# ReplaceMe.


@pytest.mark.parametrize("toward", ["identity", "zero"])
def test_T_RM_1_where_nothing_is_missing_updates_stay(toward: str):
    pair = rows()
    span = torch.randn(3, 8, generator=torch.Generator().manual_seed(6))
    update = pair.update[:, :3] @ span
    same = Pair(pair.u, pair.u, pair.window, update=update, features=update)
    how = ReplaceMe(ridge=0, toward=toward)
    turn = fitted(how, same, at=place(weight=torch.eye(8))).weight.T
    assert tiny.distance(update @ turn, update) < 1e-5


@pytest.mark.parametrize("toward", ["identity", "zero"])
@pytest.mark.parametrize("case", LINEAR_WRITERS)
def test_T_RM_2_changed_weights_are_a_hook_on_what_the_block_adds(case: str, toward: str):
    how = ReplaceMe(tokens="skip_first", ridge=0.01, toward=toward)
    model, repair = learned(case, LAYER_1, how)
    block, mask = BlockId(0, "mlp"), counted(WINDOWS, how)
    pruned = streams(model, LAYER_1, mask)[block]
    o = pruned["update"].numpy()
    missing = streams(model, None, mask)[BlockId(1, "mlp")]["stream"].numpy()
    missing = missing - pruned["stream"].numpy()
    size = o.shape[1]
    ridge = 0.01 * np.trace(o.T @ o) / size * np.eye(size)
    aim = missing if toward == "identity" else missing + o
    turn = np.linalg.solve(o.T @ o + ridge, o.T @ aim) + np.eye(size) * (toward == "identity")
    turn = torch.from_numpy(turn).float()
    hooked = hooked_logits(model, LAYER_1, {model.part(block): lambda out: out @ turn})
    assert tiny.distance(repaired_logits(model, repair), hooked) < 1e-4
