"""Every method's source: one table of papers, and each citation held against it."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import NamedTuple

import pytest

from blockviz import plots
from blockviz.corrections import CORRECTIONS
from blockviz.metrics import METRICS
from blockviz.search import PRESETS, STRATEGIES

ROOT = Path(__file__).parents[1]
ARXIV, ID = "https://arxiv.org/abs/", r"\d{4}\.\d{5}"


class Paper(NamedTuple):
    """name: as it is called in this field; year: of the venue where there is one."""

    author: str
    year: int
    name: str


# arXiv id, or the page of a paper that is nowhere else -> the paper.
PAPERS = {
    "1905.00414": Paper("Kornblith", 2019, "Similarity of neural network representations"),
    "2306.11695": Paper("Sun", 2023, "Wanda"),
    "2312.09299": Paper("Samragh", 2023, "Weight subcloning"),
    "2402.02834": Paper("Kim", 2024, "Shortened LLaMA"),
    "2402.05406": Paper("Dery", 2024, "Bonsai"),
    "2402.09025": Paper("Song", 2024, "SLEB"),
    "2402.11187": Paper("Yang", 2024, "LaCo"),
    "2403.03853": Paper("Men", 2024, "ShortGPT"),
    "2403.17887": Paper("Gromov", 2024, "The unreasonable ineffectiveness of the deeper layers"),
    "2403.19135": Paper("Chen", 2024, "LLM-Streamline"),
    "2405.18218": Paper("Zhang", 2024, "FinerCut"),
    "2406.10576": Paper("Gao", 2024, "Bypass back-propagation"),
    "2406.10594": Paper("Zhong", 2025, "BlockPruner"),
    "2406.15786": Paper("He", 2024, "LLM-Drop"),
    "2407.16286": Paper("Siddiqui", 2024, "A deeper look at depth pruning"),
    "2502.19159": Paper("Ding", 2025, "Sliding Layer Merging"),
    "2505.02819": Paper("Shopkhoev", 2025, "ReplaceMe"),
    "2505.24680": Paper("Chen", 2025, "LinearPatch"),
    "2507.18212": Paper("Chen", 2026, "Prune&Comp"),
    "2510.22767": Paper("Naim", 2025, "TALE"),
    "2602.07375": Paper("Yu", 2026, "Statistical Correction"),
    "2605.15491": Paper("", 2026, "Ghosted Layers"),
    "aclanthology.org/2026.findings-eacl.193": Paper("Hu", 2026, "ASC"),
    "aclanthology.org/2026.findings-eacl.320": Paper("Jo", 2026, "TaBP"),
}  # fmt: skip
# Cited by figures, and not of this field.
OTHERS = {
    "https://doi.org/10.1093/biomet/33.3.239": "Kendall 1945",
    "https://doi.org/10.1007/s001820050125": "Grabisch and Roubens 1999",
    "https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens":
        "nostalgebraist 2020",
}  # fmt: skip
LINKS = {(ARXIV if re.fullmatch(ID, key) else "https://") + key: p for key, p in PAPERS.items()}


def figure_citations() -> list[tuple[str, str]]:
    found = []
    for module in iter_modules(plots.__path__, "blockviz.plots."):
        for value in vars(import_module(module.name)).values():
            if isinstance(value, tuple) and len(value) == 2 and str(value[1]).startswith("http"):
                found.append(value)
    return list(dict.fromkeys(found))


METHODS = [
    *((f"{r.kind} {c.name}", c.citation, c.reference, c.title)
      for r in (METRICS, CORRECTIONS, STRATEGIES) for c in r.classes()),
    *((f"preset {p.name}", p.citation, p.reference, p.title) for p in PRESETS),
    *((f"figure, {text}", text, link, "") for text, link in figure_citations()
      if link not in OTHERS),
]  # fmt: skip


def test_the_table_is_well_formed():
    assert list(PAPERS) == sorted(PAPERS)
    names = [paper.name for paper in PAPERS.values()]
    assert len(set(names)) == len(names)
    # "Chen et al. 2025" alone says which.
    assert len({(p.author, p.year) for p in PAPERS.values()}) == len(PAPERS)
    for key, paper in PAPERS.items():
        assert re.fullmatch(ID, key) or key.startswith("aclanthology.org/"), key
        # An arXiv id begins with the year and month in which the paper came.
        year = 2000 + int(key[:2]) if key[0].isdigit() else paper.year
        assert year <= paper.year <= year + 1, key


@pytest.mark.parametrize(
    ("citation", "reference", "title"), [m[1:] for m in METHODS], ids=[m[0] for m in METHODS]
)
def test_a_citation_and_its_link_are_of_one_paper(citation, reference, title):
    if not reference:
        assert "blockviz" in citation
        return
    paper = LINKS[reference.rstrip("/")]
    assert paper.author in citation and str(paper.year) in citation
    named = [p for p in PAPERS.values() if p.name in f"{citation} {title}"]
    is_one = citation.count(" et al.") < 2
    assert paper in named or not (named and is_one)


def test_every_author_that_is_cited_is_in_the_table():
    known = {(p.author, str(p.year)) for p in PAPERS.values()}
    for _, citation, _, _ in METHODS:
        cited = re.findall(r"(\w+) et al\.,? (?:[A-Za-z ]+ )?(\d{4})", citation)
        assert set(cited) <= known, citation


def test_every_id_that_is_written_anywhere_is_in_the_table():
    files = [ROOT / "README.md"]
    for folder, endings in (("blockviz", ("py", "js")), ("assets", ("json", "md"))):
        files += (path for end in endings for path in (ROOT / folder).rglob(f"*.{end}"))
    written = {}
    for path in files:
        text = path.read_text(encoding="utf-8")
        for key in re.findall(r"(?:arXiv[ :]|arxiv\.org/\w+/)([\w.]*\w)", text, re.IGNORECASE):
            written.setdefault(key, path.name)
    assert len(written) > 15
    unknown = {key: name for key, name in written.items() if key not in PAPERS}
    assert not unknown


def test_other_sources_are_cited_as_they_are():
    cited = {link: text for text, link in figure_citations()}
    for link, text in OTHERS.items():
        assert text in cited[link]
