"""The named endpoints, called as a program calls them; and with what no page would send."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fake_engine import FakeEngine
from gradio_client import Client
from gradio_client.exceptions import AppError
from serving import launch

README = Path(__file__).parents[1] / "README.md"
ENDPOINTS = {"/load", "/score", "/search", "/evaluate", "/generate", "/export"}


@pytest.fixture(scope="module")
def engine() -> FakeEngine:
    return FakeEngine(step=0.0, is_ready=True, mode="hosted")


@pytest.fixture(scope="module")
def url(engine: FakeEngine) -> Iterator[str]:
    app, served = launch(engine)
    yield served.url
    app.close()


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False)


def test_the_example_of_the_readme_runs(url: str):
    text = README.read_text(encoding="utf-8")
    code = re.search(r"endpoints:begin -->\n```python\n(.*?)```", text, re.S)[1]
    found: dict[str, Any] = {}
    exec(code.replace("http://127.0.0.1:7860", url), found)
    assert found["scores"]["schema"] == "blockviz/scores/1"
    assert set(found["scores"]["metrics"]) >= {"ppl", "bi"}
    assert found["found"]["schema"].startswith("blockviz/") and found["plan"]
    assert found["report"]["schema"].startswith("blockviz/comparison")
    assert found["texts"]["original"] and found["texts"]["removed"] == found["plan"].split(",")
    archive = httpx2.get(url.rstrip("/") + found["written"]["url"])
    assert archive.status_code == 200 and len(archive.content) == found["written"]["n_bytes"]


def test_these_endpoints_are_listed_and_no_other(client: Client):
    listed = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(listed) == ENDPOINTS


@pytest.mark.parametrize("end", ["", "/"])
def test_a_link_of_gradios_own_kind_leaves_no_file(url: str, client: Client, end: str):
    """It would be written anew for every look of a page, and stay."""
    asked = {"session_hash": client.session_hash}
    assert httpx2.get(f"{url}gradio_api/deep_link{end}", params=asked).status_code == 404
    assert httpx2.get(f"{url}gradio_api/info").status_code == 200


def test_load_says_what_was_loaded(client: Client, engine: FakeEngine):
    found = client.predict(model="demo", api_name="/load")
    assert found["name"] == engine.info.name and len(found["blocks"]) == 60


@pytest.mark.parametrize(
    ("endpoint", "arguments", "said"),
    [
        ("/score", {"metrics": "ppl,magic"}, "no such choice"),
        ("/score", {"metrics": ""}, "Choose one or more"),
        ("/score", {"metrics": ["ppl"]}, "Send plain text"),
        ("/score", {"calibration": "/etc/passwd"}, "no such choice"),
        ("/score", {"n_samples": 10_000}, "between 1 and 64"),
        ("/score", {"n_samples": "many"}, "not a whole number"),
        ("/search", {"blocks": -1}, "between"),
        ("/search", {"strategy": "magic"}, "no such choice"),
        ("/search", {"strategy": 3}, "Send plain text"),
        ("/evaluate", {"remove": ""}, "Nothing is removed"),
        ("/evaluate", {"remove": "99.attn"}, "has layers"),
        ("/evaluate", {"remove": "x" * 5000}, "characters"),
        ("/evaluate", {"remove": "18.attn", "correction": "magic"}, "no such choice"),
        ("/evaluate", {"remove": "18.attn", "data": "../x.txt"}, "no such choice"),
        ("/generate", {"prompt": "a" * 5000}, "At most"),
        ("/generate", {"prompt": "a", "max_new_tokens": 10**6}, "between 1 and 128"),
        ("/generate", {"prompt": ["a"]}, "Send plain text"),
        ("/generate", {"prompt": "a", "template": "jinja"}, "no such choice"),
        ("/export", {"remove": "18.attn", "mode": "zip"}, "no such choice"),
        ("/export", {"remove": ",".join(f"{i}.layer" for i in range(30))}, "removes all"),
        ("/load", {"model": ""}, "box is empty"),
        ("/load", {"model": "demo", "dtype": "int1"}, "no such choice"),
    ],
)
def test_what_the_page_would_refuse_is_refused_in_its_words(
    client, endpoint, arguments, said, capfd
):
    with pytest.raises(AppError, match=said):
        client.predict(**arguments, api_name=endpoint)
    # What a stranger asked for leaves nothing in the log of the host.
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_result_that_is_gone_is_no_crash(client: Client, engine: FakeEngine, monkeypatch):
    monkeypatch.setattr(engine, "table", lambda key: None)
    with pytest.raises(AppError, match="Ask again"):
        client.predict(metrics="ppl", api_name="/score")


def test_answers_are_plain_json(client: Client):
    found = client.predict(metrics="ppl", api_name="/score")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
