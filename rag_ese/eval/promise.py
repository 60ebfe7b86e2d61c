"""Does a search plan keep its promise on these questions?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag_ese.eval.significance import bootstrap_mean
from rag_ese.index import Store
from rag_ese.retriever import SearchPlan
from rag_ese.retriever.recall import exact_top, recalls
from rag_ese.retriever.searchers import QueryEncoder, chunks
from rag_ese.types import Float32s, Size


def check_promise(
    plan: SearchPlan, store: Store, encoder: QueryEncoder, texts: Sequence[str], resamples: int, seed: int
) -> str:
    """One line: the recall@k of the plan's funnel on `texts`, and whether it lies in the promised interval.

    It is a warning where the recall is below that interval. The mean over these questions has an error of its own,
    which stands behind it as a bootstrap interval: a mean just outside the promise does not refute it.
    """
    reference = Size.parse(plan.reference)
    found = [ranking.rows for ranking in plan.searcher(store, encoder).search(texts)]
    exact = exact_top(store, _vectors(encoder, texts, reference), reference, plan.k)
    measured = bootstrap_mean(recalls(found, exact).tolist(), resamples, seed)
    promised = plan.recall
    where = "inside" if promised.low <= measured.mean <= promised.high else "OUTSIDE"
    said = (
        f"plan {plan.funnel}: recall@{plan.k} of the exact {plan.reference} was promised as {promised.mean:.4f} "
        f"[{promised.low:.4f}, {promised.high:.4f}] and is {measured.mean:.4f} [{measured.low:.4f}, "
        f"{measured.high:.4f}] on these {measured.n} questions: {where} the promised interval"
    )
    return f"WARNING: {said}" if measured.mean < promised.low else said


def _vectors(encoder: QueryEncoder, texts: Sequence[str], size: Size) -> Float32s:
    """The queries in the batches in which searchers encode them, so that both see the same rounding."""
    return np.concatenate([encoder.begin(chunk).at(size) for chunk in chunks(texts)])
