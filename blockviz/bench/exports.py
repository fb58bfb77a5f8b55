"""Written exports beside the original: what they weigh, and how fast they read and write."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from blockviz.bench.scoring import Say
from blockviz.evaluate import measure_speed, speedup
from blockviz.export import assembled, no_repair, weight_bytes, write_weights
from blockviz.models.load import quiet
from blockviz.models.model import BlockModel
from blockviz.models.reload import reload
from blockviz.session.search_views import SearchRequest
from blockviz.session.searching import search_windows
from blockviz.types import CalibrationSet, ExportMode, PruningPlan, run

SIZES = (14, 20)
MODES: tuple[ExportMode, ...] = ("stock-compact", "custom")


def compare_exports(
    model: BlockModel, windows: CalibrationSet, say: Say, *, repeats: int = 20
) -> dict[str, Any]:
    """The first 14 and 20 blocks that a greedy search by perplexity removes, in two modes.

    Every export is loaded from its files and timed in turns with the original, which is too.
    """
    wanted = SearchRequest(blocks=max(SIZES), objective="ppl")
    order = run(search_windows(model, windows, wanted)).steps[-1].removed
    say(f"Left out, in this order: {', '.join(map(str, order))}")
    modules: dict[str, nn.Module] = {}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as root:
        for name, plan, mode in (
            ("original", PruningPlan(), MODES[0]),
            *((f"{n} {mode}", PruningPlan(order[:n]), mode) for n in SIZES for mode in MODES),
        ):
            folder = Path(root) / name.replace(" ", "-")
            folder.mkdir()
            with quiet():
                write_weights(folder, assembled(model, no_repair(plan), mode), model.tokenizer)
            sizes[name] = weight_bytes(folder)
            modules[name] = reload(folder).module
    speeds = run(measure_speed(modules, repeats=repeats))
    first, rows = speeds["original"], []
    for name, speed in speeds.items():
        decode = speedup(first.decode_seconds, speed.decode_seconds)
        prefill = speedup(first.prefill_seconds, speed.prefill_seconds)
        share = sizes[name] / sizes["original"]
        say(
            f"{name}: {100 * share:.1f} % of the bytes; decoding {decode[0]:.3f} times as fast "
            f"({decode[1]:.3f} to {decode[2]:.3f}), reading {prefill[0]:.3f} "
            f"({prefill[1]:.3f} to {prefill[2]:.3f})"
        )
        rows.append({"name": name, "bytes": sizes[name], "bytes_of_original": share,
                     "decode_speedup": decode, "prefill_speedup": prefill,
                     **speed.to_json()})  # fmt: skip
    between = {
        str(n): speedup(
            speeds[f"{n} {MODES[0]}"].decode_seconds, speeds[f"{n} {MODES[1]}"].decode_seconds
        )
        for n in SIZES
    }
    for n, (ratio, low, high) in between.items():
        say(f"{n}: custom decodes {ratio:.3f} times as fast as stock-compact "
            f"({low:.3f} to {high:.3f})")  # fmt: skip
    return {
        "what": "exports loaded from their files, in turns; ratios with 95 % intervals",
        "dtype": model.info.dtype,
        "removed": [str(b) for b in order[: max(SIZES)]],
        "rows": rows,
        "custom / stock-compact": between,
    }
