"""A session without a model: believable numbers, jobs that take time, texts that bite."""

from __future__ import annotations

import itertools
import random
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fake_compare import TEXTS, growing_comparison, make_comparison, make_contest
from fake_export import growing_export, make_exported, make_modes, make_report
from fake_repair import CORRECTIONS, growing_repair, make_repair
from fake_search import (
    PRESETS,
    STRATEGIES,
    growing,
    make_estimate,
    make_pairs,
    make_run,
)

from blockviz.errors import BadInput, BadSource
from blockviz.job_view import JobView
from blockviz.metrics import METRICS
from blockviz.rankings import Between, between, read_scores, tied_with
from blockviz.session.compare_views import CompareRequest
from blockviz.session.export_views import ExportRequest, ModeCard
from blockviz.session.exports import Exported
from blockviz.session.findings import Findings, Intervals, findings_of, intervals_of, run_label
from blockviz.session.recipe_file import scoring_to_json
from blockviz.session.repair_views import CorrectionCard, RepairRequest
from blockviz.session.search_views import (
    PairsRequest,
    PresetCard,
    SearchRequest,
    StrategyCard,
)
from blockviz.session.views import (
    Continuation,
    Limits,
    LiveResult,
    MetricCard,
    ScoreRequest,
    Sizes,
    Verdict,
)
from blockviz.types import (
    Block,
    BlockId,
    Comparison,
    DataOrigin,
    Done,
    Interactions,
    Judgement,
    Lens,
    Measured,
    ModelInfo,
    Progress,
    Provenance,
    PruningPlan,
    RepairTable,
    Scores,
    ScoreTable,
    SearchRun,
)

BASELINE = 32.94
WHOLE = " Paris, the largest city in the country and its centre of art."
CUT = " Paris, the capital of the city of the city of the city of the"
HOSTILE = (
    "${window.pwned=1} {{constructor.constructor('window.pwned=2')()}} "
    "<img src=x onerror='window.pwned=3'> </script><script>window.pwned=4</script> "
    "\u202egnp.exe\u202c"
)


CARDS = tuple(
    replace(
        MetricCard(name, title, meaning, f"https://arxiv.org/abs/{paper}", ""),
        **{
            part: getattr(METRICS.get(name), part) for part in ("formula", "sees", "misses", "cost")
        },
    )
    for name, title, meaning, paper in (
        ("bi", "Block influence", "How far a block turns the stream it joins.", "2403.03853"),
        ("rm", "Relative magnitude", "Size of what a block adds to the stream.", "2403.17887"),
        ("ppl", "Perplexity if cut", "Perplexity with only this block removed.", "2406.10594"),
        ("lds", "Logit disruption", "How much the likeliest next tokens change.", "2503.00000"),
    )
)


def make_info(n_layers: int = 30, *, name: str = "SmolLM2-135M-Instruct") -> ModelInfo:
    blocks = tuple(
        Block(BlockId(i, part), size, f"model.layers.{i}.{part}", kv)
        for i in range(n_layers)
        for part, size, kv in (("attn", 885_312, 768), ("mlp", 2_655_360, 0))
    )
    return ModelInfo(
        name=name, revision="12fd25f77366fa6b3b4b768ec3050bf629380bac", family="llama",
        dtype="bfloat16", device="CPU", n_layers=n_layers, hidden_size=576, vocab_size=49152,
        max_seq_len=8192, n_parameters=28_311_552 + sum(b.n_parameters for b in blocks),
        blocks=blocks, has_chat_template=True, quantisation="Q4_1, dequantised",
    )  # fmt: skip


def make_table(info: ModelInfo, *, seed: int = 3, dataset: str = "BoolQ passages") -> ScoreTable:
    draw = random.Random(seed)
    damage = {}
    for b in info.blocks:
        edge = 8.0 if b.id.layer == 0 else 1.2 if b.id.layer in (1, info.n_layers - 1) else 0.0
        rise = draw.uniform(0.002, 0.05) * (2 if b.id.part == "mlp" else 1) + edge
        damage[b.id] = BASELINE * (1 + rise)
    metrics = {"ppl": Scores("ppl", "Perplexity if cut", damage, damage, "", baseline=BASELINE)}
    for card in CARDS:
        if card.name != "ppl":
            noisy = {b: v / BASELINE - 1 + draw.uniform(0, 0.05) for b, v in damage.items()}
            spread = {b: tuple(v + draw.gauss(0, 0.02) for _ in range(8)) for b, v in noisy.items()}
            metrics[card.name] = Scores(card.name, card.title, noisy, noisy, per_window=spread)
    origin = DataOrigin(dataset, "calibration", "stream", 32, 128, 4096, seed=42, token_hash="0")
    provenance = Provenance(
        origin, info.name, info.revision, info.quantisation, info.dtype, info.device, 2, {}
    )
    return ScoreTable(provenance, {card.name: metrics[card.name] for card in CARDS})


def make_judgement(table: ScoreTable, *, seed: int = 5) -> Judgement:
    """Eight windows whose losses rise with the table's own first metric, and some noise."""
    draw = random.Random(seed)
    base = [draw.uniform(3.2, 3.8) for _ in range(8)]
    order = {n: sorted(s.ranks(), key=s.ranks().__getitem__) for n, s in table.metrics.items()}
    ranks = next(iter(table.metrics.values())).ranks()

    def measured(*blocks: BlockId) -> Measured:
        rise = sum(0.004 * ranks.get(b, 30) for b in blocks)
        return Measured(blocks, tuple(x + rise + draw.uniform(-0.01, 0.01) for x in base))

    return Judgement(
        table.provenance,
        Measured((), tuple(base)),
        {b: measured(b) for b in ranks},
        {n: tuple(measured(*row[:k]) for k in range(1, 9)) for n, row in order.items()},
    )


def make_lens(info: ModelInfo, word: str) -> Lens:
    depths = ("embedding", *(str(b.id) for b in info.blocks))
    n = len(depths)
    return Lens(
        provenance=Provenance(None, info.name, info.revision, "", info.dtype, info.device, 2, {}),
        context=("The", " capital"), position=1, depths=depths,
        tokens=tuple((word, " the") for _ in depths),
        probabilities=tuple((0.5 + 0.4 * i / n, 0.1) for i in range(n)),
        entropy=tuple(5 - 4 * i / n for i in range(n)),
        rank_of_final=tuple(n - i for i in range(n)),
        kl=tuple(float(n - 1 - i) for i in range(n)),
    )  # fmt: skip


# No two jobs of one process share an id: an app may outlive its engine.
_NUMBERS = itertools.count()


@dataclass
class FakeEngine:
    """The session's public surface on invented numbers. `step` is the pace of all work."""

    mode: str = "local"
    n_layers: int = 30
    step: float = 0.05
    load_seconds: float = 1.0
    is_hostile: bool = False
    is_ready: bool = False
    model_key: str = "demo@12fd25f"
    calls: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.info = make_info(self.n_layers)
        if self.is_hostile:
            self.info = replace(self.info, name=HOSTILE)
        dataset = HOSTILE if self.is_hostile else "BoolQ passages"
        self._tables = {"example": make_table(self.info, dataset=dataset)}
        self._judgements = {"example": make_judgement(self._tables["example"])}
        self.example_lens = make_lens(self.info, "Paris")
        words = HOSTILE if self.is_hostile else "Wikipedia passages"
        few = min(12, self.n_layers)
        self._searches = {
            "example": make_run(self.info, SearchRequest(blocks=few), dataset=words, warning=(
                HOSTILE if self.is_hostile else ""
            ))
        }  # fmt: skip
        self._pairs = {
            "example": make_pairs(self.info, PairsRequest(ScoreRequest()), dataset=words)
        }
        self._repairs: dict[str, RepairTable] = {}
        self._comparisons: dict[str, Comparison] = {}
        self._exports: dict[str, Exported] = {}
        self.export_root = Path(tempfile.mkdtemp(prefix="blockviz-exports-"))
        weakref.finalize(self, shutil.rmtree, self.export_root, ignore_errors=True)
        self.contest = make_contest(title=HOSTILE if self.is_hostile else "")
        self._known: dict[frozenset[BlockId], LiveResult] = {}
        self._jobs: dict[str, JobView] = {}
        self._cancelled: set[str] = set()
        self.limits = Limits.of(self.mode, {})
        self.example_prompt = "The capital of France is"
        last = min(18, self.n_layers - 1)
        self.example_removed: tuple[str, ...] = (f"{last}.attn", f"{min(7, last - 1)}.attn")
        self.example_continuation = self._continuation(
            self.example_prompt, PruningPlan(removed=(BlockId(18, "attn"),)), 40
        )

    def metrics(self) -> tuple[MetricCard, ...]:
        if self.is_hostile:
            return tuple(replace(card, formula=HOSTILE, sees=HOSTILE) for card in CARDS)
        return CARDS

    def tasks(self) -> tuple[str, ...]:
        return ("arc_easy", "piqa")

    def table(self, key: str) -> ScoreTable | None:
        if key == "example" and self.info.n_layers != self.n_layers:
            return None
        return self._tables.get(key)

    def judgement(self, key: str) -> Judgement | None:
        if key == "example" and self.info.n_layers != self.n_layers:
            return None
        return self._judgements.get(key)

    def findings(self, table_key: str, judgement_key: str) -> Findings | None:
        table = self.table(table_key)
        return findings_of(table, self.judgement(judgement_key)) if table else None

    def intervals(self, table_key: str) -> dict[str, Intervals]:
        table = self.table(table_key)
        return intervals_of(table) if table else {}

    def tied(self, table_key: str, metric: str, block: BlockId) -> tuple[BlockId, ...]:
        table = self.table(table_key)
        return (tied_with(table.metrics[metric], block) or ()) if table else ()

    def compared(self, table_keys: Sequence[str]) -> Between | None:
        tables = [t for t in map(self.table, dict.fromkeys(table_keys)) if t is not None]
        return between(tables, [run_label(t) for t in tables]) if len(tables) > 1 else None

    def import_scores(self, data: object, name: str, table_key: str) -> str:
        found, table = read_scores(data, self.info, name=name), self.table(table_key)
        key = f"scores{len(self._tables)}"
        known = table.metrics if table else {}
        self._tables[key] = replace(table or found, metrics={**known, **found.metrics})
        return key

    def lens(self, text: str, position: int = -1) -> Iterator[Progress | Done]:
        yield Progress("reading", 0, 1)
        yield Done(make_lens(self.info, HOSTILE if self.is_hostile else "Paris"))

    def scoring(self, table_key: str) -> dict[str, Any]:
        table = self.table(table_key)
        return scoring_to_json(ScoreRequest(tuple(table.metrics)), table) if table else {}

    def start_judge(
        self, table_key: str, before: str = "", *, owner: str, address: str = ""
    ) -> str:
        return self._start("judge", 20, lambda: self._judged(table_key))

    def _judged(self, table_key: str) -> dict[str, str]:
        key = f"judgement{len(self._judgements)}"
        self._judgements[key] = make_judgement(self._tables[table_key])
        return {"judgement_key": key, "warning": ""}

    def strategies(self) -> tuple[StrategyCard, ...]:
        return STRATEGIES

    def presets(self) -> tuple[PresetCard, ...]:
        return PRESETS

    def objectives(self) -> tuple[MetricCard, ...]:
        return tuple(card for card in CARDS if card.name in ("ppl", "lds"))

    def search_run(self, search_key: str) -> SearchRun | None:
        if search_key == "example" and self.info.n_layers != self.n_layers:
            return None
        return self._searches.get(search_key)

    def interactions(self, pairs_key: str) -> Interactions | None:
        if pairs_key == "example" and self.info.n_layers != self.n_layers:
            return None
        return self._pairs.get(pairs_key)

    def estimate_search(self, request: SearchRequest) -> Iterator[Progress | Done]:
        self._check_search(request)
        self.calls.append(f"estimate {request.strategy}")
        yield Progress("timing", 0, 1)
        time.sleep(self.step)
        yield Done(make_estimate(self.info, request))

    def start_search(self, request: SearchRequest, *, owner: str, address: str = "") -> str:
        self._check_search(request)
        self.calls.append(f"search {request.strategy}")
        key = f"search{len(self._searches)}"
        dataset = HOSTILE if self.is_hostile else "Wikipedia passages"
        parts = list(growing(self.info, request, dataset))

        def so_far(i: int) -> dict[str, str] | None:
            n = i // 5
            if not 0 < n <= len(parts):
                return None
            self._searches[key] = parts[n - 1]
            return {"search_key": key, "warning": ""}

        def finish() -> dict[str, str]:
            self._searches[key] = make_run(self.info, request, dataset=dataset)
            return {"search_key": key, "warning": ""}

        return self._start("search", 5 * (len(parts) + 1), finish, so_far)

    def _check_search(self, request: SearchRequest) -> None:
        if request.blocks is not None and request.blocks > len(self.info.units(request.unit)):
            raise BadInput("Too many.", "There are fewer.", "Remove fewer.")

    def start_pairs(self, request: PairsRequest, *, owner: str, address: str = "") -> str:
        self.calls.append("pairs")
        key = f"pairs{len(self._pairs)}"

        def so_far(i: int) -> dict[str, str] | None:
            if i < 4:
                return None
            self._pairs[key] = make_pairs(self.info, request, share=i / 24)
            return {"pairs_key": key, "warning": ""}

        def finish() -> dict[str, str]:
            self._pairs[key] = make_pairs(self.info, request)
            return {"pairs_key": key, "warning": ""}

        return self._start("pairs", 20, finish, so_far)

    def correction_cards(self) -> tuple[CorrectionCard, ...]:
        if self.is_hostile:
            return tuple(replace(card, title=f"{card.title} {HOSTILE}") for card in CORRECTIONS)
        return CORRECTIONS

    def repair_table(self, repair_key: str) -> RepairTable | None:
        return self._repairs.get(repair_key)

    def start_repair(self, request: RepairRequest, *, owner: str, address: str = "") -> str:
        self.calls.append(f"repair {len(request.plan.removed)}")
        key = f"repair{len(self._repairs)}"
        words = HOSTILE if self.is_hostile else "Wikipedia passages"
        parts = list(growing_repair(self.info, request, words))
        self._repairs[key] = parts[0]

        def so_far(i: int) -> dict[str, str] | None:
            if not i or i % 5 or i // 5 >= len(parts):
                return None
            self._repairs[key] = parts[i // 5]
            return {"repair_key": key, "warning": ""}

        def finish() -> dict[str, str]:
            self._repairs[key] = make_repair(self.info, request, dataset=words)
            return {"repair_key": key, "warning": HOSTILE if self.is_hostile else ""}

        return self._start("repair", 5 * len(parts), finish, so_far)

    def comparison(self, compare_key: str) -> Comparison | None:
        return self._comparisons.get(compare_key)

    def start_compare(self, request: CompareRequest, *, owner: str, address: str = "") -> str:
        self.calls.append(f"compare {', '.join(request.repair.corrections)}")
        key = f"compare{len(self._comparisons)}"
        more = {"dataset": "Wikipedia passages"}
        if self.is_hostile:
            more = {"dataset": HOSTILE, "texts": {n: HOSTILE + t for n, t in TEXTS.items()}}
        parts = list(growing_comparison(self.info, request, **more))
        self._comparisons[key] = parts[0]

        def so_far(i: int) -> dict[str, str] | None:
            if i % 5 or i // 5 >= len(parts):
                return None
            self._comparisons[key] = parts[i // 5]
            return {"compare_key": key, "warning": ""}

        def finish() -> dict[str, str]:
            self._comparisons[key] = make_comparison(self.info, request, **more)
            return {"compare_key": key, "warning": HOSTILE if self.is_hostile else ""}

        return self._start("compare", 5 * len(parts), finish, so_far)

    def exported(self, export_key: str) -> Exported | None:
        return self._exports.get(export_key)

    def export_modes(self, plan: PruningPlan) -> tuple[ModeCard, ...]:
        return make_modes(self.info, plan) if self.is_ready else ()

    def can_export_as_llama(self) -> bool:
        return False

    def start_export(self, request: ExportRequest, *, owner: str, address: str = "") -> str:
        self.calls.append(f"export {request.mode}")
        key = f"export{len(self._exports)}"
        report = make_report(self.info, request, note=HOSTILE if self.is_hostile else "")
        parts = list(growing_export(report))

        def so_far(i: int) -> dict[str, str] | None:
            if i % 2 or i // 2 >= len(parts):
                return None
            self._exports[key] = Exported(parts[i // 2])
            return {"export_key": key, "warning": ""}

        def finish() -> dict[str, str]:
            self.export_root.mkdir(parents=True, exist_ok=True)
            self._exports[key] = make_exported(report, self.export_root)
            return {"export_key": key, "warning": ""}

        return self._start("export", 2 * len(parts), finish, so_far)

    def start_push(
        self, export_key: str, repo_id: str, token: str, *, is_private: bool, owner: str
    ) -> str:
        self.calls.append(f"push {repo_id} {'private' if is_private else 'public'} {token}")
        return self._start("push", 2, lambda: {"pushed": f"https://hub.example/{repo_id}"})

    def sizes(self, plan: PruningPlan) -> Sizes:
        return Sizes.of(self.info, plan)

    def known(self, plan: PruningPlan) -> LiveResult | None:
        if len(plan.removed) <= 1 or {str(b) for b in plan.removed} == set(self.example_removed):
            return self._live(plan, "bundled")
        return self._known.get(frozenset(plan.removed))

    def measure(self, plan: PruningPlan) -> Iterator[Progress | Done]:
        self.calls.append(f"measure {len(plan.removed)}")
        for i in range(8):
            yield Progress("Measuring perplexity", i, 8)
            time.sleep(self.step)
        live = self._live(plan, "measured")
        self._known[frozenset(plan.removed)] = live
        yield Done(live)

    def write(
        self, prompt: str, plan: PruningPlan, *, max_new_tokens: int = 48, is_chat: bool = False
    ) -> Iterator[Progress | Done]:
        self.calls.append(f"write {len(plan.removed)} {is_chat}")
        n = min(max_new_tokens, 24)
        for i in range(1, n):
            yield Progress("Writing", i, n, partial=self._continuation(prompt, plan, i))
            time.sleep(self.step / 2)
        yield Done(self._continuation(prompt, plan, 99))

    def inspect(self, model: str) -> Verdict:
        if model.startswith("nobody/"):
            raise BadSource(
                f"The model {model!r} was asked for.", "The Hub has none of that name.",
                "Check the spelling, or try demo.",
            )  # fmt: skip
        return Verdict(model, "0" * 12, "llama", is_supported=True,
                       reason="A Llama decoder with 30 layers.", download_bytes=270_000_000,
                       memory_bytes=700_000_000, license="apache-2.0")  # fmt: skip

    def start_load(self, model: str, *, dtype: str = "auto", owner: str = "") -> str:
        return self._start("load", 20, lambda: self._loaded(model))

    def start_score(self, request: ScoreRequest, *, owner: str, address: str = "") -> str:
        return self._start("score", 60, lambda: self._scored(request))

    def start_demo(self) -> str:
        steps = max(1, int(self.load_seconds / self.step))
        return self._start("load", steps, self._demo_ready)

    def job(self, job_id: str) -> JobView | None:
        return self._jobs.get(job_id)

    def cancel(self, job_id: str) -> None:
        self._cancelled.add(job_id)

    def forget(self, owner: str) -> None:
        self.forgotten.append(owner)

    def _start(self, kind: str, steps: int, finish, so_far=lambda i: None) -> str:
        job_id = f"job{next(_NUMBERS)}"
        self._jobs[job_id] = JobView(job_id, kind, "running", f"{kind.capitalize()}ing", 0, steps)
        work = (job_id, steps, finish, so_far)
        threading.Thread(target=self._work, args=work, daemon=True).start()
        return job_id

    def _work(self, job_id: str, steps: int, finish, so_far) -> None:
        job = self._jobs[job_id]
        for i in range(steps):
            partial = so_far(i) or job.partial
            if job_id in self._cancelled:
                self._jobs[job_id] = replace(job, state="cancelled", done=i, partial=partial)
                return
            job = replace(
                job, done=i, elapsed=i * self.step, eta=(steps - i) * self.step, partial=partial
            )
            self._jobs[job_id] = job
            time.sleep(self.step)
        self._jobs[job_id] = replace(
            job, state="done", done=steps, elapsed=steps * self.step, result=finish()
        )

    def _demo_ready(self) -> ModelInfo:
        self.is_ready = True
        return self.info

    def _loaded(self, model: str) -> ModelInfo:
        if model != "demo":
            self.info, self.model_key = make_info(12, name=model), model
        self.is_ready = True
        return self.info

    def _scored(self, request: ScoreRequest) -> dict[str, str]:
        key = f"scores{len(self._tables)}"
        table = make_table(self.info, seed=request.seed + 1)
        kept = {name: table.metrics[name] for name in request.metrics}
        self._tables[key] = ScoreTable(table.provenance, kept)
        return {"table_key": key}

    def _live(self, plan: PruningPlan, source: str) -> LiveResult:
        table = self._tables["example"].metrics["ppl"].values
        value = BASELINE
        for b in plan.removed:
            value *= 1.003 * table.get(b, BASELINE) / BASELINE
        error, text = 0.002 if plan.removed else 0.0, "boolq, 8 × 128 tokens"
        return LiveResult(value, BASELINE, error, 1016, text, "bfloat16", source)

    def _continuation(self, prompt: str, plan: PruningPlan, n: int) -> Continuation:
        whole, cut = WHOLE.split(" "), CUT.split(" ")
        if self.is_hostile:
            whole, cut = [HOSTILE], [HOSTILE + " again"]
        original = " ".join(whole[: n + 1])
        pruned = " ".join((cut if plan.removed else whole)[: n + 1])
        pairs = zip(original, pruned, strict=False)
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        return Continuation(prompt, original, pruned, first, is_complete=n > 20)
