"""For every metric a check of its scores on a tiny model against its formula, in numpy and float64.

The other side knows nothing of the package: transformers runs each window alone and without its
padding, hooks on its modules note what passes by, and zeros in place of what a block writes remove
it. The windows hold as many tokens as the vocabulary has words, and are as long as the stream is
wide, so that a sum over the wrong axis has the right shape: only the numbers give it away.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import tiny
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from blockviz.data import letter_prompts
from blockviz.engine import SetRunner
from blockviz.metrics import Metric
from blockviz.session.scoring import score_windows
from blockviz.session.views import ScoreRequest
from blockviz.types import (
    BlockId,
    CalibrationSet,
    LetterPrompts,
    Scores,
    TaskRow,
    TaskSet,
    Unit,
    run,
)

FAMILIES = ("llama", "gemma3", "gpt2", "neox")
WINDOWS = tiny.windows(3, tiny.HIDDEN, lengths=(tiny.HIDDEN, 20, 12))  # 64 tokens, 64 words
LETTERS = "ABCD"

Ids = tuple[int, ...]
Array = np.ndarray


@dataclass(frozen=True)
class Places:
    """Where a library's model keeps its parts; pairs are (attention, MLP)."""

    layers: str = "model.layers"
    final_norm: str = "model.norm"
    parts: tuple[str, str] = ("self_attn", "mlp")
    writers: tuple[str, str] = ("self_attn.o_proj", "mlp.down_proj")
    joins: tuple[str, str] = ("self_attn.o_proj", "mlp.down_proj")
    norms: tuple[tuple[str, ...], tuple[str, ...]] = (
        ("input_layernorm",),
        ("post_attention_layernorm",),
    )
    is_parallel: bool = False


_NEOX = Places(
    layers="gpt_neox.layers",
    final_norm="gpt_neox.final_layer_norm",
    parts=("attention", "mlp"),
    writers=("attention.dense", "mlp.dense_4h_to_h"),
    joins=("attention.dense", "mlp.dense_4h_to_h"),
    is_parallel=True,
)
PLACES = {
    "llama": Places(),
    "phi3": Places(),
    "gemma3": Places(
        joins=("post_attention_layernorm", "post_feedforward_layernorm"),
        norms=(
            ("input_layernorm", "post_attention_layernorm"),
            ("pre_feedforward_layernorm", "post_feedforward_layernorm"),
        ),
    ),
    "gpt2": Places(
        layers="transformer.h",
        final_norm="transformer.ln_f",
        parts=("attn", "mlp"),
        writers=("attn.c_proj", "mlp.c_proj"),
        joins=("attn.c_proj", "mlp.c_proj"),
        norms=(("ln_1",), ("ln_2",)),
    ),
    "neox": _NEOX,
}


# --- the library's side ---------------------------------------------------------------------------


class Plain:
    """The library's own model of a case: the same numbers as tiny.model(case), none of our code."""

    def __init__(self, case: str) -> None:
        self.places = PLACES[case]
        self.module = tiny.module(*tiny.CASES[case])
        self.layers = list(self.module.get_submodule(self.places.layers))
        self.final_norm = self.module.get_submodule(self.places.final_norm)

    def logits(self, ids: Ids, removed: Sequence[str] = ()) -> Array:
        """(token, vocab) float64 with zeros in place of what the removed blocks write."""
        return _logits(self, ids, tuple(sorted(removed)))

    def nll(self, ids: Ids, removed: Sequence[str] = ()) -> float:
        """Mean nats of a window's next tokens."""
        logp = log_softmax(self.logits(ids, removed)[:-1])
        return -float(np.mean(logp[np.arange(len(ids) - 1), ids[1:]]))

    def notes(self, ids: Ids) -> Mapping[tuple[str, int, int], Array]:
        """What passes by, (token, size) float64: (`in`, layer, 0) the stream in front of a layer,
        (`writes` | `reads` | `fed`, layer, 0 attention or 1 MLP) of a part, and of its writer."""
        return _notes(self, ids)

    def around(self, ids: Ids, name: str) -> tuple[Array, Array]:
        """The stream (token, hidden) in front of and behind a block or layer."""
        block, notes = BlockId.parse(name), self.notes(ids)
        front, back = notes["in", block.layer, 0], notes["in", block.layer + 1, 0]
        if block.part == "layer":
            return front, back
        written = notes["writes", block.layer, int(block.part == "mlp")]
        if block.part == "mlp" and not self.places.is_parallel:
            front = front + notes["writes", block.layer, 0]
        return front, front + written

    def head(self, hidden: Array, *, has_norm: bool = True) -> Array:
        """(n, vocab) float64 logits of (n, hidden) rows of the stream."""
        rows = torch.tensor(hidden, dtype=torch.float32)
        with torch.no_grad():
            rows = self.final_norm(rows) if has_norm else rows
            return self.module.get_output_embeddings()(rows).double().numpy()

    def submodule(self, layer: int, names: tuple[str, str], part: int) -> torch.nn.Module:
        return self.layers[layer].get_submodule(names[part])


@functools.cache
def plain(case: str) -> Plain:
    return Plain(case)


@functools.cache
def _logits(model: Plain, ids: Ids, removed: tuple[str, ...]) -> Array:
    hooks = [
        model.submodule(part.layer, model.places.joins, part.part == "mlp").register_forward_hook(
            lambda _module, _args, output: torch.zeros_like(output)
        )
        for name in removed
        for part in BlockId.parse(name).parts
    ]
    try:
        with torch.no_grad():
            found = model.module(input_ids=torch.tensor([ids]), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found.logits[0].double().numpy()


@functools.cache
def _notes(model: Plain, ids: Ids) -> dict[tuple[str, int, int], Array]:
    notes: dict[tuple[str, int, int], Array] = {}

    def note(key: tuple[str, int, int], value: torch.Tensor) -> None:
        notes[key] = value.detach()[0].double().numpy()

    def reader(key: tuple[str, int, int]) -> Callable[..., None]:
        return lambda _m, args, kwargs: note(key, args[0] if args else kwargs["hidden_states"])

    def writer(key: tuple[str, int, int]) -> Callable[..., None]:
        return lambda _m, _args, output: note(key, output)

    n = len(model.layers)
    before = [(layer, ("in", i, 0)) for i, layer in enumerate(model.layers)]
    before.append((model.final_norm, ("in", n, 0)))
    places, hooks = model.places, []
    for i, part in product(range(n), (0, 1)):
        before.append((model.submodule(i, places.parts, part), ("reads", i, part)))
        before.append((model.submodule(i, places.writers, part), ("fed", i, part)))
        join = model.submodule(i, places.joins, part)
        hooks.append(join.register_forward_hook(writer(("writes", i, part))))
    for module, key in before:
        hooks.append(module.register_forward_pre_hook(reader(key), with_kwargs=True))
    with torch.no_grad():
        model.module(input_ids=torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return notes


# --- our side -------------------------------------------------------------------------------------

shared = functools.cache(tiny.model)


def names_of(case: str, unit: Unit) -> list[str]:
    return [str(b) for b in shared(case).info.units(unit)]


def rows(windows: CalibrationSet = WINDOWS) -> list[Ids]:
    """Each window's tokens without its padding."""
    pairs = zip(windows.input_ids, windows.attention_mask, strict=True)
    return [tuple(ids[mask].tolist()) for ids, mask in pairs]


def scores_of(
    metric: Metric,
    case: str = "llama",
    unit: Unit = "block",
    *,
    windows: CalibrationSet = WINDOWS,
    tasks: TaskSet | None = None,
) -> Scores:
    """The metric's scores as a scoring run gives them."""
    request = ScoreRequest(unit=unit)
    events = score_windows(shared(case), windows, {metric.name: metric}, request, tasks=tasks)
    return run(events).metrics[metric.name]


def agree(
    scores: Scores, expected: Mapping[str, float], *, sign: int = 1, rel: float = 1e-4
) -> None:
    """The raw numbers are those expected, and importance is `sign` times them."""
    raw = {str(b): v for b, v in scores.raw.items()}
    assert raw.keys() == expected.keys(), (scores.metric, list(raw), list(expected))
    assert len({round(v, 9) for v in expected.values()}) > 1, "a check that all blocks would pass"
    close = pytest.approx(dict(expected), rel=rel, abs=2e-6)
    assert raw == close, (scores.metric, raw, dict(expected))
    assert {str(b): sign * v for b, v in scores.values.items()} == raw, "the sign of importance"


def error_of(values: Sequence[float]) -> float:
    """Standard error of the mean."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


# --- numpy ----------------------------------------------------------------------------------------


def log_softmax(z: Array) -> Array:
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def cosine(x: Array, y: Array) -> Array:
    """Of the rows of x and y."""
    return (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)


def divergence(p: Array, q: Array) -> Array:
    """KL(p | q) in nats of probabilities; 0 log 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0).sum(-1)


def linear_cka(x: Array, y: Array) -> float:
    """|Y'X|^2 / (|X'X| |Y'Y|) of centred columns: the form over features."""
    x, y = x - x.mean(0), y - y.mean(0)
    norm = np.linalg.norm
    if x.shape[1] > 8 * len(x):  # far more features than samples: the same from the other side
        x, y = x @ x.T, y @ y.T
        return float((x * y).sum() / (norm(x) * norm(y)))
    return float(norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y)))


# --- metrics of the output with a block removed ---------------------------------------------------


def _each_window(case: str, unit: Unit, measure: Callable[[Plain, Ids, str], float]) -> dict:
    """{name: (n_windows,) numbers} of `measure(model, ids, name)`."""
    model = plain(case)
    return {n: [measure(model, ids, n) for ids in rows()] for n in names_of(case, unit)}


def check_ppl(metric: Metric, case: str = "llama", unit: Unit = "block") -> None:
    nll = _each_window(case, unit, lambda model, ids, name: model.nll(ids, (name,)))
    scores = scores_of(metric, case, unit)
    agree(scores, {name: math.exp(np.mean(v)) for name, v in nll.items()})
    whole = np.mean([plain(case).nll(ids) for ids in rows()])
    assert scores.baseline == pytest.approx(math.exp(whole), rel=1e-4)
    for block, error in scores.stderr.items():
        v = nll[str(block)]
        assert error == pytest.approx(math.exp(np.mean(v)) * error_of(v), rel=1e-3)


def check_loo(metric: Metric, case: str = "llama", unit: Unit = "block") -> None:
    rise = _each_window(case, unit, lambda m, ids, name: m.nll(ids, (name,)) - m.nll(ids))
    if metric.baseline == "masks":
        total = np.sum(list(rise.values()), axis=0)
        others = len(rise) - 1
        rise = {name: list(v - (total - v) / others) for name, v in rise.items()}
    _agree_by_window(scores_of(metric, case, unit), rise)


def _agree_by_window(scores: Scores, windows: Mapping[str, list[float]], sign: int = 1) -> None:
    """Raw = the mean over windows, with its error and the windows' own numbers."""
    agree(scores, {name: float(np.mean(v)) for name, v in windows.items()}, sign=sign)
    for block, error in scores.stderr.items():
        v = np.array(windows[str(block)])
        assert error == pytest.approx(error_of(v), rel=1e-3, abs=1e-6)
        assert scores.per_window[block] == pytest.approx(list(sign * v), rel=1e-3, abs=3e-6)


def _check_drift(
    metric: Metric, case: str, unit: Unit, measure: Callable[[Array, Array], float]
) -> None:
    found = _each_window(
        case, unit, lambda model, ids, name: measure(model.logits(ids), model.logits(ids, (name,)))
    )
    scores = scores_of(metric, case, unit)
    _agree_by_window(scores, found)
    assert scores.baseline == pytest.approx(0, abs=2e-6)


def check_lds(metric: Metric, case: str = "llama", unit: Unit = "block") -> None:
    def measure(dense: Array, now: Array) -> float:
        if metric.space == "logprob":
            dense, now = log_softmax(dense), log_softmax(now)
        chosen = np.argsort(-dense, axis=-1)[:, : metric.k]
        a, b = np.take_along_axis(dense, chosen, -1), np.take_along_axis(now, chosen, -1)
        if metric.space == "centered":
            a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
        return float(np.mean(1 - cosine(a, b)))

    _check_drift(metric, case, unit, measure)


def check_norm(metric: Metric, case: str = "llama", unit: Unit = "block") -> None:
    _check_drift(metric, case, unit, lambda dense, now: float(np.linalg.norm(dense - now)))


def check_ang(metric: Metric, case: str = "llama", unit: Unit = "block") -> None:
    def measure(dense: Array, now: Array) -> float:
        return float(np.arccos(np.clip(cosine(dense, now), 0, 1)).mean())

    _check_drift(metric, case, unit, measure)


def check_kl(metric: Metric, case: str = "llama", unit: Unit = "block") -> None:
    def measure(dense: Array, now: Array) -> float:
        return float(divergence(np.exp(log_softmax(dense)), np.exp(log_softmax(now))).mean())

    _check_drift(metric, case, unit, measure)


def check_js(metric: Metric, case: str = "llama", unit: Unit = "block") -> None:
    def measure(dense: Array, now: Array) -> float:
        p, q = np.exp(log_softmax(dense)), np.exp(log_softmax(now))
        m = (p + q) / 2
        if metric.js_variant == "finercut_code":
            return float((divergence(m, p) + divergence(m, q)).mean() / 2)
        return float((divergence(p, m) + divergence(q, m)).mean() / 2)

    _check_drift(metric, case, unit, measure)


# --- metrics of the stream ------------------------------------------------------------------------


def check_bi(metric: Metric, case: str = "llama", unit: Unit = "block") -> None:
    def measure(model: Plain, ids: Ids, name: str) -> Array:
        if metric.residual:
            return 1 - cosine(*model.around(ids, name))
        layer, part = BlockId.parse(name).layer, int(name.endswith("mlp"))
        notes = model.notes(ids)
        return 1 - cosine(notes["reads", layer, part], notes["writes", layer, part])

    _check_tokens(metric, case, unit, measure)


def check_rm(metric: Metric, case: str = "llama", unit: Unit = "block") -> None:
    def measure(model: Plain, ids: Ids, name: str) -> Array:
        x, y = model.around(ids, name)
        return np.linalg.norm(y - x, axis=-1) / np.linalg.norm(y, axis=-1)

    _check_tokens(metric, case, unit, measure)


def _check_tokens(
    metric: Metric, case: str, unit: Unit, measure: Callable[[Plain, Ids, str], Array]
) -> None:
    """Raw = the mean over the tokens of all windows, each token weighing alike."""
    names = names_of(case, metric.unit_for(unit))
    tokens = {n: [measure(plain(case), ids, n) for ids in rows()] for n in names}
    scores = scores_of(metric, case, unit)
    agree(scores, {n: float(np.concatenate(v).mean()) for n, v in tokens.items()})
    for block, values in scores.per_window.items():
        means = [float(v.mean()) for v in tokens[str(block)]]
        assert values == pytest.approx(means, rel=1e-4, abs=2e-6)


def _check_windows(
    metric: Metric, case: str, measure: Callable[[Array, Array], float], *, sign: int
) -> None:
    """Every run of layers, of every length; the scores are the runs of one layer."""
    model, depths = plain(case), range(tiny.LAYERS + 1)
    expected = {}
    for first, end in [(i, j) for i in depths for j in depths if i < j]:
        streams = (
            (model.notes(ids)["in", first, 0], model.notes(ids)["in", end, 0]) for ids in rows()
        )
        expected[first, end - first] = [measure(x, y) for x, y in streams]
    scores = scores_of(metric, case, "layer")
    singles = {f"{first}.layer": v for (first, n), v in expected.items() if n == 1}
    _agree_by_window(scores, singles, sign)
    means = {key: float(np.mean(v)) for key, v in expected.items()}
    assert scores.windows == pytest.approx(means, rel=1e-4, abs=2e-6)


def check_ang_win(metric: Metric, case: str = "llama") -> None:
    start = -1 if metric.tokens == "last" else 0

    def measure(x: Array, y: Array) -> float:
        return float(np.arccos(np.clip(cosine(x[start:], y[start:]), -1, 1)).mean() / np.pi)

    _check_windows(metric, case, measure, sign=1)


def check_cos_win(metric: Metric, case: str = "llama") -> None:
    def measure(x: Array, y: Array) -> float:
        found = cosine(x, y) if metric.cos_axis == "token" else cosine(x.T, y.T)
        return float((0.5 + 0.5 * found).mean())

    _check_windows(metric, case, measure, sign=-1)


def check_cka(metric: Metric, case: str = "llama", unit: Unit = "block") -> None:
    model = plain(case)

    def samples(streams: list[Array]) -> Array:
        if metric.rows == "sequences":
            width = WINDOWS.input_ids.shape[1] * tiny.HIDDEN
            return np.stack([np.pad(s.ravel(), (0, width - s.size)) for s in streams])
        every = np.concatenate(streams)
        if metric.n_rows >= len(every):
            return every
        return every[np.linspace(0, len(every) - 1, metric.n_rows).round().astype(int)]

    def similarity(pairs: list[tuple[Array, Array]]) -> float:
        return linear_cka(*(samples([pair[i] for pair in pairs]) for i in (0, 1)))

    expected = {
        name: 1 - similarity([model.around(ids, name) for ids in rows()])
        for name in names_of(case, unit)
    }
    scores = scores_of(metric, case, unit)
    agree(scores, expected)
    layers = [[model.notes(ids)["in", i, 0] for ids in rows()] for i in range(tiny.LAYERS + 1)]
    table = [[similarity(list(zip(a, b, strict=True))) for b in layers] for a in layers]
    np.testing.assert_allclose(scores.matrix.values, table, atol=1e-5)
    assert scores.matrix.labels == tuple("01234")


def check_cvr(metric: Metric, case: str = "llama") -> None:
    for unit in ("attn", "block"):
        model, means = plain(case), {}
        for name in names_of(case, unit):
            layer, part = BlockId.parse(name).layer, int(name.endswith("mlp"))
            module = model.submodule(layer, model.places.writers, part)
            w = module.weight.detach().double().numpy()
            w = w.T if case == "gpt2" else w  # (out, in); GPT-2 keeps them the other way round
            x = np.concatenate([model.notes(ids)["fed", layer, part] for ids in rows()])
            scale = x.var(0) ** 0.25 * (w.var(0) + 1e-8) ** (-metric.alpha / 2)
            means[name] = float((np.abs(w) * scale).mean())
        expected = {}
        for part in ("attn", "mlp"):
            group = {n: v for n, v in means.items() if n.endswith(part)}
            v = np.array(list(group.values()))
            expected |= {n: float((s - v.mean()) / v.std()) for n, s in group.items()}
        agree(scores_of(metric, case, unit), expected, rel=1e-3)


# --- the early exit -------------------------------------------------------------------------------

DESIRED = {"conf": 1, "key": 1, "gap": 1, "ent": -1, "ce": -1, "kld": -1, "jsd": -1}


def lens_number(stat: str, q: Array, p: Array, target: int, top: int = 0) -> float:
    """The number of probabilities q, beside the final p, at one place."""
    if stat == "key":
        return float(q[target])
    if top:
        kept = np.argsort(-(p if stat in ("ce", "kld", "jsd") else q))[:top]
        q, p = q[kept] / q[kept].sum(), p[kept] / p[kept].sum()
    best = np.sort(q)[::-1]
    m = (p + q) / 2
    zero = np.zeros_like(q)
    entropy = -divergence(q, zero + 1)
    return float(
        {
            "conf": best[0],
            "gap": best[0] - best[1],
            "ent": entropy,
            "ce": divergence(p, q) - divergence(p, zero + 1),
            "kld": divergence(p, q),
            "jsd": (divergence(p, m) + divergence(q, m)) / 2,
        }[stat]
    )


def shifts(metric: Metric, case: str, name: str) -> list[float]:
    """The change of the number across a block, one an item, in the order of windows and places."""
    return [back - front for front, back in readings(metric, case, name)]


def readings(metric: Metric, case: str, name: str) -> list[tuple[float, float]]:
    """The number in front of and behind a block, one pair an item."""
    model, found = plain(case), []
    for ids, places, allowed, answer in _items(metric):
        final = model.notes(ids)["in", tiny.LAYERS, 0]
        front, back = model.around(ids, name)
        for place in places:
            p = _chances(model.head(final[place][None])[0], allowed)
            target = ids[place + 1] if answer is None and place + 1 < len(ids) else answer
            numbers = []
            for stream in (front, back):
                z = model.head(stream[place][None], has_norm=metric.lens_norm)[0]
                top = 0 if allowed else metric.top
                numbers.append(lens_number(metric.stat, _chances(z, allowed), p, target, top))
            found.append(tuple(numbers))
    return found


def _chances(z: Array, allowed: Sequence[int]) -> Array:
    return np.exp(log_softmax(z[list(allowed)] if allowed else z))


def _items(metric: Metric) -> list[tuple[Ids, list[int], list[int], int | None]]:
    """(tokens, places that are read, letters that may follow, index of the right one)."""
    if metric.form == "choices":
        asked = prompts()
        letters = [[i for i in row if i >= 0] for row in asked.letters.tolist()]
        answers = asked.answer.tolist()
        made = zip(rows(asked.windows), letters, answers, strict=True)
        return [(ids, [len(ids) - 1], allowed, answer) for ids, allowed, answer in made]
    found = []
    for ids in rows():
        n = len(ids) - (metric.stat == "key")  # the last token has no next one
        k = min(metric.positions, n)
        found.append((ids, sorted(n - 1 - (i * n) // k for i in range(k)), [], None))
    return found


@functools.cache
def prompts() -> LetterPrompts:
    """The letter prompts of `questions()`."""
    return letter_prompts(questions(), lettered(), max_seq_len=tiny.CONTEXT)


def lettered() -> PreTrainedTokenizerFast:
    """The tiny tokenizer with the letters A to D in place of its last words."""
    words = {f"w{i}": i for i in range(tiny.VOCAB - len(LETTERS))}
    words |= {letter: tiny.VOCAB - len(LETTERS) + i for i, letter in enumerate(LETTERS)}
    inner = Tokenizer(models.WordLevel(words, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def questions(n: int = 8, *, seed: int = 3) -> TaskSet:
    """Questions of random words with 2 to 4 choices."""
    source = random.Random(seed)

    def words(count: int) -> str:
        return " ".join(f"w{source.randrange(1, 60)}" for _ in range(count))

    made = []
    for i in range(n):
        choices = tuple(words(source.randint(1, 2)) for _ in range(2 + i % 3))
        row = TaskRow(f"q{i}", "choices", words(4), choices, source.randrange(len(choices)))
        made.append(row)
    return TaskSet("random", "none", tuple(made))


def check_tabp(metric: Metric, case: str = "llama", unit: Unit = "block") -> None:
    expected = {}
    for name in names_of(case, unit):
        steps = np.array(shifts(metric, case, name))
        if metric.name == "tabp_ssn":
            expected[name] = float((np.abs(steps) ** metric.p).sum() ** (1 / metric.p) / len(steps))
        else:
            way = DESIRED[metric.stat]
            if metric.ddf_code_compat and metric.form == "choices":
                way = -way
            expected[name] = float((way * steps > 0).mean())
    is_turned = getattr(metric, "ddf_code_compat", False)
    agree(early_exit_scores(metric, case, unit), expected, sign=-1 if is_turned else 1, rel=1e-3)


def early_exit_scores(metric: Metric, case: str, unit: Unit = "block") -> Scores:
    """A scoring run; one asked by letter gets a tokenizer that has letters."""
    if metric.form == "text":
        return scores_of(metric, case, unit)
    model = shared(case)
    usual, model.tokenizer = model.tokenizer, lettered()
    try:
        return scores_of(metric, case, unit, tasks=questions())
    finally:
        model.tokenizer = usual


# --- weights, games, tasks ------------------------------------------------------------------------


def _tensors(model: Plain, name: str) -> dict[str, torch.nn.Parameter]:
    """A block's own parameters, its norms included, by their path in the model."""
    block, found = BlockId.parse(name), {}
    for part in block.parts:
        at = int(part.part == "mlp")
        for path in (model.places.parts[at], *model.places.norms[at]):
            prefix = f"{model.places.layers}.{part.layer}.{path}."
            all_of_them = model.module.named_parameters()
            found |= {n: p for n, p in all_of_them if n.startswith(prefix)}
    return found


def check_mag(metric: Metric, case: str = "llama", unit: Unit = "block") -> None:
    expected = {
        name: sum(float(np.abs(p.detach().numpy()).sum(dtype=float)) for p in tensors.values())
        for name in names_of(case, unit)
        if (tensors := _tensors(plain(case), name))
    }
    agree(scores_of(metric, case, unit), expected)


def check_taylor(metric: Metric, case: str = "llama", unit: Unit = "block") -> None:
    model = plain(case)
    model.module.zero_grad()
    for ids in rows()[: metric.n]:
        logits = model.module(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:])).backward()
    expected = {
        name: sum(
            float((p.detach().double() * p.grad.double()).abs().sum())
            for p in _tensors(model, name).values()
        )
        for name in names_of(case, unit)
    }
    model.module.zero_grad()
    agree(scores_of(metric, case, unit), expected)


def _two_layer_nll(removed: tuple[str, ...]) -> float:
    """Mean nats over windows with nothing but layers 1 and 2 to lose."""
    return float(np.mean([plain("llama").nll(ids, removed) for ids in rows()]))


def check_perm(metric: Metric) -> None:
    """With two players there are two orders, one the other's reverse: any pair is all of them."""
    none, one, two, both = map(_two_layer_nll, ((), ("1.layer",), ("2.layer",), PLAYERS))
    expected = {
        "1.layer": ((both - two) + (one - none)) / 2,
        "2.layer": ((both - one) + (two - none)) / 2,
    }
    scores = _played(metric)
    agree(scores, expected)
    assert sum(scores.raw.values()) == pytest.approx(both - none, rel=1e-4)


def check_random(metric: Metric) -> None:
    """With two players and one kept, a set is one or the other."""
    one, two = _two_layer_nll(("1.layer",)), _two_layer_nll(("2.layer",))
    agree(_played(metric), {"1.layer": one - two, "2.layer": two - one})


PLAYERS = ("1.layer", "2.layer")


def _played(metric: Metric) -> Scores:
    """The game of two layers of the tiny model, by the runner that scoring uses."""
    runner = SetRunner(shared("llama"), WINDOWS)
    game, answer = metric.play(tiny.ids(*PLAYERS)), None
    while True:
        try:
            removed = game.send(answer)
        except StopIteration as over:
            return over.value
        answer = runner.nll(removed)


def check_acc(metric: Metric, case: str = "llama", unit: Unit = "layer") -> None:
    tasks = questions(12)

    def is_right(row: TaskRow, removed: tuple[str, ...]) -> bool:
        sums = []
        for choice in row.choices:
            start = len(row.query.split())
            ids = tuple(int(word[1:]) for word in f"{row.query} {choice}".split())
            logp = log_softmax(plain(case).logits(ids, removed))
            sums.append(sum(logp[i - 1, ids[i]] for i in range(start, len(ids))))
        return int(np.argmax(sums)) == row.answer

    def share(*removed: str) -> float:
        return float(np.mean([is_right(row, removed) for row in tasks.rows]))

    scores = scores_of(metric, case, unit, tasks=tasks)
    agree(scores, {name: share(name) for name in names_of(case, unit)}, sign=-1)
    assert scores.baseline == pytest.approx(share())


# Each takes the metric and, where it makes a difference, a case of tests/tiny.py and a unit.
CHECKS: dict[str, Callable[..., None]] = {
    "ppl": check_ppl,
    "lds": check_lds,
    "norm": check_norm,
    "ang": check_ang,
    "kl": check_kl,
    "js": check_js,
    "bi": check_bi,
    "rm": check_rm,
    "ang_win": check_ang_win,
    "cos_win": check_cos_win,
    "tabp_ssn": check_tabp,
    "tabp_ddf": check_tabp,
    "taylor": check_taylor,
    "mag": check_mag,
    "cka": check_cka,
    "shapley_loo": check_loo,
    "shapley_perm": check_perm,
    "shapley_random": check_random,
    "cvr": check_cvr,
    "acc": check_acc,
}
