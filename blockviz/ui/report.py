"""A report of what one page shows: its model and plan, its scores, and all that it has measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blockviz.errors import BadInput, BlockvizError
from blockviz.plots import heatmap_card, importance_lines, visible
from blockviz.session import Visitor
from blockviz.session.exports import archive_name
from blockviz.types import BlockId, PruningPlan, ScoreTable
from blockviz.ui import map_views, report_views, views
from blockviz.ui.drawing import Drawing
from blockviz.ui.export_form import as_it_stands
from blockviz.ui.insight_cards import sources_of
from blockviz.ui.recipe_handlers import NO_RECIPE, saved
from blockviz.ui.report_page import Drawn, Section, report_around
from blockviz.ui.report_results import Look, result_sections
from blockviz.ui.words import count, grouped, percent

if TYPE_CHECKING:
    from blockviz.session import Engine


@dataclass(frozen=True)
class Report:
    """One HTML file, but for the text of plotly.js, which stands between its two parts."""

    name: str
    before: str
    after: str


def report_of(engine: Engine, visitor: Visitor, look: Look, form: tuple[Any, ...]) -> Report:
    """The report of one visitor's page. form: the settings of an export, for the recipe.

    Nothing is measured for it, and no clock is read: the same page gives the same file.
    """
    info, n = engine.info, len(visitor.removed)
    if visitor.model_key != engine.model_key:
        raise BadInput(
            "A report of this page was to be saved.",
            f"{visible(info.name, 120)} has been loaded since, so its model is no longer here.",
            "Reload the page to make one of the model that is.",
        )
    of = f"without {n} of {len(info.blocks)} blocks" if n else "with nothing removed"
    sections = [*_sections(engine, visitor, look), *_recipe(engine, visitor, form)]
    facts = views.header(info, None, engine.mode)["model_facts"]
    before, after = report_around(f"{visible(info.name, 120)} {of}", facts, sections)
    name = archive_name(info.name, n, len(info.blocks)).removeprefix("blockviz-")
    return Report(f"blockviz-report-{name}.html", before, after)


def _sections(engine: Engine, visitor: Visitor, look: Look) -> Iterator[Section]:
    table = engine.table(visitor.table_key) if visitor.table_key else None
    yield _plan(engine, visitor, look)
    yield _model(engine, table)
    written = report_views.texts(look.texts)
    if written is not None:
        yield Section(
            "texts", "What it writes", body=(written,),
            lead="Same prompt, always the likeliest next token; the first difference is marked.",
        )  # fmt: skip
    if table is not None and table.metrics:
        yield _scores(engine, visitor, look, table)
    yield from result_sections(engine, visitor, look)


def _plan(engine: Engine, visitor: Visitor, look: Look) -> Section:
    info, plan, drawing = engine.info, visitor.plan(), Drawing(engine)
    known, sizes = engine.known(plan), engine.sizes(plan)
    score = views.score(sizes, known, state="stale", last=engine.known(PruningPlan()))
    grid = drawing.grid(visitor, look.metric, look.shade, "")["grid"]
    colours = {
        BlockId(i, part): cell["colour"]
        for part in ("attn", "mlp")
        for i, cell in enumerate(grid["cells"][part])
        if cell["colour"]
    }
    metric = drawing.metric(visitor, look.metric)
    legend = map_views.legend(drawing.table(visitor), metric, drawing.shade(look.shade))
    coloured = f", coloured {legend['note']}: bright = keep" if colours else ""
    facts = (
        ("Removed, in order", ", ".join(plan.shown()) or "nothing"),
        ("Parameters left", f"{grouped(sizes.n_parameters)} of {grouped(info.n_parameters)} "
         f"({percent(-sizes.removed_ratio)})"),
        ("KV cache", percent(-sizes.kv_ratio)),
    )  # fmt: skip
    return Section(
        "plan",
        "The plan",
        note="" if known else "The perplexity of this plan has not been measured.",
        body=(
            report_views.board(score),
            report_views.panel(
                report_views.grid(info, visitor, colours),
                report_views.small(f"✕ = removed{coloured}."),
                report_views.facts(facts),
            ),
        ),
    )


def _model(engine: Engine, table: ScoreTable | None) -> Section:
    info = engine.info
    data = table.provenance.data if table else None
    text = f"{data.describe()}, of {data.split}, seed {data.seed}" if data else ""
    facts = (
        ("Model", visible(info.name, 200)),
        ("Revision", visible(info.revision, 120)),
        ("Family", visible(info.family)),
        ("Parameters", f"{count(info.n_parameters)} ({grouped(info.n_parameters)})"),
        ("Size", f"{info.n_layers} layers, {grouped(info.hidden_size)} wide, "
         f"{grouped(info.vocab_size)} tokens in its vocabulary"),
        ("Number format", visible(info.dtype.removeprefix("torch."))),
        ("Weights from", visible(info.quantisation)),
        ("Not read", visible(info.unread, 240)),
        ("Device", visible(info.device)),
        ("Licence", visible(info.license)),
        ("Calibration text", visible(text, 240)),
        ("Scored with", report_views.versions(table.provenance.versions) if table else ""),
    )  # fmt: skip
    return Section("model", "The model", body=(report_views.panel(report_views.facts(facts)),))


def _scores(engine: Engine, visitor: Visitor, look: Look, table: ScoreTable) -> Section:
    drawing, plan = Drawing(engine), visitor.plan()
    chosen = table.metrics[drawing.metric(visitor, look.metric)]
    heat = heatmap_card(
        table, engine.info, shade=drawing.shade(look.shade), removed=plan.removed,
        intervals=engine.intervals(visitor.table_key),
        cite=sources_of(engine, *table.metrics.values()),
    )  # fmt: skip
    line = importance_lines(
        chosen, engine.info, provenance=table.provenance, cite=sources_of(engine, chosen)
    )
    says = map_views.readings(engine.metrics(), tuple(table.metrics))
    return Section(
        "scores", "Scores", "How much each block matters, metric by metric.",
        "Partial: scoring was stopped, and these are of the windows until then."
        if table.is_partial else "",
        (Drawn(heat), report_views.readings(says),
         Drawn(line, is_wide=False)),
    )  # fmt: skip


def _recipe(engine: Engine, visitor: Visitor, form: tuple[Any, ...]) -> Iterator[Section]:
    """None while there is nothing to say, or the settings of the export cannot be met."""
    try:
        found = saved(engine.info, as_it_stands(engine, visitor, *form))
    except BlockvizError:
        return
    if not found["text"]:
        return
    yield Section(
        "recipe", "Recipe",
        "The same again: open it on the Export tab, or give it to "
        "blockviz score, evaluate or export with --recipe.",
        body=(report_views.recipe(found["text"], NO_RECIPE["name"]),),
    )  # fmt: skip
