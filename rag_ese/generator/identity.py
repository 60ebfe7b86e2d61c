"""What a fingerprint says about a model and about code."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from rag_ese.errors import GeneratorError


def model_identity(model: str) -> str:
    """A folder's content hash, or the commit of a model on the hub; the model `m` is `m@<identity>` in fingerprints.

    A folder is read completely, so that retrained weights of the same shape are another model.
    Raises GeneratorError when the model does not exist or cannot be reached.
    """
    folder = Path(model)
    if folder.is_dir():
        digest = hashlib.blake2b(digest_size=8)
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            with file.open("rb") as content:
                digest.update(f"{file.relative_to(folder).as_posix()}\n".encode())
                digest.update(hashlib.file_digest(content, "blake2b").digest())
        return digest.hexdigest()

    from transformers import AutoConfig

    try:
        return str(AutoConfig.from_pretrained(model)._commit_hash)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".:")
        raise GeneratorError(
            f"cannot load the language model {model!r} ({reason}): give a folder or a name on the Hugging Face hub"
        ) from error


@lru_cache
def code_hash(*modules: str) -> str:
    """16 hexadecimal digits over the source of the named modules of this package."""
    sources = b"\0".join((Path(__file__).parent / f"{module}.py").read_bytes() for module in modules)
    return hashlib.blake2b(sources, digest_size=8).hexdigest()
