"""From a model's name to a model in memory, and from a text's name to token windows."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

import blockviz
from blockviz.data import build, load_texts
from blockviz.errors import BadInput, BlockvizError
from blockviz.memory import check_fits
from blockviz.models.config_check import check_config
from blockviz.models.gguf import convert, gguf_quantisation
from blockviz.models.gguf_header import read_header
from blockviz.models.load import DTYPES, load_model, pick_device, pick_dtype, read_config
from blockviz.models.model import BlockModel
from blockviz.models.overflow import check_windows
from blockviz.session.views import ScoreRequest, Verdict
from blockviz.sources import (
    DEMO_MODEL,
    ModelFiles,
    ModelMetadata,
    ModelRef,
    conversion_folder,
    fetch_model_files,
    metadata,
    parse_model_ref,
)
from blockviz.types import DataOrigin, Done, Events, Provenance, passing

ROOM_TO_WORK = 1.3  # for what is computed, beside the weights


def open_model(name: str, *, dtype: str = "auto", device: str = "auto") -> Events:
    """Done(BlockModel) of `demo`, `owner/name[@revision]`, a folder or a GGUF file."""
    ref = parse_model_ref(name)
    if ref.kind == "hub":  # before the download, not after it
        check_fits(metadata(ref).n_bytes, f"the weights of {ref.text}")
    files: ModelFiles = yield from passing(fetch_model_files(ref, check_config=check_config))
    folder, quantisation = files.path, files.quantisation
    if files.kind == "gguf":
        quantisation = quantisation or gguf_quantisation(files.path)
        folder = yield from passing(convert(files.path, conversion_folder(files)))
    weights = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    check_fits(weights, f"the weights of {files.name}")
    read_config(folder, files.name)
    yield from load_model(
        folder,
        name=files.name,
        revision=files.revision,
        dtype=dtype,
        device=device,
        quantisation=quantisation,
        license=files.license,
        is_known=ref.kind == "demo",
    )


def inspect_model(name: str) -> Verdict:
    """What is known of a model before its weights are touched; never downloads them."""
    found = metadata(parse_model_ref(name))
    reason, is_supported = "", True
    if found.config:
        try:
            check_config(found.config, found.name)
        except BlockvizError as error:
            reason, is_supported = f"{error.found} {error.todo}", False
    return Verdict(
        name=found.name,
        revision=found.revision,
        family=str(found.config.get("model_type", "")),
        is_supported=is_supported,
        reason=reason,
        download_bytes=0 if found.is_cached else found.n_bytes,
        memory_bytes=int(_loaded_bytes(found, parse_model_ref(name)) * ROOM_TO_WORK),
        license=found.license,
    )


def _loaded_bytes(found: ModelMetadata, ref: ModelRef) -> int:
    """What the weights take in memory, in the dtype that `auto` picks here; 0 where unknown.

    A file says little of it: what is quantised there is unpacked, and bfloat16 may become float32.
    """
    if ref.kind == "demo":
        n_weights = DEMO_MODEL.n_weights
    elif ref.kind == "gguf":
        n_weights = read_header(ref.path).n_weights
    else:
        stored = str(found.config.get("dtype") or found.config.get("torch_dtype") or "float32")
        size = DTYPES[stored].itemsize if stored in DTYPES else 2
        n_weights = sum(n for name, n in found.files if name.endswith(".safetensors")) // size
    return n_weights * pick_dtype("auto", pick_device("auto")).itemsize


def open_windows(model: BlockModel, request: ScoreRequest, role: str = "calibration") -> Events:
    """Done(CalibrationSet): the windows that a request names, cut with the model's tokenizer.

    BadInput where the model's own numbers overflow on them.
    """
    _check_context(model, request.seq_len)
    texts = yield from passing(
        load_texts(
            request.calibration,
            role,
            text_column=request.text_column,
            seed=request.seed,
        )
    )
    windows = build(
        texts,
        model.tokenizer,
        mode=request.mode,
        n_samples=request.n_samples,
        seq_len=request.seq_len,
        seed=request.seed,
        is_shuffled=request.is_shuffled,
        role=role,
        max_seq_len=model.info.max_seq_len,
        n_rows=model.info.vocab_size,
    )
    yield from check_windows(model, windows)
    yield Done(windows)


def _check_context(model: BlockModel, seq_len: int) -> None:
    if seq_len > model.info.max_seq_len:
        raise BadInput(
            f"Windows of {seq_len} tokens were asked for.",
            f"{model.info.name} reads at most {model.info.max_seq_len} tokens at once.",
            f"Lower seq_len to {model.info.max_seq_len} or less.",
        )


def provenance_of(model: BlockModel, origin: DataOrigin | None) -> Provenance:
    """What a number measured now with this model on this data must carry."""
    info = model.info
    return Provenance(
        data=origin,
        model=info.name,
        revision=info.revision,
        quantisation=info.quantisation,
        dtype=info.dtype,
        device=info.device,
        threads=torch.get_num_threads(),
        versions={
            "blockviz": blockviz.__version__,
            "torch": str(torch.__version__),
            "transformers": version("transformers"),
            "python": platform.python_version(),
        },
    )
