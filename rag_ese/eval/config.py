"""The options of `python -m rag_ese.eval hotpotqa`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from pydantic import Field

from rag_ese.data.config import DataConfig
from rag_ese.encoder.config import EncoderConfig
from rag_ese.indexing import StoreConfig
from rag_ese.retriever.searchers import HYBRID_WEIGHT

RUNS = Path("eval/runs")


class EvalConfig(DataConfig, EncoderConfig, StoreConfig):
    """What is measured, on what, and where the results go."""

    sizes: str = Field("64,128,768", description="sizes: 64,128 (at every depth of --layers) or L3-d64")
    layers: str = Field("", description="depths for the bare widths of --sizes, such as 2,4,6 (default: full depth)")
    funnel: str = Field("", description="funnels such as 'L3-d64:200 > L6-d768:10', several separated by ;")
    plan: str = Field("", description="plan file of python -m rag_ese.plan: adds its funnel and checks its promise")
    hybrid: bool = Field(False, description="add a dense + BM25 hybrid of every size (the largest always has one)")
    hybrid_weight: float = Field(HYBRID_WEIGHT, ge=0, description="BM25's share in a hybrid")
    exact: bool = Field(False, description="add the certified exact search of the largest size, and what it looks at")
    hops: int = Field(1, ge=1, le=2, description="2: beside each row one whose second search is led by the first")
    closed_book: bool = Field(False, description="add the floor: answers without any passage")
    oracle: bool = Field(False, description="add the ceiling: answers from exactly the gold passages")
    controls: str = Field("", description="add rows of rotated vectors: pca (fitted on the pool), random or both")
    search_device: str = Field("cpu", description="cpu: FAISS's indexes; cuda, mps: brute force there; auto: either")
    index: str = Field("", description="an index folder (default: one is built in indexes/ and found again)")
    generator: str = Field(
        "auto", description="auto, none, reader[:FOLDER], rules, vllm:MODEL, hf:MODEL or openai:URL#MODEL"
    )
    llm_options: str = Field(
        "", description="options of a language model's backend, such as 'max_tokens=32,concurrency=16,dtype=float32'"
    )
    price_in: float = Field(0, ge=0, description="price of a million tokens in, for the report")
    price_out: float = Field(0, ge=0, description="price of a million tokens out")
    prompt: str = Field("hotpotqa-v2", description="prompt file for language models: a bundled name or a path")
    top_k: int = Field(10, ge=1, description="passages that the generator reads")
    depth: int = Field(100, ge=1, description="passages that are retrieved per question")
    limit: int | None = Field(None, ge=1, description="number of questions, a seeded sample (the pool stays whole)")
    seed: int = Field(0, description="seed of the sample and of the bootstrap")
    resamples: int = Field(10_000, ge=100, description="bootstrap resamples")
    latency_queries: int = Field(100, ge=0, description="queries that are timed one at a time, per row; 0: none")
    out: Path | None = Field(None, description=f"folder for the results (default: a new one in {RUNS})")
    cache: str = Field("", description=f"sqlite file of answers given before, or none (default: in {RUNS})")
    as_json: bool = Field(False, alias="json", description="print the results as JSON instead of a table")

    def keys(self) -> dict[str, Any]:
        """The options under the names that users write, as plain values."""
        return self.model_dump(mode="json", by_alias=True)

    def command(self) -> str:
        """The command line that gives this configuration again."""
        words = ["python -m rag_ese.eval hotpotqa"]
        defaults = EvalConfig.model_validate({}).keys()
        for key, value in self.keys().items():
            if value != defaults[key] and key not in ("out", "json"):
                flag = key.replace("_", "-")
                is_switch = isinstance(value, bool)
                words.append(f"--{'' if value or not is_switch else 'no-'}{flag}")
                words += [] if is_switch else [shlex.quote(str(value))]
        return " ".join(words)
