"""The README.md of an exported model: what it is, what is known about where it comes from, and how to load it.

What a training run recorded about itself stands in `training.json` in the checkpoint's folder. Nothing is guessed: a
card without that file says that nothing was recorded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from rag_ese.encoder.delta import ELASTIC_FILE, TRAINING_FILE
from rag_ese.encoder.elastic import ElasticEncoder
from rag_ese.encoder.names import EMBEDDED, EMBEDDED_RAW
from rag_ese.encoder.st_modules import read_by_servers
from rag_ese.encoder.truncate import matryoshka
from rag_ese.errors import ModelError
from rag_ese.types import Size

_MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "bsd-3-clause", "gpl-3.0"}
"""Those that the hub knows by these names; any other is given as `other` with its name."""


class Training(BaseModel):
    """What a training run recorded about itself."""

    command: str = ""
    data: list[str] = []
    licence: str = ""
    scores: dict[str, Any] = {}
    seed: int | None = None
    hardware: str = ""


def model_card(encoder: ElasticEncoder, size: Size, onnx: bool = False) -> str:
    """Markdown, with the hub's metadata in front."""
    folder = _own_folder(encoder)
    about = Training(**_read(folder / TRAINING_FILE))
    base, revision = _base(encoder, folder)
    metadata = _metadata(about, base, prefixes=bool(matryoshka(encoder, size)))
    name = folder.name if encoder.name not in (EMBEDDED, EMBEDDED_RAW) and Path(encoder.name).exists() else encoder.name
    parts = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---",
        f"# {name} at {size}",
        f"A sentence encoder: the first {size.layers} of {encoder.depth} layers and the first {size.dim} of "
        f"{encoder.width} dimensions of `{name}`, exported by rag_ese. Vectors have unit length; a prefix of them, "
        "normalised again, is the embedding at that width.",
        "\n".join(f"- {line}" for line in _facts(encoder, about, base, revision)),
        *_scores(about.scores),
        _loading(encoder, size, onnx),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(about: Training, base: str | None, prefixes: bool) -> dict[str, Any]:
    licence = re.sub(r"\s+", "-", about.licence.strip().lower())
    known = {"license": licence} if licence in _LICENCES else {"license": "other", "license_name": licence}
    return {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        **({"base_model": base} if base else {}),
        **(known if licence else {}),
        "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction", *["matryoshka"] * prefixes],
    }


def _facts(encoder: ElasticEncoder, about: Training, base: str | None, revision: str) -> Iterator[str]:
    yield f"Exported from revision {encoder.revision} of the checkpoint"
    yield f"Base model: {base or 'not recorded'}{f', revision {revision}' if revision else ''}"
    yield f"Training data: {'; '.join(about.data) or 'not recorded in the checkpoint'}"
    yield f"Licence: {about.licence or 'not recorded in the checkpoint'}"
    yield f"Training command: {f'`{about.command}`' if about.command else 'not recorded in the checkpoint'}"
    if about.seed is not None:
        yield f"Seed: {about.seed}"
    if about.hardware:
        yield f"Trained on: {about.hardware}"
    yield f"At most {encoder.max_tokens} tokens per text"
    if encoder.checkpoint.prompts:
        yield f"Prompts: {', '.join(f'{name} {text!r}' for name, text in encoder.checkpoint.prompts.items())}"


def _scores(scores: Mapping[str, Any]) -> Iterator[str]:
    """A table of the recorded numbers; nested ones stand under their path."""

    def rows(value: Any, path: str) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from rows(inner, f"{path} / {key}" if path else str(key))
        else:
            yield f"| {path} | {value} |"

    if scores:
        yield "## Scores\n\nAs the checkpoint records them; they were not measured again on this export."
        yield "\n".join(["| measure | score |", "|---|---:|", *rows(scores, "")])


def _loading(encoder: ElasticEncoder, size: Size, onnx: bool) -> str:
    servers = (
        "It is a Transformer, a Pooling, Dense modules and a Normalize, which vLLM and text-embeddings-inference "
        "read too."
        if read_by_servers(encoder, size)
        else "It weights tokens or uses two layers' states before it pools, so it runs in sentence-transformers, not "
        "in vLLM or text-embeddings-inference."
    )
    graph = "`onnx/model.onnx` maps token ids and mask to `sentence_embedding`, already normalised." if onnx else ""
    return f"""## Use

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("FOLDER OR HUB NAME")
vectors = model.encode(["a text", "another"])  # 2 x {size.dim}
```

```python
from rag_ese.encoder import ElasticEncoder
from rag_ese.types import Size

encoder = ElasticEncoder.load("FOLDER OR HUB NAME")
vectors = encoder.encode(["a text", "another"], [Size({size.layers}, {size.dim})])
```

{servers} {graph}""".rstrip()


def _base(encoder: ElasticEncoder, folder: Path) -> tuple[str | None, str]:
    """The model that this one was made from, by its public name, and its revision, as far as they are recorded."""
    about = _read(folder / ELASTIC_FILE)
    base = about.get("base") or (encoder.name if encoder.name in (EMBEDDED, EMBEDDED_RAW) else None)
    if base is None and encoder.name.count("/") == 1 and not Path(encoder.name).exists():
        return encoder.name, ""
    public = _MINILM if base in (EMBEDDED, EMBEDDED_RAW) else base if base and not Path(base).exists() else None
    return public, str(about.get("base_revision") or "")


def _own_folder(encoder: ElasticEncoder) -> Path:
    """Where a checkpoint records what it is: beside its heads, where these lie apart from the backbone."""
    if encoder.name == EMBEDDED:
        return Path(__file__).parent / "embedded"
    named = Path(encoder.name).expanduser()
    return named if named.is_dir() and encoder.name != EMBEDDED_RAW else encoder.checkpoint.path


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if file.name == TRAINING_FILE:
            Training.model_validate(content)
    except (OSError, ValueError, ValidationError) as error:
        raise ModelError(f"{file} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} holds a {type(content).__name__} where a dict is needed")
    return content
