"""Which corrections a request names, and whether it can be run."""

from __future__ import annotations

from collections.abc import Iterable

from blockviz.corrections import CORRECTIONS, Correction
from blockviz.errors import BadInput
from blockviz.session.repair_views import RepairRequest
from blockviz.settings import label_of, parse_method
from blockviz.types import EXPORT_MODES, ExportMode

NO_CORRECTION = "none"

# What `auto` tries beside the defaults of everything that an export can carry.
AUTO_GRID = (
    *(f"replaceme:ridge={ridge}" for ridge in (0.001, 0.1)),
    *(
        f"writer_refit:writers={writers}:ridge={ridge}"
        for writers in ("gap", "all")
        for ridge in (0.02, 0.1, 0.5)
    ),
)


# What it tries beside those where the export carries modules of its own.
CUSTOM_GRID = (
    *(f"ridge:ridge={ridge}" for ridge in (0.01, 0.1)),
    *(f"norm_ridge:ridge={ridge}" for ridge in (0.01, 0.1)),
)


def parse_corrections(
    names: Iterable[str], mode: ExportMode = "stock-compact"
) -> dict[str, Correction]:
    """Label -> correction of `name:setting=value`, in order, each once; `none` is passed over.

    `all` stands for every one that is not experimental, with its defaults; `auto` for those of them
    that an export of this mode can carry, and for AUTO_GRID.
    """
    every = [cls() for cls in CORRECTIONS.classes() if not cls.is_experimental]
    is_custom = mode == "custom"
    able = [correction for correction in every if is_custom or correction.folds]
    grid = (*AUTO_GRID, *(CUSTOM_GRID if is_custom else ()))
    found: list[Correction] = []
    for name in (name.strip() for name in names):
        if name == "all":
            found += every
        elif name == "auto":
            found += [*able, *(parse_method(CORRECTIONS, text) for text in grid)]
        elif name and name != NO_CORRECTION:
            found.append(parse_method(CORRECTIONS, name))
    return {label_of(correction): correction for correction in found}


def check_repair(request: RepairRequest) -> dict[str, Correction]:
    """The corrections of a request; BadInput or UnknownName where it cannot be run."""
    if request.export_mode not in EXPORT_MODES:
        raise BadInput(
            f"A repair for the export mode {request.export_mode!r} was asked for.",
            "There is no such mode.",
            f"Use {', '.join(EXPORT_MODES)}.",
        )
    found = parse_corrections(request.corrections, request.export_mode)
    if not found:
        raise BadInput(
            "Corrections were to be fitted.", "None was named.", "Name some, such as asc, or all."
        )
    if not request.plan.removed:
        raise BadInput(
            f"Of {', '.join(found)} something was to be corrected.",
            "The plan removes nothing.",
            "Give a plan with at least one removed block.",
        )
    for value, least, what in (
        (request.text.n_samples, 1, "windows to fit on"),
        (request.n_skip, 0, "windows to leave out"),
        (request.n_held, 0, "windows to hold back"),
        (request.text.seq_len, 2, "tokens in a window to fit on"),
        (request.evaluation.seq_len, 2, "tokens in a window to measure on"),
    ):
        if value < least:
            raise BadInput(
                f"{value} {what} were asked for.", f"The least is {least}.", "Ask for more."
            )
    return found
