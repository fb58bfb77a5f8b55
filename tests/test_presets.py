"""Every preset is a request that can be run, and says what it leaves out."""

from __future__ import annotations

from dataclasses import fields

import pytest

from blockviz.corrections import CORRECTIONS
from blockviz.errors import UnknownName
from blockviz.metrics import METRICS, parse_metric
from blockviz.search import PRESETS, STRATEGIES, Preset, preset
from blockviz.session.search_views import SearchRequest
from blockviz.session.views import ScoreRequest
from blockviz.settings import parse_method

TARGETS = {"blocks", "ratio", "max_ppl_rise", "speedup"}


@pytest.mark.parametrize("recipe", PRESETS, ids=lambda p: p.name)
def test_every_setting_is_one_of_a_search(recipe: Preset):
    known = {f.name for f in fields(SearchRequest)} | {"protect_first_share"}
    assert set(recipe.settings) <= known - TARGETS - {"preset"}
    assert set(recipe.settings.get("text", {})) <= {f.name for f in fields(ScoreRequest)}
    assert {"strategy", "unit"} <= set(recipe.settings)


@pytest.mark.parametrize("recipe", PRESETS, ids=lambda p: p.name)
def test_every_name_is_known_and_the_unit_fits(recipe: Preset):
    settings = recipe.settings
    strategy = parse_method(STRATEGIES, settings["strategy"])
    assert settings["unit"] in strategy.units
    assert not strategy.is_experimental
    # A merge goes by a measure of its own.
    assert bool(strategy.objective) != ("objective" in settings)
    if "objective" in settings:
        assert parse_metric(settings["objective"]).name in METRICS.names()
    for repair in filter(None, (recipe.repair, settings.get("with_repair"))):
        parse_method(CORRECTIONS, repair)
    assert bool(strategy.wants) == ("scores" in settings)
    if "scores" in settings:
        metric = parse_metric(settings["scores"])
        assert settings["unit"] in metric.units
        assert (metric.name in ("cos_win", "ang_win")) == (strategy.wants == "windows")


@pytest.mark.parametrize("recipe", PRESETS, ids=lambda p: p.name)
def test_every_preset_is_described_and_cited(recipe: Preset):
    assert recipe.title and recipe.citation and recipe.reference.startswith("https://")
    assert recipe.meaning.endswith(".")
    assert recipe.note == "" or recipe.note.endswith(".")


def test_names_are_looked_up_with_near_matches():
    assert [preset(p.name) for p in PRESETS] == list(PRESETS)
    with pytest.raises(UnknownName, match="Did you mean 'shortgpt'"):
        preset("short-gpt")


@pytest.mark.parametrize(
    ("name", "n_layers", "n"),
    [
        # FinerCut's code leaves out floor(0.4 L) + 1 layers; TaBP begins at L / 2 + 1.
        *[("finercut", 30, 13), ("finercut", 32, 13), ("tabp", 32, 17), ("tabp", 31, 16)],
        *[("sleb", 30, 1), ("shortened_taylor", 32, 4), ("blockpruner", 32, 0)],
    ],
)
def test_protected_layers_of_a_model(name: str, n_layers: int, n: int):
    assert preset(name).protect_first(n_layers) == n
