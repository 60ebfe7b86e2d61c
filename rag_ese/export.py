"""`python -m rag_ese.export --size L3-d128 OUT`: writes one size of a model as a folder that others load."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator
from rich.console import Console
from rich.filesize import decimal

from rag_ese.cli import Command, run
from rag_ese.config import POSITIONAL, StrictModel
from rag_ese.encoder import ElasticEncoder
from rag_ese.encoder.export import Export, export
from rag_ese.encoder.onnx_export import require_onnx
from rag_ese.errors import StorageError
from rag_ese.types import Size


class ExportConfig(StrictModel):
    """The options of an export."""

    out: Path = Field(description="the folder to write, which must not exist yet", json_schema_extra=POSITIONAL)
    model: str = Field("embedded", description="embedded, embedded-raw, a model folder, or a hub name")
    model_revision: str = Field("", description="revision of a hub model")
    size: str = Field("full", description="L3-d128, L3 (full width), 128 (full depth), or full")
    onnx: bool = Field(False, description="also write onnx/model.onnx (extra onnx)")
    push_to_hub: str = Field("", description="upload the folder to this hub repository, such as name/model")

    @field_validator("push_to_hub")
    @classmethod
    def _is_a_repository(cls, name: str) -> str:
        if name and not re.fullmatch(r"([\w-][\w.-]*/)?[\w-][\w.-]*", name):
            raise ValueError(f"{name} is not a name of the hub: write it like name/model")
        return name


def main(config: ExportConfig) -> None:
    """Exports, says what was written, and uploads it where that was asked for."""
    if config.out.exists():
        raise StorageError(f"{config.out} exists already: give a folder that does not, or remove this one first")
    if config.onnx:
        require_onnx()
    encoder = ElasticEncoder.load(config.model, "float32", "cpu", config.model_revision or None)
    full = Size(encoder.depth, encoder.width)
    size = full if config.size == "full" else Size.parse(config.size, encoder.depth, encoder.width)
    show(export(encoder, config.out, size, config.onnx))
    if config.push_to_hub:
        push(config.out, config.push_to_hub)
        _say(f"uploaded to https://huggingface.co/{config.push_to_hub}")


def show(done: Export) -> None:
    """Prints what was written and what was checked."""
    _say(f"{done.folder}: {done.size.layers} layers, {done.size.dim} dimensions")
    _say(f"{done.parameters:,} parameters, {decimal(done.bytes)}")
    _say(f"checked: sentence-transformers gives the same vectors (largest difference {done.difference:.1e})")
    if done.onnx_difference is not None:
        _say(f"checked: so does onnx/model.onnx (largest difference {done.onnx_difference:.1e})")


def push(folder: Path, repository: str) -> None:
    """Uploads a folder to the hub, into a repository that is made where it does not exist yet."""
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:  # the hub's client raises many kinds, network errors among them
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise StorageError(f"{folder} is written, but the hub did not take it as {repository}: {reason}") from error


def _say(text: str) -> None:
    Console(soft_wrap=True, highlight=False).print(text, markup=False)


if __name__ == "__main__":
    run("rag_ese.export", {"": Command(ExportConfig, main, "write one size of a model as a folder that others load")})
