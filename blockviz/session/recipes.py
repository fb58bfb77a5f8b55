"""A search request of what a person set, filled up by a paper's recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from blockviz.search.presets import preset
from blockviz.session.search_views import SearchRequest
from blockviz.session.views import ScoreRequest


def filled_request(
    own: Mapping[str, Any], *, recipe: str = "", n_layers: int | None = None
) -> SearchRequest:
    """The request of the fields in `own`, its text's under `text`; then the recipe's; then usual.

    n_layers: of the model, for recipes that protect a share of it; None where it is not known yet.
    """
    settings: dict[str, Any] = {}
    if recipe:
        found = preset(recipe)
        settings = {**found.settings, "preset": recipe}
        settings.pop("protect_first_share", None)
        if n_layers is not None:
            settings["protect_first"] = found.protect_first(n_layers)
    text = ScoreRequest(**{**settings.get("text", {}), **own.get("text", {})})
    return SearchRequest(**{**settings, **own, "text": text})


def departures(own: Mapping[str, Any], recipe: str) -> Iterator[tuple[str, Any, Any]]:
    """(field, the recipe's value, the person's) wherever the two differ."""
    settings = preset(recipe).settings
    share = settings.get("protect_first_share")
    if share is not None and "protect_first" in own:
        yield "protect_first", f"{share:.0%} of the layers", own["protect_first"]
    pairs = [(settings, own), (settings.get("text", {}), own.get("text", {}))]
    for theirs, ours in pairs:
        for name, value in ours.items():
            if name != "text" and name in theirs and theirs[name] != value:
                yield name, theirs[name], value
