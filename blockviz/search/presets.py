"""Presets: the recipes of papers by name, as far as choosing blocks goes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blockviz.registry import Registry


@dataclass(frozen=True)
class Preset:
    """A paper's recipe. `note`: what of it is left out, scaled or read otherwise here.

    settings: fields of a search request by their names, those of its text under `text`; what a
    recipe leaves open is not there. `protect_first_share` is no such field: it stands for that
    share of the model's layers, and `protect_first` counts on top of it. How far to cut is never
    set: the target is the reader's. repair: the correction, or merge, that its paper puts
    behind the cut; empty where it has none, or only training.
    """

    name: str
    title: str
    meaning: str
    reference: str
    citation: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    repair: str = ""
    note: str = ""

    def protect_first(self, n_layers: int) -> int:
        """How many of the first layers of a model of `n_layers` it protects."""
        share = self.settings.get("protect_first_share", 0.0)
        return math.floor(share * n_layers + 1e-9) + self.settings.get("protect_first", 0)


def preset(name: str) -> Preset:
    """The preset called `name`; UnknownName with near matches otherwise."""
    known: Registry[Preset] = Registry("preset")
    for recipe in PRESETS:
        known.register(recipe)
    return known.get(name)


def _text(calibration: str, n_samples: int, seq_len: int, **more: Any) -> dict[str, Any]:
    return {"calibration": calibration, "n_samples": n_samples, "seq_len": seq_len, **more}


def _one_shot(scores: str, **more: Any) -> dict[str, Any]:
    settings = {"objective": "ppl", "strategy": "oneshot", "unit": "layer", "scores": scores}
    return {**settings, **more}


def _window(scores: str, **more: Any) -> dict[str, Any]:
    settings = {"objective": "ppl", "strategy": "window", "unit": "layer", "scores": scores}
    return {**settings, **more}


PRESETS: tuple[Preset, ...] = (
    Preset(
        name="blockpruner",
        title="BlockPruner",
        meaning="Greedy over attention and MLP blocks by the perplexity without them.",
        reference="https://arxiv.org/abs/2406.10594",
        citation="Zhong et al., Findings of ACL 2025",
        settings={
            "objective": "ppl",
            "strategy": "greedy",
            "unit": "block",
            "text": _text("alpaca", 16, 2048, mode="stream", seed=42),
        },
        note="The paper's 256 samples of Alpaca, joined and cut as its code does, are about 16 "
        "windows of 2048 tokens.",
    ),
    Preset(
        name="sleb",
        title="SLEB",
        meaning="Greedy over whole layers by perplexity; the first and the last one stay.",
        reference="https://arxiv.org/abs/2402.09025",
        citation="Song et al., ICML 2024",
        settings={
            "objective": "ppl",
            "strategy": "greedy",
            "unit": "layer",
            "protect_first": 1,
            "protect_last": 1,
            "text": _text("wikitext2", 4, 2048, mode="stream", is_shuffled=True),
        },
        note="Its code shuffles 128 lines of WikiText-2 and joins them, which gives four to five "
        "windows; here four windows of the joined text are drawn.",
    ),
    Preset(
        name="finercut",
        title="FinerCut",
        meaning="Greedy over blocks by how far the predicted distribution drifts; the first 40 % "
        "of the layers stay.",
        reference="https://arxiv.org/abs/2405.18218",
        citation="Zhang et al. 2024",
        settings={
            "objective": "js",
            "strategy": "greedy",
            "unit": "block",
            "protect_first_share": 0.4,
            "protect_first": 1,
            "text": _text("wikitext2", 10, 256, mode="stream"),
        },
        note="The divergence is the usual one; the paper's code computes another, which "
        "js:js_variant=finercut_code has.",
    ),
    Preset(
        name="lds_asc",
        title="LDS",
        meaning="Greedy over blocks by how far the top logits turn away.",
        reference="https://aclanthology.org/2026.findings-eacl.193/",
        citation="Hu et al., Findings of EACL 2026",
        settings={"objective": "lds", "strategy": "greedy", "unit": "block"},
        repair="asc",
        note="After the abstract: number of logits, search and text are our choice.",
    ),
    Preset(
        name="tale",
        title="TALE",
        meaning="Removes whole layers for as long as a task's accuracy holds.",
        reference="https://arxiv.org/abs/2510.22767",
        citation="Naim et al. 2025",
        settings={
            "objective": "acc",
            "strategy": "tale",
            "unit": "layer",
            "text": {"tasks": "arc_easy"},
        },
        note="The task is an example: name the one that matters. The target only caps it.",
    ),
    Preset(
        name="shortgpt",
        title="ShortGPT",
        meaning="Removes the layers that change the stream's direction least.",
        reference="https://arxiv.org/abs/2403.03853",
        citation="Men et al. 2024",
        settings=_one_shot("bi"),
        note="Published on PG19; here on the calibration text that is set, of which the scores "
        "depend little.",
    ),
    Preset(
        name="relative_magnitude",
        title="Relative magnitude",
        meaning="Removes the layers that add least to the stream, by size.",
        reference="https://arxiv.org/abs/2312.09299",
        citation="Samragh et al. 2023",
        settings=_one_shot("rm"),
        note="The paper goes on to train what is left.",
    ),
    Preset(
        name="shortened_ppl",
        title="Shortened LLaMA, perplexity",
        meaning="Removes the layers without which perplexity rises least, each measured alone.",
        reference="https://arxiv.org/abs/2402.02834",
        citation="Kim et al. 2024",
        settings=_one_shot("ppl", text={"n_samples": 10, "seq_len": 128}),
        note="Published on BookCorpus and retrained after it; here on the calibration text that "
        "is set.",
    ),
    Preset(
        name="shortened_taylor",
        title="Shortened LLaMA, Taylor+",
        meaning="Removes the layers whose weights the loss feels least; the first four and the "
        "last two stay.",
        reference="https://arxiv.org/abs/2402.02834",
        citation="Kim et al. 2024",
        settings=_one_shot(
            "taylor",
            protect_first=4,
            protect_last=2,
            text={"n_samples": 10, "seq_len": 128},
        ),
        note="Published on BookCorpus and retrained after it; here on the calibration text that "
        "is set.",
    ),
    Preset(
        name="tabp",
        title="TaBP",
        meaning="Removes layers of the later half that seldom move the early prediction the "
        "right way.",
        reference="https://aclanthology.org/2026.findings-eacl.320/",
        citation="Jo et al., Findings of EACL 2026",
        settings=_one_shot(
            "tabp_ddf:positions=128",
            protect_first_share=0.5,
            protect_first=1,
            text=_text("wikitext2", 8, 128, mode="stream"),
        ),
        note="Its form for free text, on 1024 tokens of WikiText-2; for a task name its questions "
        "and order by tabp_ddf:form=choices.",
    ),
    Preset(
        name="prune_comp",
        title="Prune&Comp",
        meaning="Removes the layer that changes the stream's direction least, scales what is left "
        "to its earlier size, and so on, one layer after the other.",
        reference="https://arxiv.org/abs/2507.18212",
        citation="Chen et al., AAAI 2026",
        settings={
            "objective": "ppl",
            "strategy": "iterative",
            "unit": "layer",
            "scores": "bi",
            "with_repair": "scalar",
            "repair_samples": 128,
            "text": _text("wikitext2", 256, 2048, mode="stream"),
        },
        repair="scalar",
        note="The scales are fitted on text behind that of the scores, where its code takes the "
        "first windows of one set for both.",
    ),
    Preset(
        name="gromov",
        title="Angular distance",
        meaning="Removes the run of layers across which the stream turns least.",
        reference="https://arxiv.org/abs/2403.17887",
        citation="Gromov et al. 2024",
        settings=_window("ang_win", text={"calibration": "c4"}),
        note="The paper then heals the cut by training, which is no part of choosing blocks.",
    ),
    Preset(
        name="streamline",
        title="LLM-Streamline",
        meaning="Removes the run of layers in front of and behind which the stream is most alike.",
        reference="https://arxiv.org/abs/2403.19135",
        citation="Chen et al. 2024",
        settings=_window("cos_win", text={"n_samples": 50, "seq_len": 2048}),
        repair="llm_streamline",
        note="The paper puts a small trained layer in their place, which is no part of choosing "
        "blocks.",
    ),
    Preset(
        name="linearpatch",
        title="LinearPatch",
        meaning="Removes the run of layers across which the channels change least; the first and "
        "the last layer stay.",
        reference="https://arxiv.org/abs/2505.24680",
        citation="Chen et al., NeurIPS 2025",
        settings=_window(
            "cos_win:cos_axis=channel",
            protect_first=1,
            protect_last=1,
            text=_text("wikitext2", 128, 2048, mode="stream", seed=2, is_shuffled=True),
        ),
        repair="hadamard",
        note="Channels over tokens are compared, as its code does. The patch is a repair, and no "
        "part of choosing blocks.",
    ),
    Preset(
        name="replaceme",
        title="ReplaceMe",
        meaning="Removes the run of layers in front of and behind which the stream is most alike; "
        "a linear map takes its place.",
        reference="https://arxiv.org/abs/2505.02819",
        citation="Shopkhoev et al. 2025",
        settings=_window("cos_win"),
        repair="replaceme:ridge=0.0",
        note="Published on chats of SlimOrca; here on the calibration text that is set.",
    ),
    Preset(
        name="laco",
        title="LaCo",
        meaning="Merges runs of layers into their lowest one while the result looks alike.",
        reference="https://arxiv.org/abs/2402.11187",
        citation="Yang et al. 2024",
        settings={"strategy": "laco", "unit": "layer", "text": {"n_samples": 5}},
        repair="merge",
        note="It ends itself: how far it goes is set by its threshold, and a target only caps it.",
    ),
    Preset(
        name="sliding_merge",
        title="Sliding merge",
        meaning="Merges windows of layers that grow for as long as the result looks alike.",
        reference="https://arxiv.org/abs/2502.19159",
        citation="Ding et al. 2025",
        settings={
            "strategy": "sliding_merge",
            "unit": "layer",
            "text": {"n_samples": 10, "seq_len": 128},
        },
        repair="merge",
        note="Published on BookCorpus, and trained after it; its code leaves the lowest window "
        "unmerged. A target only caps how far it goes.",
    ),
)
