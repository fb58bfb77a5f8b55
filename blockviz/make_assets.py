"""Regenerates the finished example that the app opens on: `python -m blockviz.make_assets`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

from blockviz.cli.console import drain, say
from blockviz.evaluate import Perplexity, measure_perplexity
from blockviz.models.model import BlockModel
from blockviz.session.example import EXAMPLE_PATH, TASK, TASK_ROWS, Example, live_key
from blockviz.session.judging import judge_windows
from blockviz.session.lens import read_lens
from blockviz.session.live import open_live_windows
from blockviz.session.opening import open_model
from blockviz.session.pairing import pairs_request
from blockviz.session.repair_views import RepairRequest
from blockviz.session.repairing import repair_request
from blockviz.session.scoring import score_request
from blockviz.session.search_views import PairsRequest, SearchRequest
from blockviz.session.searching import search_request
from blockviz.session.views import ScoreRequest
from blockviz.session.writing import write_pair
from blockviz.types import (
    BlockId,
    CalibrationSet,
    Interactions,
    PruningPlan,
    RepairRow,
    RepairTable,
    Scores,
    SearchRun,
)

# The first page shows what three cuts do: few, and yet the answer is another one.
REMOVED = ("18.attn", "7.attn", "14.mlp")
PROMPT = "Why is the sky blue?"
N_NEW_TOKENS = 48
LENS_TEXT = "The Amazon is the largest river in the world by volume of water. It lies in South"
SEARCHED, MOST_MEASURED = 10, 60
DIGITS = 7


def main() -> int:
    """Scores, single cuts and texts of the demo model in bfloat16, written to assets."""
    model: BlockModel = drain(open_model("demo", dtype="bfloat16"))
    windows: CalibrationSet = drain(open_live_windows(model))
    plan = PruningPlan(removed=tuple(BlockId.parse(b) for b in REMOVED))
    cuts = [
        (),
        plan.removed,
        *((b,) for b in (*model.info.units("block"), *model.info.units("layer"))),
    ]
    live = {}
    for n, cut in enumerate(cuts):
        say(f"live perplexity {n + 1} of {len(cuts)}")
        found = drain(measure_perplexity(model, windows, removed=cut, batch_tokens=512))
        nll = tuple(round(x, DIGITS) for x in found.window_nll)
        live[live_key(cut)] = Perplexity(nll, found.n_tokens)
    pair = drain(write_pair(model, PROMPT, plan, max_new_tokens=N_NEW_TOKENS, is_chat=True))
    say("scores")
    request = ScoreRequest(metrics=("all",), tasks=TASK, limit=TASK_ROWS)
    table = drain(score_request(model, request))
    scores = {name: _short(s) for name, s in table.metrics.items()}
    table = replace(table, metrics=scores)
    say("what cuts cost")
    judgement = drain(judge_windows(model, table, windows))
    example = Example(
        info=model.info,
        table=table,
        origin=windows.origin,
        live=live,
        removed=REMOVED,
        continuation=pair,
        judgement=judgement,
        lens=drain(read_lens(model, LENS_TEXT)),
        search=example_search(model),
        interactions=example_pairs(model),
        repair=example_repair(model, plan),
    )
    text = json.dumps(_rounded(example.to_json()), indent=1, ensure_ascii=False)
    EXAMPLE_PATH.write_text(text + "\n", encoding="utf-8")
    say(f"Written: {EXAMPLE_PATH.name}, {len(text):,} characters")
    return 0


def example_search(model: BlockModel) -> SearchRun:
    """A greedy search."""
    say("search")
    request = SearchRequest(blocks=SEARCHED)
    found = drain(search_request(model, request))
    steps = tuple(replace(step, seconds=0.0) for step in found.steps)
    return replace(found, steps=steps, measured=found.measured[:MOST_MEASURED])


def example_pairs(model: BlockModel) -> Interactions:
    """What every two blocks do together."""
    say("pairs")
    return drain(pairs_request(model, PairsRequest()))


def example_repair(model: BlockModel, plan: PruningPlan) -> RepairTable:
    """Every correction of the example's set; numbers of channels of the best one's gaps only."""
    say("repair")
    found = drain(repair_request(model, RepairRequest(plan, ("all",))))

    def thin(row: RepairRow) -> RepairRow:
        is_shown = row.correction == found.best
        fits = [f if is_shown and f.gap else replace(f, channels={}) for f in row.fits]
        return replace(row, fits=tuple(fits), seconds=0.0)

    return replace(found, rows=tuple(map(thin, found.rows)))


def _short(scores: Scores) -> Scores:
    """The same scores with numbers of `DIGITS` digits: their ranks are those of the file."""
    return replace(Scores.from_json(scores.metric, _rounded(scores.to_json())), seconds=0.0)


def _rounded(value: object) -> object:
    """The same JSON with floats of 7 significant digits: what bfloat16 says, and a small file."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
