"""Targets and plans at the edge: what was asked and what was reached, shares, names of blocks."""

from __future__ import annotations

import argparse
import json

import pytest
import tiny
from test_cli import folder, own_cache, refusal, text
from test_cli_search import common

from blockviz.cli import main
from blockviz.cli.requests import read_plan
from blockviz.corrections.sparse import Pattern
from blockviz.errors import BadPlan
from blockviz.session.pools import parse_pool
from blockviz.types import BlockId
from blockviz.ui import inputs

__all__ = ["folder", "own_cache", "text"]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "target, asked, reached, warning",
    [
        (["--blocks", "8"], "asked for: 8 blocks", "7 blocks removed",
         "8 blocks were asked for, and 7 are removed: one block always stays."),
        (["--blocks", "4", "--unit", "layer"], "asked for: 4 layers", "3 layers removed",
         "4 layers were asked for, and 3 are removed: one block always stays."),
        (["--ratio", "0.9999"], "asked for: at most 99.99 % of the parameters", "7 blocks removed",
         ""),
        (["--blocks", "2"], "asked for: 2 blocks", "2 blocks removed", ""),
        (["--blocks", "3", "--ratio", "10%"], "asked for: 3 blocks, at most 10 % of the parameters",
         "1 block removed", ""),
    ],
)  # fmt: skip
def test_what_was_asked_and_what_was_reached_stand_together(
    folder, text, tmp_path, capsys, target, asked, reached, warning
):
    out = tmp_path / "plan.json"
    assert main(["search", *common(folder, text), *target, "--out", str(out), "--no-resume"]) == 0
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if "removed," in line and "parameters" in line]
    assert line.startswith(reached) and asked in line
    # That a text is short stands behind it.
    told = json.loads(out.read_text())["search"]["warning"]
    assert warning in said and told.startswith(f"{warning} Chosen on " if warning else "Chosen on ")


@pytest.mark.parametrize("share", ["1", "0", "1.5", "-0.1", "nan", "100%"])
def test_a_share_out_of_range_is_told_the_range(folder, text, capsys, share):
    said = refusal(capsys, "search", *common(folder, text), f"--ratio={share}")
    assert "above 0 and below 1" in said and "0.2 or 20%" in said


def test_a_share_may_be_written_in_percent(folder, text, tmp_path):
    found = []
    for share in ("0.2", "20%", "20 %"):
        out = tmp_path / "plan.json"
        asked = ["search", *common(folder, text), "--ratio", share, "--out", str(out)]
        assert main([*asked, "--no-resume"]) == 0
        found.append(json.loads(out.read_text()))
    assert found[0]["search"]["parameters"]["ratio"] == 0.2
    assert len({tuple(plan["removed"]) for plan in found}) == 1 and found[0]["removed"]
    assert parse_pool("bi:50%") == ("bi", 0.5)
    assert Pattern.parse("50%") == Pattern.parse("0.5")


@pytest.mark.parametrize("share", ["0,2", "a fifth", "", "%"])
def test_what_is_no_share_is_refused_in_three_parts(folder, text, capsys, share):
    said = refusal(capsys, "search", *common(folder, text), "--ratio", share)
    assert repr(share) in said and "0.2 or 20%" in said


def test_a_rise_may_carry_its_percent_sign(folder, text, tmp_path):
    out = tmp_path / "plan.json"
    asked = ["search", *common(folder, text), "--max-ppl-rise", "5%", "--out", str(out)]
    assert main([*asked, "--no-resume"]) == 0
    assert json.loads(out.read_text())["search"]["parameters"]["max_ppl_rise"] == 5


def plan(names: str) -> tuple[BlockId, ...]:
    return read_plan(argparse.Namespace(remove=names, plan=None)).removed


@pytest.mark.parametrize("name", ["1.attn", "1.ATTN", " 1.Attn ", "01.attn"])
def test_a_block_is_named_in_any_case(name):
    assert BlockId.parse(name) == BlockId(1, "attn") and str(BlockId.parse(name)) == "1.attn"


def test_a_block_given_twice_is_one():
    twice = "0.attn,0.mlp,0.ATTN,0.mlp,0.layer"
    assert plan(twice) == plan("0.attn,0.mlp") == tiny.ids("0.attn", "0.mlp")
    info = tiny.model("llama").info
    assert inputs.removed_blocks(twice.split(","), info) == ("0.attn", "0.mlp")


@pytest.mark.parametrize("name", ["\uff11.attn", "1.at", "attn.1", "1", "-1.attn", "1.attn;2.mlp"])
def test_what_is_no_block_is_still_refused(name):
    with pytest.raises(BadPlan):
        BlockId.parse(name)
