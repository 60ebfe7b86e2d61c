"""Does the recall that a plan promises hold on questions that no plan has seen?

    python benchmarks/plan_coverage.py --index indexes/hotpotqa-study --questions squad_train_26k.jsonl.gz

Every plan gets its own questions, all plans are checked on the same further ones, and no question is used twice. What
is counted is how often the mean over the further questions lies in the plan's interval. Times are not tested here.
"""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
from pydantic import Field
from rich.console import Console
from rich.table import Table

from rag_ese.cli import Command, run
from rag_ese.data.sources import read_source
from rag_ese.encoder.config import EncoderConfig
from rag_ese.errors import DataError
from rag_ese.eval.cost import hardware
from rag_ese.index import Store
from rag_ese.plan.choose import plan_for
from rag_ese.plan.config import PlanConfig
from rag_ese.plan.questions import HeldOut
from rag_ese.retriever.recall import exact_top, recalls


class CoverageConfig(EncoderConfig):
    """How many plans, and from how much."""

    index: Path = Field(..., description="an index folder")
    questions: Path = Field(..., description="a file of questions")
    plans: int = Field(12, ge=1, description="plans that are made")
    per_plan: int = Field(400, ge=20, description="questions for each plan")
    unseen: int = Field(3000, ge=100, description="questions that all plans are checked on")
    recalls: str = Field("0.9,0.95,0.98", description="what the plans are asked for, in turn")
    k: int = Field(10, ge=1, description="passages that are wanted per query")
    seed: int = Field(0, description="seed of the split of the questions")


def drawn(config: CoverageConfig) -> tuple[list[str], list[list[str]]]:
    """The unseen questions, and those of each plan."""
    rows = (record for _, record in read_source(config.questions))
    texts = list(dict.fromkeys(str(record["question"]) for record in rows if isinstance(record, dict)))
    needed = config.unseen + config.plans * config.per_plan
    if len(texts) < needed:
        raise DataError(f"{config.questions} has {len(texts)} questions, but {needed} are needed: ask for fewer plans")
    order = np.random.default_rng(config.seed).permutation(len(texts))[:needed]
    chosen = [texts[place] for place in order]
    return chosen[: config.unseen], [
        chosen[start : start + config.per_plan] for start in range(config.unseen, needed, config.per_plan)
    ]


def measure(config: CoverageConfig) -> None:
    store, encoder = Store(config.index), config.load_encoder()
    unseen, samples = drawn(config)
    full = max(store.sizes)
    exact = exact_top(store, encoder.begin(unseen).at(full), full, config.k)
    console = Console(width=140, highlight=False)
    table = Table("asked", "funnel", "promised", "found", "")
    inside = 0
    for sample, asked in zip(samples, cycle(float(share) for share in config.recalls.split(",")), strict=False):
        half = len(sample) // 2
        held_out = HeldOut(sample[:half], sample[half:], config.questions.name, "")
        options = PlanConfig(
            index=config.index, questions=config.questions, recall=asked, p99_ms=1e6, ram="1TB", k=config.k, timed=3
        )
        plan = plan_for(options, store, encoder, held_out, lambda note: None).plan
        rankings = plan.searcher(store, encoder).search(unseen)
        found = float(recalls([ranking.rows for ranking in rankings], exact).mean())
        promised = plan.recall
        holds = promised.low <= found <= promised.high
        inside += holds
        interval = f"{promised.mean:.4f} [{promised.low:.4f}, {promised.high:.4f}]"
        table.add_row(f"{asked:g}", plan.funnel, interval, f"{found:.4f}", "inside" if holds else "OUTSIDE")
        console.print(f"{asked:g} {plan.funnel} {interval} {found:.4f} {'inside' if holds else 'OUTSIDE'}")
    console.print(table)
    console.print(f"{inside} of {len(samples)} promises hold on {len(unseen)} questions that no plan has seen")
    console.print(f"{len(store):,} passages; seed {config.seed}; {hardware()['cpu']}")


if __name__ == "__main__":
    run("benchmarks/plan_coverage", {"": Command(CoverageConfig, measure, "whether plans keep their promise")})
