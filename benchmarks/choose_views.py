"""How the embedded model's views and weights were chosen: nDCG@10 / both-gold@10 on HotpotQA *training* questions.

    python benchmarks/choose_views.py --pairs SQUAD.jsonl.gz,SHIFTS.jsonl.gz --pool HOTPOT_TRAIN.json.gz --out /tmp/x

Two-fold cross-fitting: the axes of a fold are fitted without the gold passages of the questions that are scored with
them. The pool searched is all passages of the file and of the pairs. Nothing is written; --out is there because the
options are those of fit_heads.
"""

from __future__ import annotations

import numpy as np

from rag_ese.cli import Command, run
from rag_ese.data import load_hotpotqa
from rag_ese.encoder.heads import ViewHeads
from rag_ese.eval.retrieval import score
from rag_ese.training.fit_heads import FitConfig, Pooled, pool_texts
from rag_ese.training.linear_heads import HeadSettings, fit_heads
from rag_ese.types import Float32s

WIDTHS = (32, 64, 128, 256, 384, 768)


def embed(heads: ViewHeads, layer: int, pooled: Pooled, rows: slice | list[int]) -> Float32s:
    views = np.concatenate([pooled[layer][rows], pooled[heads.view][rows]], axis=1)
    return views @ heads.weights[layer].numpy().T + heads.biases[layer].numpy()


def unit(vectors: Float32s) -> Float32s:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main(config: FitConfig) -> None:
    hotpot = load_hotpotqa(config.pool)
    questions, passages, pool = pool_texts(config, config.load_encoder())
    asked = config.load_encoder().pool_layers([q.text for q in hotpot.questions], sorted(pool), "query")
    row = {passage.id: number for number, passage in enumerate(hotpot.passages)}
    order = np.random.default_rng(0).permutation(len(hotpot.questions))
    folds = [sorted(order[::2].tolist()), sorted(order[1::2].tolist())]
    depth = max(pool)
    trials = [HeadSettings(view, weight) for view in (1, 2, 5) for weight in (0.1, 0.15, 0.25, 0.5)]
    trials = [HeadSettings(weight=0.0), *trials, *(HeadSettings(pool_weight=each) for each in (0.0, 1.0, 16.0, 64.0))]
    for settings in trials:
        found: dict[int, dict[str, list[str]]] = {width: {} for width in WIDTHS}
        for held in folds:
            hidden = {row[name] for number in held for name in hotpot.questions[number].gold}
            kept = [number for number in range(len(row)) if number not in hidden]
            heads = fit_heads(questions, passages, {layer: each[kept] for layer, each in pool.items()}, settings)
            whole = np.concatenate([embed(heads, depth, pool, slice(None)), embed(heads, depth, passages, slice(None))])
            queries = embed(heads, depth, asked, held)
            for width in WIDTHS:
                scores = unit(queries[:, :width]) @ unit(whole[:, :width]).T
                best = np.argsort(-scores, axis=1)[:, :10]
                for number, rows in zip(held, best, strict=True):
                    names = [hotpot.passages[r].id if r < len(row) else f"other{r}" for r in rows]
                    found[width][hotpot.questions[number].id] = names
        cells = []
        for width in WIDTHS:
            values = score(found[width], hotpot.questions, 10)
            cells.append(f"{width}: {np.mean(values['ndcg@10']):.3f}/{np.mean(values['both_gold@10']):.3f}")
        trial = f"view {settings.view} weight {settings.weight:<4} pool x{settings.pool_weight:<4}"
        print(trial, "  ".join(cells), flush=True)


if __name__ == "__main__":
    run("benchmarks/choose_views", {"": Command(FitConfig, main, "compare views and weights on training questions")})
