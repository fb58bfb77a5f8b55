"""What the session knows, as the plain values our components draw. No gradio, no work."""

from __future__ import annotations

from typing import Any

from blockviz.session import Continuation, JobView, LiveResult, Sizes, Verdict, Visitor
from blockviz.types import ModelInfo, ScoreTable, short_revision
from blockviz.ui.words import (
    TIMES,
    UNKNOWN,
    count,
    duration,
    grouped,
    percent,
    rise_between,
    sentence,
    short,
    short_dtype,
    size,
)

View = dict[str, Any]
NO_LANE: View = {"state": "idle", "text": "", "progress": None, "label": ""}
IDLE: View = {**NO_LANE, "text": "Ready"}
NO_ERROR: View = {"text": "", "id": ""}
MODE_MEANS = {
    "local": "The app serves this machine, and reads files and models that lie on it.",
    "hosted": "Many people share this app, so what each may load and start has limits.",
}


def header(info: ModelInfo, table: ScoreTable | None, mode: str) -> View:
    """Model chip, data chip and mode."""
    facts = [
        short_revision(info.revision),
        count(info.n_parameters),
        f"{info.n_layers} layers",
        short_dtype(info.dtype),
        info.device,
        info.quantisation,
        "some weights not read" if info.unread else "",
    ]
    data = table.provenance.data if table else None
    partial = ", partial" if table and table.is_partial else ""
    return {
        "model": info.name,
        "model_facts": " · ".join(f for f in facts if f),
        "data": f"{data.n_samples} {TIMES} {data.seq_len} tokens" if data else "",
        "data_facts": f"{data.dataset}, seed {data.seed}{partial}" if data else "",
        "mode": mode,
        "mode_means": MODE_MEANS[mode],
    }


def score(sizes: Sizes, live: LiveResult | None, *, state: str, last: LiveResult | None) -> View:
    """The scoreboard. `state`: measured, waiting, measuring or stale; `last` is shown dimmed."""
    shown, is_dim = (live, False) if live else (last, True)
    words = {"waiting": "measuring when the model is ready", "measuring": "measuring…"}
    cut = [f"{sizes.n_attn_cut} attention", f"{sizes.n_mlp_cut} MLP"]
    has_cut = sizes.n_kept < sizes.n_blocks
    return {
        "kept": f"{sizes.n_kept} of {sizes.n_blocks}",
        "cut": f"{', '.join(c for c in cut if not c.startswith('0'))} cut" if has_cut else "",
        "has_cut": has_cut,
        "parameters": percent(-sizes.removed_ratio),
        "kv": f"KV cache {percent(-sizes.kv_ratio)}",
        "state": _source(live) if live else words.get(state, "stale"),
        "tone": "fresh" if live else "busy" if state in words else "stale",
        "is_dim": is_dim,
        "can_measure": not live and state not in words,
        **_perplexity(shown, is_known=live is not None),
    }


def _source(live: LiveResult) -> str:
    return "bundled" if live.source == "bundled" else "measured"


def _perplexity(live: LiveResult | None, *, is_known: bool) -> View:
    if live is None:
        return {"perplexity": UNKNOWN, "rise": "", "rise_tone": "", "data": ""}
    text = live.data.replace(" x ", f" {TIMES} ")
    data = f"{text}, {grouped(live.n_tokens)} scored, {short_dtype(live.dtype)}"
    if not is_known:
        return {"perplexity": f"{short(live.baseline)} → …", "rise": "", "rise_tone": "",
                "data": data}  # fmt: skip
    if live.perplexity == live.baseline:
        rise, tone, figures = "", "", short(live.baseline)
    else:
        rise = rise_between(live.baseline, live.perplexity, live.rise_stderr)
        tone = "warn" if live.rise > 0 else "good"
        figures = f"{short(live.baseline)} → {short(live.perplexity)}"
    return {"perplexity": figures, "rise": rise, "rise_tone": tone, "data": data}


def texts(written: Continuation | None, visitor: Visitor, *, note: str = "") -> View:
    """Both continuations, each as (before, first difference, after)."""
    written = written or Continuation(prompt="")
    plan = ", ".join(visitor.plan().shown())
    parting = written.first_difference
    if not written.is_complete:
        parting = _parting(written.original, written.pruned)
    said = note or written.note
    if written.is_complete:
        end = "both texts are the same" if parting is None else "first difference marked"
        said = " \u00b7 ".join(filter(None, (said, end)))
    return {
        "prompt": written.prompt,
        "original": pieces(written.original, parting),
        "pruned": pieces(written.pruned, parting),
        "plan": f"without {plan}"
        if plan and len(plan) < 60
        else f"{len(visitor.removed)} blocks cut",
        "note": said,
        "is_busy": bool(written.prompt) and not written.is_complete,
    }


def _parting(original: str, pruned: str) -> int | None:
    """Where two texts that are still being written part so far."""
    pairs = enumerate(zip(original, pruned, strict=False))
    return next((i for i, (a, b) in pairs if a != b), None)


def pieces(text: str, start: int | None) -> list[str]:
    """The text before it parts, the word in which it does, and the rest."""
    if start is None or start >= len(text):
        return [text, "", ""]
    end = start
    while end < len(text) and text[end].isspace():
        end += 1
    while end < len(text) and not text[end].isspace():
        end += 1
    return [text[:start], text[start:end], text[end:]]


def verdict(found: Verdict) -> View:
    """What a model would cost and whether it can be taken, before anything is fetched."""
    facts = [
        ("family", found.family),
        ("revision", short_revision(found.revision)),
        ("download", size(found.download_bytes) if found.download_bytes else "nothing to fetch"),
        ("memory", f"about {size(found.memory_bytes)}" if found.memory_bytes else "unknown"),
        ("licence", found.license or "not stated"),
    ]
    return {
        "title": f"{found.name}: {'supported' if found.is_supported else 'not supported'}",
        "reason": found.reason,
        "is_supported": found.is_supported,
        "facts": [[name, value] for name, value in facts if value],
    }


NO_VERDICT: View = {"title": "", "reason": "", "is_supported": False, "facts": []}


def lane(state: str, text: str, *, done: float = 0, total: float = 0, seconds: float = 0) -> View:
    """One line of the status bar for work that belongs to this page."""
    steps = f", {grouped(min(done, total))} of {grouped(total)}" if total > 1 else ""
    clock = f" · {duration(seconds)}" if seconds >= 1 else ""
    share = min(done / total, 1.0) if total > 0 and state == "running" else None
    return {"state": state, "text": f"{text}{steps}{clock}", "progress": share, "label": text}


CANCELLED: View = lane("cancelled", "Cancelled")
# Said until the step that was begun is over.
CANCELLING: View = lane("queued", "Cancelling…")


def job_lane(job: JobView | None) -> View:
    """One line of the status bar for a detached job."""
    if job is None:
        return NO_LANE
    if job.is_stopping:
        return CANCELLING
    if job.state == "queued":
        ahead = f", number {job.queue_position} in line" if job.queue_position else ""
        return lane("queued", f"Queued{ahead}")
    what = sentence(job.stage) or job.kind.capitalize()
    if job.state == "running":
        view = lane("running", what, done=job.done, total=job.total, seconds=job.elapsed)
        left = f", about {duration(job.eta)} left" if job.eta else ""
        note = f" · {job.note}" if job.note else ""
        return {**view, "text": f"{view['text']}{left}{note}"}
    result = job.result if isinstance(job.result, dict) else {}
    ended = result.get("ended") or f"done in {duration(job.elapsed)}"
    ends = {
        "done": f"{job.kind.capitalize()} {ended}",
        "cancelled": f"{job.kind.capitalize()} cancelled; what was computed is kept",
        "failed": f"{job.kind.capitalize()} failed",
        "expired": "That job is over 30 minutes old; its result was dropped",
    }
    return lane(job.state, ends.get(job.state, job.state))
