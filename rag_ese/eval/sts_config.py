"""The options of `python -m rag_ese.eval sts`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from pydantic import Field

from rag_ese.data.sts import Split
from rag_ese.encoder.config import EncoderConfig
from rag_ese.encoder.elastic import ElasticEncoder, Role
from rag_ese.errors import ConfigError, SizeError
from rag_ese.eval.config import RUNS
from rag_ese.indexing import read_layers
from rag_ese.types import Size

CONTROLS = ("pca", "random")
_SMALLEST = 64


class StsConfig(EncoderConfig):
    """What is measured, on what, and where the results go."""

    data: Path = Field(
        description="--data names a folder with sts12.tsv to sts16.tsv, stsb_test.tsv and sickr_test.tsv, whose header "
        "lines name the columns score, sentence1 and sentence2"
    )
    split: Split = Field("test", description="test (the seven sets) or dev (stsb_dev, sickr_trial: for choosing)")
    sets: str = Field("", description="some of the split's sets, such as sts12,stsb_test (default: all)")
    sizes: str = Field("", description="widths such as 64,128,768 (default: 64 and its doublings, the half, the full)")
    layers: str = Field("", description="depths such as 2,4,6 (default: every one)")
    role: Role = Field("passage", description="passage or query: whose prompt the sentences get, if the model has any")
    controls: str = Field("pca,random", description="rotations of the last layer: pca, random, both, or none")
    control_texts: Path | None = Field(None, description="JSONL file of training pairs that pca is fitted on")
    control_limit: int = Field(10_000, ge=2, description="texts that pca is fitted on at most, a seeded sample")
    compare: str = Field("", description="other models (as in --model) to stand beside it, several separated by commas")
    resamples: int = Field(1000, ge=100, description="bootstrap resamples of a comparison")
    seed: int = Field(0, description="seed of the random rotation, of the control texts and of the bootstrap")
    out: Path | None = Field(None, description=f"folder for the results (default: a new one in {RUNS})")
    as_json: bool = Field(False, alias="json", description="print the results as JSON instead of tables")

    def keys(self) -> dict[str, Any]:
        """The options under the names that users write, as plain values."""
        return self.model_dump(mode="json", by_alias=True)

    def command(self) -> str:
        """The command line that gives this configuration again."""
        words = ["python -m rag_ese.eval sts"]
        defaults = StsConfig.model_validate({"data": Path()}).keys()
        for key, value in self.keys().items():
            if (value != defaults[key] or key == "data") and key not in ("out", "json"):
                words += [f"--{key.replace('_', '-')}", shlex.quote(str(value))]
        return " ".join(words)

    def set_names(self) -> list[str]:
        return _split(self.sets)

    def models(self) -> list[str]:
        """The model and those that it is compared with."""
        names = [self.model, *_split(self.compare)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"the model {twice[0]} is named twice: leave it out of --compare")
        return names

    def control_names(self) -> list[str]:
        """The controls that were asked for, in the order of the report."""
        names = [] if self.controls.strip() == "none" else _split(self.controls)
        if unknown := [name for name in names if name not in CONTROLS]:
            raise ConfigError(f"there is no control {unknown[0]!r}: write pca, random, pca,random or none")
        return [name for name in CONTROLS if name in names]

    def load(self, name: str) -> ElasticEncoder:
        """One of `models`; the revision belongs to the first."""
        revision = self.model_revision if name == self.model else ""
        return self.model_copy(update={"model": name, "model_revision": revision}).load_encoder()

    def dims_of(self, encoder: ElasticEncoder) -> list[int]:
        """The widths, ascending; those of the default end in the model's full one."""
        if not self.sizes:
            doublings = {_SMALLEST << n for n in range(20)} | {encoder.width // 2}
            return sorted({dim for dim in doublings if 0 < dim < encoder.width} | {encoder.width})
        parts = _split(self.sizes)
        if not parts or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
            raise SizeError(f"cannot read the widths {self.sizes!r}: write numbers from 1 on, such as 64,128,768")
        return sorted({int(part) for part in parts})

    def layers_of(self, encoder: ElasticEncoder) -> list[int]:
        """The depths, ascending."""
        given = sorted(set(read_layers(self.layers))) if self.layers else list(range(1, encoder.depth + 1))
        encoder.check(Size(layer, 1) for layer in given)
        return given


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
