"""What the session hands to a front end: small frozen values, no tensors, no modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from blockviz.types import UNITS, BlockId, ModelInfo, PruningPlan, Unit


@dataclass(frozen=True)
class ScoreRequest:
    """What to score and on which text; the fields are the command line's options."""

    metrics: tuple[str, ...] = ("bi", "rm", "ppl", "lds")
    calibration: str = "demo"
    n_samples: int = 32
    seq_len: int = 128
    mode: str = "stream"
    seed: int = 42
    unit: Unit = "block"
    text_column: str = "text"
    is_shuffled: bool = False
    engine: str = "fast"
    tasks: str = ""
    limit: int | None = None


KEEP_SECONDS = 30 * 60
# More than a browser remembers jobs.
MOST_TOLD = 24


@dataclass(frozen=True)
class Visitor:
    """One person's plan and undo stacks: small enough to live in the page's state."""

    model_key: str = ""
    table_key: str = "example"
    # Every table this visitor has scored of this model, oldest first; to compare them.
    tables: tuple[str, ...] = ()
    judgement_key: str = "example"
    # Every search this visitor has run of this model, oldest first.
    searches: tuple[str, ...] = ("example",)
    pairs_key: str = "example"
    # Every table of corrections this visitor has made of this model, oldest first.
    repairs: tuple[str, ...] = ("example",)
    # The correction and the block that Repair was asked to show; "" leaves the choice to it.
    look: tuple[str, str] = ("", "")
    # Every comparison this visitor has made of this model, oldest first.
    comparisons: tuple[str, ...] = ()
    # The last export of this visitor.
    export_key: str = ""
    # The correction of the last recipe that was opened: offered beside the others.
    fix: str = ""
    removed: tuple[str, ...] = ()
    past: tuple[tuple[str, ...], ...] = ()
    future: tuple[tuple[str, ...], ...] = ()
    # How often the plan was changed: a page that has seen a later one does not go back.
    changes: int = field(default=0, compare=False)
    # The page's own number of its last toggle that was taken.
    seq: int = field(default=0, compare=False)
    # The jobs whose end was shown on this page, the newest last, and how many there were in all.
    told: tuple[str, ...] = field(default=(), compare=False)
    n_told: int = field(default=0, compare=False)

    def plan(self) -> PruningPlan:
        return PruningPlan(removed=tuple(BlockId.parse(b) for b in self.removed))

    def with_removed(self, removed: Iterable[str]) -> Visitor:
        """The same visitor with another plan; the old one goes on the undo stack (100 deep).

        The same blocks in another order, as a link names them, are the same plan.
        """
        removed = tuple(str(b) for b in removed)
        if set(removed) == set(self.removed):
            return self
        past = (*self.past, self.removed)[-100:]
        return replace(self, removed=removed, past=past, future=(), changes=self.changes + 1)

    def went_to(self, removed: Iterable[str]) -> Visitor:
        """The same with another plan; by Undo or Redo where that is the step to it."""
        removed = tuple(str(b) for b in removed)
        if self.past and self.past[-1] == removed:
            return self.undo()
        if self.future and self.future[-1] == removed:
            return self.redo()
        return self.with_removed(removed)

    def was_told(self, jobs: Iterable[str]) -> Visitor:
        """The same, having been shown how these jobs ended."""
        told = (*self.told, *jobs)
        n_told = self.n_told + len(told) - len(self.told)
        return replace(self, told=told[-MOST_TOLD:], n_told=n_told)

    def undo(self) -> Visitor:
        if not self.past:
            return self
        future = (*self.future, self.removed)
        return replace(
            self,
            removed=self.past[-1],
            past=self.past[:-1],
            future=future,
            changes=self.changes + 1,
        )

    def redo(self) -> Visitor:
        if not self.future:
            return self
        past = (*self.past, self.removed)
        return replace(
            self,
            removed=self.future[-1],
            past=past,
            future=self.future[:-1],
            changes=self.changes + 1,
        )

    def reset(self) -> Visitor:
        return self.with_removed(())


@dataclass(frozen=True)
class Sizes:
    """How much of the model a plan keeps."""

    n_blocks: int
    n_attn_cut: int
    n_mlp_cut: int
    n_parameters: int
    removed_ratio: float
    kv_ratio: float

    @property
    def n_kept(self) -> int:
        return self.n_blocks - self.n_attn_cut - self.n_mlp_cut

    @classmethod
    def of(cls, info: ModelInfo, plan: PruningPlan) -> Sizes:
        """Ratios over all parameters, embeddings and head included ."""
        parts = [b.part for b in plan.removed]
        gone, kv_all = info.parameters_of(plan.removed), info.kv_bytes_per_token()
        return cls(
            n_blocks=len(info.blocks),
            n_attn_cut=parts.count("attn"),
            n_mlp_cut=parts.count("mlp"),
            n_parameters=info.n_parameters - gone,
            removed_ratio=gone / info.n_parameters,
            kv_ratio=1 - info.kv_bytes_per_token(plan.removed) / kv_all if kv_all else 0.0,
        )


@dataclass(frozen=True)
class LiveResult:
    """Perplexity of a plan on the live evaluation text, beside the whole model's on the same.

    `rise_stderr` is the standard error of the paired difference of log-perplexity over windows.
    `source`: `bundled` (shipped with the app), `stored` (measured before), `measured` (just now).
    """

    perplexity: float
    baseline: float
    rise_stderr: float
    n_tokens: int
    data: str
    dtype: str
    source: str

    @property
    def rise(self) -> float:
        """Relative rise of perplexity, 0.1 = 10 % worse."""
        return self.perplexity / self.baseline - 1


@dataclass(frozen=True)
class Continuation:
    """Original and pruned continuation of one prompt. `first_difference`: index of the first
    character where the two texts part, None while they agree."""

    prompt: str
    original: str = ""
    pruned: str = ""
    first_difference: int | None = None
    is_complete: bool = False
    is_chat: bool = False
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is known of a model before its weights are touched."""

    name: str
    revision: str
    family: str
    is_supported: bool
    reason: str
    download_bytes: int = 0
    memory_bytes: int = 0
    license: str = ""


@dataclass(frozen=True)
class MetricCard:
    """What a screen says about a metric: what it measures. Low always means removable.

    units: what it can score; cost: what it takes, in words; is_quick: done with one pass or sweep.
    formula, sees, misses: as the metric declares them, empty where it does not.
    """

    name: str
    title: str
    meaning: str
    reference: str
    unit_label: str
    citation: str = ""
    units: tuple[Unit, ...] = UNITS
    cost: str = ""
    needs_tasks: bool = False
    is_quick: bool = True
    formula: str = ""
    sees: str = ""
    misses: str = ""


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for; None = no limit (a trusted person on their own machine)."""

    max_prompt_chars: int | None = None
    max_prompt_tokens: int | None = None
    max_new_tokens: int | None = None
    n_samples: int | None = None
    seq_len: int | None = None
    task_rows: int | None = None
    upload_bytes: int | None = None
    evaluations: int | None = None
    heavy_per_hour: int | None = None
    heavy_per_address: int | None = None
    keep_seconds: int | None = None
    job_seconds: int | None = None
    bundled_only: bool = False
    spare_disk_bytes: int = 0

    @classmethod
    def of(cls, mode: str, environ: Mapping[str, str]) -> Limits:
        """Those of `local` or `hosted` mode; BLOCKVIZ_... variables change hosted ones."""
        if mode == "local":
            return cls()

        def number(name: str, default: int) -> int:
            value = environ.get(f"BLOCKVIZ_{name.upper()}", "")
            return int(value) if value.isdigit() else default

        return cls(
            max_prompt_chars=number("max_prompt_chars", 2000),
            max_prompt_tokens=number("max_prompt_tokens", 512),
            max_new_tokens=number("max_new_tokens", 128),
            n_samples=number("max_samples", 64),
            seq_len=number("max_seq_len", 512),
            task_rows=number("max_task_rows", 64),
            upload_bytes=number("max_upload_bytes", 1 << 20),
            evaluations=number("max_evaluations", 200),
            heavy_per_hour=number("heavy_per_hour", 30),
            heavy_per_address=number("heavy_per_address", 600),
            keep_seconds=KEEP_SECONDS,
            job_seconds=number("max_job_seconds", 600),
            bundled_only=True,
            spare_disk_bytes=number("spare_disk_gib", 5) << 30,
        )
