"""The report of a page: what is in it, for whom, the same every time, and text that stays text."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from html.parser import HTMLParser
from itertools import pairwise
from urllib.parse import unquote

import pytest
from fake_compare import make_comparison
from fake_engine import HOSTILE, FakeEngine, make_info
from fake_export import make_exported, make_report
from fake_repair import make_repair
from test_ui_export import GOOD

from blockviz.errors import BlockvizError
from blockviz.plots import FigureCard, heatmap_card, prose
from blockviz.plots.downloads import digest, plotly_js
from blockviz.plots.markup import Markup, escaped, h, table
from blockviz.session import ScoreRequest, Visitor
from blockviz.session.compare_views import CompareRequest
from blockviz.session.export_views import ExportRequest
from blockviz.session.repair_views import RepairRequest
from blockviz.types import BlockId, PruningPlan
from blockviz.ui import report_views, views
from blockviz.ui.export_form import FORM, request_of
from blockviz.ui.launch import build_app
from blockviz.ui.recipe_handlers import saved
from blockviz.ui.report import Report, report_of
from blockviz.ui.report_handlers import LOOK, NO_REPORT, ReportHandlers
from blockviz.ui.report_results import Look
from blockviz.ui.screen import Call, to_outputs

REMOVED = ("18.attn", "7.attn", "7.mlp")
RECIPE_FORM = tuple(GOOD[name] for name in FORM)
ALWAYS = ["plan", "model"]
EXAMPLE = ["scores", "curves", "right", "agreement", "steady", "pairs", "search"]


class Page(HTMLParser):
    """Tags with attributes, texts outside scripts and styles, and the texts of the scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        self.inside.get(self._open, self.texts).append(data)

    def all_of(self, *tags: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag in tags]

    @property
    def sections(self) -> list[str]:
        return [attrs["id"] for attrs in self.all_of("section")]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(step=0.0, is_ready=True)


@pytest.fixture
def visitor(engine) -> Visitor:
    return Visitor(model_key=engine.model_key, removed=REMOVED)


def plan_of(removed=REMOVED) -> PruningPlan:
    return PruningPlan(tuple(BlockId.parse(b) for b in removed))


def with_results(engine: FakeEngine, tmp_path, word: str = "") -> Visitor:
    """A visitor who has repaired, compared and exported; `word` in all that may be foreign."""
    fit = ScoreRequest(n_samples=8, seq_len=64)
    repair = RepairRequest(plan_of(), ("asc", "writer_refit"), text=fit, evaluation=fit)
    dataset = f"Wikipedia{word}"
    engine._repairs["mine"] = make_repair(engine.info, repair, dataset=dataset)
    request = CompareRequest(repair, f"The capital{word}", 16, is_chat=False)
    texts = {"original": f" Paris{word}", "none": f" a city{word}", "repaired": f" Rome{word}"}
    compared = make_comparison(engine.info, request, dataset=dataset, texts=texts)
    engine._comparisons["mine"] = compared
    export = ExportRequest(plan_of(), tmp_path, mode="custom", repair=repair, evaluation=fit)
    engine._exports["mine"] = make_exported(make_report(engine.info, export, note=word), tmp_path)
    return Visitor(
        model_key=engine.model_key, removed=REMOVED, repairs=("example", "mine"),
        comparisons=("mine",), export_key="mine",
    )  # fmt: skip


def texts_of(visitor: Visitor, engine: FakeEngine) -> dict:
    return views.texts(engine._continuation("The capital is", visitor.plan(), 30), visitor)


def made(engine, visitor, look: Look | None = None, form=RECIPE_FORM) -> Report:
    return report_of(engine, visitor, look or Look(), form)


def whole(report: Report) -> str:
    return f"{report.before}/* plotly.js */{report.after}"


def page_of(engine, visitor, look: Look | None = None) -> Page:
    return Page(whole(made(engine, visitor, look)))


def bare(visitor: Visitor) -> Visitor:
    """The visitor without any result, whose report is made in no time."""
    return replace(
        visitor, table_key="", judgement_key="", searches=(), pairs_key="", repairs=()
    )  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A report that several tests read, and what it was made from."""

    engine: FakeEngine
    visitor: Visitor
    report: Report
    page: Page

    @classmethod
    def of(cls, engine: FakeEngine, visitor: Visitor) -> Made:
        report = made(engine, visitor)
        return cls(engine, visitor, report, Page(whole(report)))


@pytest.fixture(scope="module")
def plain() -> Made:
    """Of a page just opened, with three blocks removed."""
    engine = FakeEngine(step=0.0, is_ready=True)
    return Made.of(engine, Visitor(model_key=engine.model_key, removed=REMOVED))


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Made:
    """Of a visitor who has repaired, compared and exported."""
    engine = FakeEngine(step=0.0, is_ready=True)
    return Made.of(engine, with_results(engine, tmp_path_factory.mktemp("full")))


# What is in it


def test_a_page_just_opened_gives_its_plan_its_model_and_the_example(engine, visitor):
    page = page_of(engine, replace(visitor, removed=()))
    assert page.sections == [*ALWAYS, *EXAMPLE, "recipe"]
    assert "SmolLM2-135M-Instruct with nothing removed" in page.texts


def test_without_any_result_there_is_the_plan_and_the_model_only(engine, visitor):
    page = page_of(engine, bare(replace(visitor, removed=())))
    assert page.sections == ALWAYS
    shown = " ".join(page.texts)
    assert "60 of 60" in shown and "32.9" in shown
    assert page.all_of("article") == []


def test_every_result_of_the_visitor_is_a_section_with_its_numbers(engine, tmp_path):
    visitor = with_results(engine, tmp_path)
    look = Look(texts=texts_of(visitor, engine), lens=engine.example_lens)
    page = page_of(engine, visitor, look)
    assert page.sections == [
        *ALWAYS, "texts", "scores", "curves", "right", "agreement", "steady", "pairs", "lens",
        "search", "repair", "comparison", "export", "recipe",
    ]  # fmt: skip
    shown = " ".join(page.texts)
    for words in (
        "SmolLM2-135M-Instruct without 3 of 60 blocks", "12fd25f77366fa6b3b4b768ec3050bf629380bac",
        "134.5\u202fM (134\u202f531\u202f712)", "bfloat16", "CPU", "18.attn, 7.layer", "57 of 60",
        "largest", " city in the country", "Activation statistics", "Pruned + Writer refit",
        "Rome", "Check logits", "found logits", "seed 42",
        "BoolQ passages, calibration part, 32 × 128 tokens",
    ):  # fmt: skip
        assert words in shown, words


def test_the_numbers_are_those_of_the_screen(engine, visitor, plain):
    live = engine.known(replace(visitor, removed=("18.attn",)).plan())
    page = page_of(engine, replace(visitor, removed=("18.attn",)))
    assert views.score(engine.sizes(plan_of(("18.attn",))), live, state="", last=None)[
        "perplexity"
    ] in page.texts  # fmt: skip
    assert "has not been measured" not in " ".join(page.texts)
    assert "The perplexity of this plan has not been measured." in plain.page.texts
    assert "32.9 → …" in plain.page.texts


def test_every_figure_has_its_reading_its_numbers_its_source_and_its_provenance(full):
    engine, page, script = full.engine, full.page, full.report.after
    drawings = json.JSONDecoder().raw_decode(script, script.index("drawings = ") + 11)[0]
    boxes = [a["id"] for a in page.all_of("div") if "figure" in (a.get("class") or "").split()]
    assert [name for name, _ in drawings] == boxes == [f"figure-{i + 1}" for i in range(len(boxes))]
    card = heatmap_card(
        engine.table("example"), engine.info, shade="rank", removed=plan_of().removed,
        intervals=engine.intervals("example"),
    )  # fmt: skip
    assert dict(drawings)["figure-1"] == json.loads(card.figure.to_json())
    assert len(page.all_of("article")) == len(page.all_of("details")) == len(boxes)
    shown = " ".join(page.texts)
    assert card.reading in shown and "a cross is over what is removed" in card.reading
    assert card.provenance_note in shown and "lowest rank by Block influence" in page.texts
    paper = {"href": "https://arxiv.org/abs/2403.03853", "rel": "noopener noreferrer"}
    assert paper in page.all_of("a")
    cells = [str(c) for row in card.rows for c in row]
    assert set(cells) - {""} <= set(page.texts)


def test_the_recipe_is_the_one_that_the_export_tab_saves(engine, visitor):
    page = page_of(engine, visitor)
    text = saved(engine.info, request_of(engine, visitor, *RECIPE_FORM))["text"]
    assert text in page.texts
    (link,) = (a for a in page.all_of("a") if "download" in a)
    assert unquote(link["href"].partition(",")[2]) == text
    wrong = made(engine, visitor, form=tuple({**GOOD, "export_samples": "many"}.values()))
    assert "recipe" not in Page(whole(wrong)).sections


def test_what_is_stale_or_partial_says_so(engine, tmp_path):
    visitor = replace(with_results(engine, tmp_path), removed=("3.mlp",))
    engine._tables["example"] = replace(engine._tables["example"], is_partial=True)
    run = engine._searches["example"]
    engine._searches["example"] = replace(run, is_partial=True)
    shown = " ".join(page_of(engine, visitor).texts)
    for words in ("Stale. The table is of 3 blocks", "Stale. The columns are of 3 blocks",
                  "The file is of 3 blocks", "Partial: scoring was stopped",
                  "stopped before its target"):  # fmt: skip
        assert words in shown, words


def test_a_correction_that_was_refused_says_why_across_the_row(engine, visitor):
    fit = ScoreRequest(n_samples=8, seq_len=64)
    request = RepairRequest(plan_of(), ("asc", "ridge"), text=fit, evaluation=fit)
    engine._repairs["mine"] = make_repair(engine.info, request, refused="It has no place here.")
    compare = CompareRequest(request, "p", 16, is_chat=False)
    engine._comparisons["mine"] = make_comparison(engine.info, compare, refused="It cannot.")
    page = page_of(engine, replace(visitor, repairs=("mine",), comparisons=("mine",)))
    assert page.texts.count("It has no place here.") == 2 and page.texts.count("It cannot.") == 2
    spans = [a["rowspan"] for a in page.all_of("td") if "rowspan" in a]
    assert spans == ["7", "7"]


# For whom


def test_results_of_other_visitors_are_never_in_it(engine, visitor, tmp_path):
    with_results(engine, tmp_path, word="theirs")
    engine._searches["theirs"] = replace(engine._searches["example"], strategy="theirs")
    forged = Look(
        search_shown="theirs", repair_shown="mine", compare_shown="mine", curve_group="mine"
    )
    report = made(engine, visitor, forged)
    assert "theirs" not in whole(report)
    assert "repair" not in Page(whole(report)).sections


def test_what_the_page_chose_among_its_own_is_shown(engine, visitor):
    engine._searches["second"] = replace(engine._searches["example"], strategy="beam")
    both = replace(visitor, searches=("example", "second"))
    newest, chosen = (page_of(engine, both, Look(search_shown=k)) for k in (None, "example"))
    assert "What each decision cost: beam on ppl" in newest.texts
    assert "What each decision cost: greedy on ppl" in chosen.texts


def test_of_a_model_that_was_loaded_since_nothing_is_made(engine, visitor):
    engine.info, engine.model_key = make_info(12, name="owner/other"), "other"
    with pytest.raises(BlockvizError, match="owner/other has been loaded since"):
        made(engine, visitor)


FORGED_TEXTS = [
    None, 3, "texts", [], {}, {"prompt": 1}, {"original": None}, {"original": ["a"] * 2},
    {"pruned": [1, 2, 3]}, {"note": ["x"]}, {"plan": {}}, {"original": ["", "", ""]},
    {"is_busy": True},
]  # fmt: skip


@pytest.mark.parametrize("change", FORGED_TEXTS)
def test_forged_or_unfinished_texts_are_left_out(engine, visitor, change):
    good = texts_of(visitor, engine)
    assert report_views.texts(good) is not None
    forged = {**good, **change} if isinstance(change, dict) and change else change
    assert report_views.texts(forged) is None


@pytest.mark.parametrize("raw", [None, 3, ["x"], {"a": 1}, "no such thing", float("nan")])
def test_forged_settings_are_those_of_a_page_just_opened(engine, visitor, plain, raw):
    names = [n for n in LOOK if n not in ("log_scale", "curve_log", "lens", "texts")]
    assert made(engine, visitor, Look(**dict.fromkeys(names, raw))) == plain.report


# The same every time, and nothing of this machine


def test_the_same_page_gives_the_same_file(tmp_path):
    files = []
    for _ in range(2):
        engine = FakeEngine(step=0.0, is_ready=True)
        visitor = with_results(engine, tmp_path)
        files.append(asdict(made(engine, visitor, Look(texts=texts_of(visitor, engine)))))
    assert files[0] == files[1]


def test_no_clock_no_path_and_no_plotly_js_are_in_it(full):
    text = whole(full.report)
    folder = full.engine._exports["mine"].archive.parent
    assert str(folder) not in text and str(full.engine.export_root) not in text
    assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text)
    assert plotly_js()[:200] not in text


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("owner/Some_Model 1.5", "blockviz-report-some-model-1-5-3of60.html"),
        ("../../etc/passwd", "blockviz-report-passwd-3of60.html"),
        (HOSTILE, "blockviz-report-script-gnp-exe-3of60.html"),
        ("\u202e模型", "blockviz-report-model-3of60.html"),
    ],
)
def test_the_file_is_named_after_the_model_and_the_plan(engine, visitor, name, file):
    engine.info = replace(engine.info, name=name)
    assert made(engine, bare(visitor)).name == file


# A page of its own


def test_it_asks_nobody_for_anything_and_runs_two_known_scripts(full):
    page = full.page
    assert not page.all_of("link", "img", "iframe", "object", "base", "form")
    assert all("src" not in attrs for _, attrs in page.tags)
    assert len(page.inside["script"]) == 2 == len(page.all_of("script"))
    (policy,) = (a["content"] for a in page.all_of("meta") if "http-equiv" in a)
    allowed = f"script-src '{digest(plotly_js())}' '{digest(page.inside['script'][1])}';"
    assert policy.startswith(f"default-src 'none'; {allowed}")
    assert "connect" not in policy and "unsafe-eval" not in policy and "http" not in policy
    assert "url(" not in "".join(page.inside["style"]) and "@import" not in whole(full.report)


def test_its_headings_are_in_order_and_its_anchors_lead_somewhere(full):
    page = full.page
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    anchors = [a["href"][1:] for a in page.all_of("a") if a["href"].startswith("#")]
    assert anchors == ["main", *page.sections] and set(anchors) <= set(ids)
    labels = [a["aria-labelledby"] for a in page.all_of("section")]
    assert set(labels) <= set(ids)


def test_boxes_that_scroll_can_be_reached_by_keyboard_and_have_names(full):
    page = full.page
    boxes = [a for a in page.all_of("div") if (a.get("class") or "") == "scroll"]
    assert len(boxes) > 10
    assert all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in boxes)


def test_its_colours_are_the_app_s_by_day_and_by_night(plain):
    (style,) = plain.page.inside["style"]
    light, _, dark = style.partition("@media screen and (prefers-color-scheme: dark)")
    assert "--bv-paper: #fbfaf7" in light and "--bv-paper: #14171a" in dark


# Foreign text


def test_hostile_text_is_text_wherever_it_stands(tmp_path):
    plain = FakeEngine(step=0.0, is_ready=True)
    hostile = FakeEngine(step=0.0, is_ready=True, is_hostile=True)
    tags = []
    for engine, word in ((plain, ""), (hostile, HOSTILE)):
        visitor = with_results(engine, tmp_path, word=word)
        scored = engine._tables["example"]
        titled = {n: replace(s, title=f"{s.title}{word}") for n, s in scored.metrics.items()}
        engine._tables["example"] = replace(scored, metrics=titled)
        look = Look(texts={**texts_of(visitor, plain), "prompt": f"p{word}", "note": f"n{word}"})
        report = made(engine, visitor, look)
        whole(report).encode("utf-8")
        page = Page(whole(report))
        tags.append([tag for tag, _ in page.tags if tag not in ("p", "small")])
        events = [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
        assert events == []
        assert "\u202e" not in whole(report) and "\u202c" not in whole(report)
    assert tags[0] == tags[1]
    # In the drawings it stands inside strings of JSON, where no `<` is left to end the script.
    assert "<" not in report.after.removeprefix("</script><script>").partition("];\nconst")[0]
    assert "window.pwned" in report.after
    assert sum("window.pwned=4" in text for text in page.texts) > 20


def test_the_recipe_of_a_hostile_name_is_the_same_json(tmp_path):
    engine = FakeEngine(step=0.0, is_ready=True, is_hostile=True)
    page = page_of(engine, Visitor(model_key=engine.model_key, removed=REMOVED))
    (text,) = (t for t in page.texts if '"blockviz/recipe/1"' in t)
    assert json.loads(text)["plan"]["model"] == HOSTILE and "\\u202e" in text


def test_markup_escapes_all_but_itself():
    made = h("p", {"title": '"><i>', "hidden": True, "id": None}, "<b>&", Markup("<br>"), None, 3)
    assert made == '<p title="&quot;&gt;&lt;i&gt;" hidden>&lt;b&gt;&amp;<br>3</p>'
    assert escaped("\ud800\u202ex\n") == "⟨D800⟩⟨202E⟩x\n"
    grid = table(("<a>",), (("<b>", "<c>"),), label="'\"")
    assert "<b>" not in grid and "<c>" not in grid and 'aria-label="&#x27;&quot;"' in grid
    assert '<th scope="row" dir="auto">&lt;b&gt;</th><td dir="auto">&lt;c&gt;</td>' in grid


def test_prose_keeps_lines_and_letters_and_shows_what_misleads():
    assert prose("a\n\tb  c") == "a\n\tb  c"
    assert prose("\u202ex\x00\ud800\u2066") == "⟨202E⟩x⟨0000⟩⟨D800⟩⟨2066⟩"
    family = "\U0001f469\u200d\U0001f467"
    assert prose(family) == family


# The button


def asked(engine, visitor, asked: object, form=RECIPE_FORM) -> dict:
    values = [None for _ in LOOK]
    update = ReportHandlers(engine).save(Call("s", {"asked": asked}), visitor, *values, *form)
    to_outputs(("report", "error"), update)
    return update


def test_the_button_gets_the_report_with_the_number_of_its_wish(engine, visitor):
    found = asked(engine, visitor, 7)["report"]
    assert found["asked"] == 7 and found["name"].endswith("-3of60.html")
    assert asked(engine, visitor, 8)["report"] == {**found, "asked": 8}
    for forged in (None, "7", True, 7.5, [7]):
        assert asked(engine, bare(visitor), forged)["report"]["asked"] == 0


def test_a_refusal_is_told_and_the_button_is_free_again(engine, visitor):
    engine.model_key = "another"
    update = asked(engine, visitor, 3)
    assert update["report"] == {**NO_REPORT, "asked": 3}
    assert "has been loaded since" in update["error"]["text"]


def test_nothing_is_sent_before_it_is_asked_for(engine):
    app = build_app(engine)
    (part,) = (b for b in app.blocks.values() if getattr(b, "elem_id", "") == "report")
    assert part.value == NO_REPORT
    targets = [
        f for f in app.fns.values() if any(getattr(o, "elem_id", "") == "report" for o in f.outputs)
    ]
    assert len(targets) == 1 and targets[0].api_visibility == "private"


def test_a_saved_figure_runs_known_scripts_only(engine):
    card = heatmap_card(engine.table("example"), engine.info, shade="rank")
    assert isinstance(card, FigureCard)
    page = Page(card.html())
    (policy,) = (a["content"] for a in page.all_of("meta") if "http-equiv" in a)
    assert [digest(s) in policy for s in page.inside["script"]] == [True, True]
