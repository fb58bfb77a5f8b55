"""The page put together, and the server that shows it."""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import gradio as gr
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware

from blockviz.errors import BadInput
from blockviz.ui.api import add_endpoints
from blockviz.ui.body_limit import BodyLimit
from blockviz.ui.callers import choose_proxies
from blockviz.ui.closed_routes import ClosedRoutes
from blockviz.ui.compare_tab import build_compare
from blockviz.ui.curves_tab import build_curves
from blockviz.ui.events import wire
from blockviz.ui.export_tab import build_export
from blockviz.ui.failures import Failures
from blockviz.ui.fair_queue import QUEUE
from blockviz.ui.file_names import FileNames, NamedFiles
from blockviz.ui.frame import build_header, build_scoreboard
from blockviz.ui.insight_tab import build_insights
from blockviz.ui.job_handlers import NO_JOBS, QUICK, JobHandlers
from blockviz.ui.learn_tab import build_learn
from blockviz.ui.listeners import Listening
from blockviz.ui.load_drawer import build_drawer
from blockviz.ui.map_tab import build_map
from blockviz.ui.own_hosts import OwnHosts
from blockviz.ui.page import Page
from blockviz.ui.parts import script, stylesheet
from blockviz.ui.repair_tab import build_repair
from blockviz.ui.safe_headers import HUB, SafeHeaders
from blockviz.ui.screen import Screen, Update
from blockviz.ui.search_tab import build_search
from blockviz.ui.sessions import keeping_little
from blockviz.ui.theme import Paper
from blockviz.ui.turns import Turns
from blockviz.ui.uploads import UploadLimit, UploadShares

if TYPE_CHECKING:
    from blockviz.session import Engine, Visitor

Mode = Literal["local", "hosted"]
# Not a secret: it only keeps a page's job id apart from other apps' entries in the same browser.
BROWSER_KEY = "blockviz-page"
# Where the engine sets no limit of its own.
UPLOAD_BYTES = 64 << 20


def mode_for(host: str, wanted: str | None = None) -> Mode:
    """`wanted`, or BLOCKVIZ_MODE; `auto` is hosted on a Space or beyond this machine."""
    wanted = wanted or os.environ.get("BLOCKVIZ_MODE", "auto")
    if wanted in ("local", "hosted"):
        return "local" if wanted == "local" else "hosted"
    if wanted != "auto":
        raise BadInput(
            f"BLOCKVIZ_MODE is {wanted!r}.",
            "There is no such mode.",
            "Set it to auto, local or hosted.",
        )
    return "hosted" if os.environ.get("SPACE_ID") or not _is_loopback(host) else "local"


def build_app(engine: Engine) -> gr.Blocks:
    """The page on `engine`, its first paint taken from the bundled example."""
    return _assembled(engine)[0]


def _assembled(engine: Engine) -> tuple[gr.Blocks, JobHandlers]:
    screen, turns = Screen(), Turns()
    jobs = JobHandlers(engine, turns, screen.visitors)
    visitor = jobs.drawing.first_visitor()
    first = jobs.first_screen(visitor)
    names = FileNames({"uploads": Path(get_upload_folder()), "exports": engine.export_root})
    with Page(
        title="blockviz", analytics_enabled=False, fill_width=True, delete_cache=(300, 3600),
        names=names,
    ) as app:  # fmt: skip
        _state(screen, visitor)
        build_header(screen)
        build_scoreboard(screen, first)
        build_drawer(screen, engine)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Map", id="map"):
                build_map(screen, engine, first)
            with gr.Tab("Curves", id="curves") as curves:
                screen.add("curves", curves)
                build_curves(screen)
            with gr.Tab("Insights", id="insights") as insights:
                screen.add("insights", insights)
                build_insights(screen, engine)
            with gr.Tab("Search", id="search") as search:
                screen.add("search", search)
                build_search(screen, engine)
            with gr.Tab("Repair", id="repair") as repair:
                screen.add("repair", repair)
                build_repair(screen, engine)
            with gr.Tab("Compare", id="compare") as compare:
                screen.add("compare", compare)
                build_compare(screen, engine)
            with gr.Tab("Export", id="export") as export:
                screen.add("export", export)
                build_export(screen, engine)
            with gr.Tab("Learn", id="learn") as learn:
                screen.add("learn", learn)
                build_learn(screen, engine, visitor)
        _first_paint(screen, first)
        wire(app, screen, engine, turns, jobs)
        add_endpoints(engine, app.listeners, names)
    # Served where they lie: a copy of gigabytes for every download would fill the disk.
    gr.set_static_paths([engine.export_root])
    return app, jobs


def serve(engine: Engine, host: str, port: int) -> None:
    """Blocks until stopped. Prints the address; never opens a tunnel. BadInput for a busy port."""
    app, jobs = _assembled(engine)
    app.queue(**QUEUE)
    settings = launch_settings(engine, host)
    try:
        _, address, _ = app.launch(
            server_name=host, server_port=port, prevent_thread_lock=True, **settings
        )
    except OSError as error:
        raise BadInput(
            f"The app was to be served on {host}, port {port}.",
            "Something else uses that port, or it is not this machine's to use.",
            "Choose another with --port 7861, or by GRADIO_SERVER_PORT=7861.",
        ) from error
    jobs.start_demo()
    sys.stdout.write(f"blockviz ({engine.mode} mode) is at {address}\n")
    sys.stdout.flush()
    app.block_thread()


def launch_settings(engine: Engine, host: str = "127.0.0.1") -> dict[str, object]:
    """What both the server and the tests pass to `launch`. host: what it is to listen on."""
    choose_proxies()
    return {
        "share": False,
        "quiet": True,
        "show_error": False,
        "max_file_size": _upload_bytes(engine),
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
        "footer_links": ["settings"],
        "state_session_capacity": 200,
        "allowed_paths": [],
        "strict_cors": True,
        "mcp_server": False,
        "app_kwargs": {"middleware": _middleware(engine, host), "lifespan": keeping_little},
        "theme": Paper(),
        "css": stylesheet(),
        "js": script("keyboard"),
    }


def _middleware(engine: Engine, host: str) -> list[Middleware]:
    """What stands before gradio's routes, the outermost first."""
    is_local, most = engine.mode == "local", _upload_bytes(engine)
    shares = UploadShares(Path(get_upload_folder()), most, has_shares=not is_local)
    return [
        Middleware(SafeHeaders, frames=() if is_local else (HUB,)),
        Middleware(Failures),
        *([Middleware(OwnHosts, host=host)] if is_local else []),
        Middleware(ClosedRoutes),
        Middleware(Listening),
        Middleware(BodyLimit, upload_bytes=most),
        Middleware(UploadLimit, shares=shares, upload_bytes=most),
        Middleware(NamedFiles),
    ]


def _upload_bytes(engine: Engine) -> int:
    return engine.limits.upload_bytes or UPLOAD_BYTES


def _state(screen: Screen, visitor: Visitor) -> None:
    screen.add("visitor", gr.State(visitor))
    screen.add("picked", gr.State(""))
    screen.add("lens", gr.State(None))
    screen.add("points_sent", gr.State(None))
    screen.add("jobs", gr.State(dict(NO_JOBS)))
    kept = gr.BrowserState({"jobs": []}, storage_key="blockviz", secret=BROWSER_KEY)
    screen.add("browser", kept)
    screen.add("timer", gr.Timer(QUICK, active=False))


def _first_paint(screen: Screen, first: Update) -> None:
    """The example drawn into the page itself, so that nothing waits for the first answer."""
    for name, value in first.items():
        component = screen[name]
        if isinstance(component, (gr.HTML, gr.Plot, gr.Dataframe)):
            component.value = component.postprocess(value)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
