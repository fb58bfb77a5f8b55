"""What README.md says of the program, held against the program."""

from __future__ import annotations

import re
from pathlib import Path

from blockviz.metrics import METRICS
from blockviz.session.catalogue import metrics_json, metrics_markdown

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def between(name: str) -> str:
    """The text between the two markers of a name, each of which occurs once."""
    (found,) = re.findall(rf"<!-- {name}:begin -->\n(.*?)<!-- {name}:end -->", README, re.DOTALL)
    return found


def test_the_table_of_metrics_is_the_generated_one():
    assert between("metrics") == metrics_markdown() + "\n"


def test_the_table_has_a_row_of_seven_cells_for_every_metric():
    rows = metrics_markdown().splitlines()
    assert all(row.startswith("| ") and row.endswith(" |") for row in rows)
    assert {row.count("|") for row in rows} == {8}
    assert [row.split("`")[1] for row in rows[2:]] == list(METRICS.names())


def test_the_row_of_a_metric_by_hand():
    rows = {row.split("`")[1]: row for row in metrics_markdown().splitlines()[2:]}
    assert rows["lds"].split(" | ") == [
        "| `lds`",
        "Logit disruption",
        "How far the strongest logits turn when the block is removed.",
        "block, layer",
        "one sweep",
        "`k=100` (2 to 100000)<br>`space=raw` (raw, centered, logprob)",
        "[Hu, Xu, Zhan, Findings of EACL 2026](https://aclanthology.org/2026.findings-eacl.193/) |",
    ]
    assert "| block | one pass |" in rows["cvr"] and "| layer | one pass |" in rows["cos_win"]
    assert "(true, false)" in rows["bi"] and "(at least 1)" in rows["taylor"]


def test_every_metric_says_what_it_is():
    for metric in metrics_json()["metrics"]:
        for name in ("title", "meaning", "unit_label", "units", "cost", "reference", "citation"):
            assert metric[name], (metric["name"], name)
        assert metric["meaning"].endswith(".") and metric["reference"].startswith("https://")
        for name, rules in metric["parameters"].items():
            assert rules["label"], (metric["name"], name)
            if isinstance(rules["default"], str):
                assert rules["default"] in rules["choices"]
    by_name = {m["name"]: m for m in metrics_json()["metrics"]}
    assert by_name["lds"]["parameters"]["k"]["default"] == 100
    assert by_name["shapley_random"]["parameters"]["frac"] == {
        "default": 0.5,
        "label": "Share kept",
        "min": 0.05,
        "max": 0.95,
    }
    assert [n for n, m in by_name.items() if m["needs_tasks"]] == ["acc"]
    assert by_name["cvr"]["units"] == ["block"] and by_name["ang_win"]["units"] == ["layer"]


def test_the_number_of_metrics_is_the_one_it_speaks_of():
    assert len(METRICS.names()) == 20
    assert "the twenty of the table below" in between("what-is-in")


def test_the_front_matter_names_the_versions_that_are_pinned():
    root = Path(__file__).parents[1]
    front = README.split("---\n")[1]
    found = dict(re.findall(r"^(\w+): (.*)$", front, re.MULTILINE))
    pins = (root / "requirements.txt").read_text(encoding="utf-8")
    assert f"\ngradio=={found['sdk_version']}\n" in pins
    assert (found["sdk"], (root / found["app_file"]).is_file()) == ("gradio", True)
    assert f"python:{found['python_version'].strip(chr(34))}-" in (root / "Dockerfile").read_text()
    # The hub cuts a longer one off.
    assert len(found["short_description"]) <= 60
    # Without these there is no sign-in, and nothing can be pushed.
    assert (found["hf_oauth"], found["hf_oauth_scopes"]) == ("true", "[contribute-repos]")
