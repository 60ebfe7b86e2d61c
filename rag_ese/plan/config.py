"""The options of `python -m rag_ese.plan`."""

from __future__ import annotations

import math
import re
from pathlib import Path

from pydantic import Field, field_validator

from rag_ese.encoder.config import EncoderConfig
from rag_ese.errors import ConfigError

_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i)?)?b?", re.IGNORECASE)


class PlanConfig(EncoderConfig):
    """What is asked for, on which index, measured with which questions."""

    index: Path = Field(description="the index's folder")
    questions: Path = Field(
        description="held-out training questions, never those of the evaluation: a HotpotQA file, or JSONL of texts or "
        'of {"question": text}'
    )
    recall: float = Field(0.99, description="share of the exact full-size top k that is found, at least")
    p99_ms: float = Field(5.0, description="milliseconds of one query in a hundred, encoding included, at most")
    ram: str = Field("512MB", description="bytes of the index that is searched, at most, such as 512MB or 2GiB")
    k: int = Field(10, description="passages that are wanted per query")
    shortlist: int = Field(1000, ge=1, description="the largest shortlist that is considered")
    timed: int = Field(12, ge=1, description="how many acceptable funnels are timed, the cheapest by estimate")
    limit: int | None = Field(None, ge=1, description="number of questions, a seeded sample")
    seed: int = Field(0, description="seed of the sample, of the split in halves and of the bootstrap")
    resamples: int = Field(10_000, ge=100, description="bootstrap resamples")
    out: Path = Field(Path("plan.json"), description="the plan file to write")
    as_json: bool = Field(False, alias="json", description="print the plan and the funnels measured as JSON")

    @field_validator("recall")
    @classmethod
    def _is_a_share(cls, value: float) -> float:
        if not 0 < value <= 1:
            raise ValueError(f"{value:g} is not above 0 and at most 1: give a share such as 0.99")
        return value

    @field_validator("p99_ms")
    @classmethod
    def _is_a_time(cls, value: float) -> float:
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{value:g} is not a time above 0: give milliseconds such as 5")
        return value

    @field_validator("ram")
    @classmethod
    def _is_an_amount(cls, text: str) -> str:
        read_bytes(text)
        return text

    @property
    def ram_bytes(self) -> int:
        return read_bytes(self.ram)


def read_bytes(text: str) -> int:
    """An amount of memory in bytes: powers of 1000 for kB, MB, GB, TB, of 1024 for KiB, MiB, GiB, TiB.

    >>> read_bytes("512MB"), read_bytes("1.5 GiB"), read_bytes("4096")
    (512000000, 1610612736, 4096)
    """
    match = _BYTES.fullmatch(text.strip())
    if not match:
        raise ConfigError(f"cannot read the memory {text!r}: write a number and a unit, such as 512MB or 2GiB")
    power = 1 + "kmgt".index(match[2].lower()) if match[2] else 0
    size = float(match[1]) * (1024 if match[3] else 1000) ** power
    if not 1 <= size < 2**63:
        raise ConfigError(f"the memory {text!r} is not an amount that a machine has: write for example 512MB")
    return int(size)
