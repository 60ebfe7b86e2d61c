"""The options by which every command says what data it works on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from rag_ese.config import StrictModel
from rag_ese.data import HotpotQA, corpus, load_hotpotqa
from rag_ese.data.records import Setting


class DataConfig(StrictModel):
    """Questions and further passages."""

    data: str = Field("auto", description="HotpotQA file (.json, .jsonl, .gz), hub, sample, or auto: hub, else sample")
    setting: Setting = Field("distractor", description="the hub's setting: distractor or fullwiki")
    split: str = Field("validation", description="the hub's split: validation or train")
    corpus: str = Field("", description="further passages: JSONL files or BEIR folders, separated by commas")

    def corpora(self) -> list[Path]:
        return [Path(part.strip()).expanduser() for part in self.corpus.split(",") if part.strip()]

    def load(self, notify: Callable[[str], None], limit: int | None = None, seed: int = 0) -> HotpotQA:
        return load_hotpotqa(self.data, self.setting, self.split, limit, seed, notify)

    def pool_name(self, hotpot: HotpotQA) -> str:
        """What the pool is made of, in words."""
        return " + ".join([hotpot.source, *map(str, self.corpora())])

    def pool_revision(self, hotpot: HotpotQA) -> str:
        """What determines the pool's passages."""
        return "+".join([hotpot.revision, *(corpus.fingerprint(path) for path in self.corpora())])
