"""Engine state -> an update of named components. Every handler draws through here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.errors import BadInput
from blockviz.plots import (
    SHADES,
    MetricMatrix,
    Shade,
    csv_text,
    importance_heatmap,
    score_rows,
)
from blockviz.session import LiveResult, Visitor
from blockviz.types import BlockId, ModelInfo, PruningPlan, ScoreTable
from blockviz.ui import map_views, views
from blockviz.ui.chat_field import chat_offered
from blockviz.ui.link import Linked, link_view, parse_link
from blockviz.ui.map_views import Intervals
from blockviz.ui.words import short

if TYPE_CHECKING:
    from blockviz.session import Engine
    from blockviz.ui.screen import Update

PREFERRED = "ppl"
NO_CSV = {"text": "", "name": "blockviz-scores.csv", "label": "Download CSV"}
BUTTONS = ("undo", "redo", "reset")


class Drawing:
    """Pure functions of the engine's present state and one visitor; holds nothing of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def table(self, visitor: Visitor) -> ScoreTable | None:
        return self.engine.table(visitor.table_key) if visitor.table_key else None

    def example_key(self) -> str:
        """`example` while the loaded model is the bundled example's, else no table."""
        return "example" if self.engine.table("example") is not None else ""

    def first_visitor(self) -> Visitor:
        """The finished example that every page is painted with."""
        key = self.example_key()
        removed = tuple(self.engine.example_removed) if key else ()
        return Visitor(model_key=self.engine.model_key, table_key=key, removed=removed)

    def linked_visitor(self, query: Mapping[str, str], visitor: Visitor) -> tuple[Visitor, Linked]:
        """What a page with this address opens on where `visitor` is who opens it; BadPlan for
        foreign blocks."""
        table = self.table(visitor)
        known = [*(card.name for card in self.engine.metrics()), *(table.metrics if table else ())]
        linked = parse_link(query, self.engine.info, dict.fromkeys(known))
        if linked.removed is not None:
            visitor = visitor.with_removed(linked.removed)
        return visitor, linked

    def check_model(self, visitor: Visitor) -> None:
        """Refuses to draw one model's plan on another that was loaded since."""
        if visitor.model_key != self.engine.model_key:
            raise BadInput(
                "A block of this page's model was to be switched.",
                f"{self.engine.info.name} has been loaded since.",
                "Reload the page to see it.",
            )

    def metric(self, visitor: Visitor, wanted: Any) -> str:
        """The metric to colour by: the wanted one if the table has it, else the usual one."""
        table = self.table(visitor)
        names = tuple(table.metrics) if table else ()
        if isinstance(wanted, str) and wanted in names:
            return wanted
        return PREFERRED if PREFERRED in names else (names[0] if names else "")

    def shade(self, wanted: Any) -> Shade:
        return wanted if wanted in SHADES else "rank"

    def plan(self, visitor: Visitor, *, picked: str = "") -> Update:
        """All that a change of the plan touches at once, before anything is measured."""
        info, plan = self.engine.info, visitor.plan()
        return {
            **self.score(visitor, state="measuring" if self.engine.is_ready else "waiting"),
            "visitor": visitor,
            "twin": gr.update(value=list(visitor.removed)),
            "live": {"text": said(info, visitor, picked, self.engine.known(plan))},
            "undo": gr.update(interactive=bool(visitor.past)),
            "redo": gr.update(interactive=bool(visitor.future)),
            "reset": gr.update(interactive=bool(visitor.removed)),
        }

    def grid(self, visitor: Visitor, metric: Any, shade: Any, picked: str) -> Update:
        """The removal grid, the ranking and the link, which all show plan and colours."""
        info, table = self.engine.info, self.table(visitor)
        metric, shade = self.metric(visitor, metric), self.shade(shade)
        view = map_views.grid(
            info, visitor, table, metric=metric, shade=shade,
            tones=_tones(info, table, metric, shade), picked=picked,
            tied=self.tied(visitor, metric, picked),
        )  # fmt: skip
        return {
            "grid": view,
            "ranking": map_views.ranking(visitor, table, metric, self.intervals(visitor)),
            "link": link_view(
                visitor,
                metric if metric != PREFERRED else "",
                model="" if self.example_key() else info.name,
                prompt=self.engine.example_prompt,
            ),
            **self.block(visitor, picked),
        }

    def score(self, visitor: Visitor, *, state: str) -> Update:
        """The scoreboard; known perplexities are shown at once, others as `state`."""
        plan = visitor.plan()
        base = self.engine.known(PruningPlan())
        known = self.engine.known(plan)
        sizes = self.engine.sizes(plan)
        return {"score": views.score(sizes, known, state=state, last=base)}

    def block(self, visitor: Visitor, picked: str) -> Update:
        """The side panel of the picked block."""
        info = self.engine.info
        block = BlockId.parse(picked) if picked else self.first_block(visitor)
        if block.layer >= info.n_layers:
            block = BlockId(0, "attn")
        table, intervals = self.table(visitor), self.intervals(visitor)
        return {"block": map_views.block_panel(info, visitor, table, block, intervals)}

    def tied(self, visitor: Visitor, metric: str, picked: str) -> tuple[BlockId, ...]:
        """The blocks that the metric cannot tell from the picked one."""
        if not picked or not metric:
            return ()
        return self.engine.tied(visitor.table_key, metric, BlockId.parse(picked))

    def intervals(self, visitor: Visitor) -> Intervals:
        """Metric -> the ranks that each block could have."""
        return self.engine.intervals(visitor.table_key) if visitor.table_key else {}

    def first_block(self, visitor: Visitor) -> BlockId:
        """What the panel shows before anything is picked: the last cut, else the first to go."""
        if visitor.removed:
            return BlockId.parse(visitor.removed[-1])
        table, metric = self.table(visitor), self.metric(visitor, PREFERRED)
        ranks = table.metrics[metric].ranks() if table and metric else {}
        first = min(ranks, key=ranks.__getitem__).parts[0] if ranks else BlockId(0, "attn")
        return first

    def map(self, visitor: Visitor, shade: Any) -> Update:
        """Heat map, its table twin, its CSV and the readings: what depends on the table only."""
        table, info = self.table(visitor), self.engine.info
        shown = tuple(table.metrics) if table else ()
        out: Update = {"readings": map_views.readings(self.engine.metrics(), shown)}
        if table is None or not shown:
            return {
                **out,
                **self.heat(visitor, shade),
                "table": {"headers": ["block"], "data": []},
                "csv": NO_CSV,
            }
        intervals = self.intervals(visitor)
        headers, rows = score_rows(MetricMatrix.of(table, info), info, intervals)
        return {
            **out,
            **self.heat(visitor, shade),
            "table": {"headers": headers, "data": rows},
            "csv": {**NO_CSV, "text": csv_text(headers, rows)},
        }

    def heat(self, visitor: Visitor, shade: Any) -> Update:
        """The heat map with a cross over each removed block."""
        table = self.table(visitor)
        if table is None or not table.metrics:
            return {"heat": None}
        matrix, removed = MetricMatrix.of(table, self.engine.info), visitor.plan().removed
        return {"heat": importance_heatmap(matrix, shade=self.shade(shade), removed=removed)}

    def everything(self, visitor: Visitor, metric: Any, shade: Any, picked: str = "") -> Update:
        """The whole screen, for a page just opened or a model just loaded."""
        info, table = self.engine.info, self.table(visitor)
        metric, shade = self.metric(visitor, metric), self.shade(shade)
        titles = [(s.title, name) for name, s in table.metrics.items()] if table else []
        blocks = [str(b.id) for b in info.blocks]
        return {
            **self.plan(visitor),
            **self.grid(visitor, metric, shade, picked),
            **self.map(visitor, shade),
            "header": views.header(info, table, self.engine.mode),
            "legend": map_views.legend(table, metric, shade),
            "twin": gr.update(choices=blocks, value=list(visitor.removed)),
            "metric": gr.update(choices=titles, value=metric or None),
            "chat": chat_offered(info),
        }


def said(info: ModelInfo, visitor: Visitor, picked: str, live: LiveResult | None) -> str:
    """What a screen reader hears after a change."""
    parts = []
    if picked:
        parts.append(f"Block {picked} {'removed' if picked in visitor.removed else 'kept'}")
    parts.append(f"{len(visitor.removed)} of {len(info.blocks)} removed")
    if live:
        parts.append(f"perplexity {short(live.perplexity)}")
    return ", ".join(parts)


def _tones(
    info: ModelInfo, table: ScoreTable | None, metric: str, shade: Shade
) -> dict[BlockId, float]:
    if table is None or metric not in table.metrics:
        return {}
    matrix = MetricMatrix.of(table, info)
    row = matrix.tones(shade)[matrix.metrics.index(metric)]
    return {b: float(t) for b, t in zip(matrix.blocks, row, strict=True) if t == t}
