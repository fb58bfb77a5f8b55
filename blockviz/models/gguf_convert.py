"""The child process of `gguf.convert`: python -m blockviz.models.gguf_convert FILE.gguf FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

MISSING = "blockviz missing "


def main(gguf: Path, folder: Path) -> None:
    """Write the dequantised float32 model and its tokenizer into `folder`.

    Nothing is written where tensors are missing: their names go to stdout, one a line.
    """
    _say()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"gguf_file": gguf.name, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where)
    _say()
    model, found = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        **where,
        output_loading_info=True,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    missing = sorted(found["missing_keys"])
    if missing:
        sys.stdout.write("".join(f"\n{MISSING}{name}\n" for name in missing))
        raise SystemExit(1)
    _say()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # the weights come as 0600, which a shared cache cannot use


def _say() -> None:
    """One line for the parent, which counts them."""
    sys.stdout.write("\nblockviz stage\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
