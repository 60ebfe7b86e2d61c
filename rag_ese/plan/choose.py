"""The choice: the fastest funnel that meets what was asked, chosen on one half of the questions, judged on the other.

The best of many candidates looks better on the queries it was chosen on than it is. Hence the halves: on the first, all
candidates are surveyed, the promising ones timed, and one is chosen; the second sees that one alone, and what it
measures there is the promise. Should the promise fall short of what was asked, that is said, and nothing is chosen
anew: a second choice would make the second half a choosing half too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rag_ese.errors import ConfigError
from rag_ese.eval.cost import hardware
from rag_ese.index import Store
from rag_ese.plan.candidates import Candidate, Survey, certain, severity, shortlists, triples_worth_trying
from rag_ese.plan.config import PlanConfig
from rag_ese.plan.intervals import intervals
from rag_ese.plan.questions import HeldOut, read_questions
from rag_ese.plan.timing import Costs, Measured, encode, estimate, measure
from rag_ese.progress import progress_bar
from rag_ese.retriever import Funnel, SearchPlan
from rag_ese.retriever.recall import Float64s, check_k
from rag_ese.retriever.search_plan import Asked, Basis, Bytes, Latency, Recall, Source, fingerprint, index_bytes
from rag_ese.retriever.searchers import QueryEncoder

_SHOWN = 8
"""Candidates that are timed only to show what less or more recall costs."""


@dataclass(frozen=True)
class Row:
    """A funnel as measured on one half."""

    funnel: Funnel
    recall: Recall
    latency: Latency
    bytes: Bytes

    def excess(self, asked: Asked) -> float:
        """By how much the worst of the three misses what was asked, as a share of it; 0 or less where all are met.

        A recall counts by its lower end, and by what it leaves to 1: 0.98 for 0.99 asked misses twice as much.
        """
        missing = (1 - self.recall.low) / max(1 - asked.recall, 1e-9)
        return max(missing, self.latency.p99_ms / asked.p99_ms, self.bytes.index / asked.ram_bytes) - 1


@dataclass(frozen=True)
class Outcome:
    """The plan, and what it was chosen from, by time."""

    plan: SearchPlan
    rows: list[Row]
    candidates: int

    @property
    def chosen(self) -> Row:
        return next(row for row in self.rows if str(row.funnel) == self.plan.funnel)


def make_plan(config: PlanConfig, notify: Callable[[str], None]) -> Outcome:
    """Measures and chooses. Raises ConfigError where nothing meets what is asked, with what the nearest reaches."""
    store = Store(config.index)
    check_k(config.k, len(store))
    questions = read_questions(config.questions, config.limit, config.seed)
    encoder = config.load_encoder()
    return plan_for(config, store, encoder, questions, notify)


def plan_for(
    config: PlanConfig, store: Store, encoder: QueryEncoder, questions: HeldOut, notify: Callable[[str], None]
) -> Outcome:
    """`make_plan` with everything loaded."""
    store.check_model(encoder.name, encoder.revision)
    asked = Asked(recall=config.recall, p99_ms=config.p99_ms, ram_bytes=config.ram_bytes)
    vectors = encode(encoder, questions.choosing, store.sizes)
    grid = shortlists(config.k, config.shortlist, len(store))
    survey = Survey(store, vectors, config.k, grid)
    found = surveyed(store, survey, asked)
    costs = estimate(store, encoder, questions.choosing, vectors, store.sizes, grid[-1])
    timed = worth_timing(config, store, found, costs, asked)
    rows = []
    with progress_bar("timing funnels", len(timed)) as advance:
        for each in timed:
            measured = measure(store, encoder, each.funnel, questions.choosing, vectors, survey.exact)
            rows.append(row(config, store, measured, severity(each.chain, found)))
            advance(1)
    rows.sort(key=lambda each: each.latency.p99_ms)
    chosen = next((each for each in rows if each.excess(asked) <= 0), None)
    if chosen is None:
        raise ConfigError(nothing_fits(rows, asked, len(found)))
    judged = judge(config, store, encoder, chosen.funnel, questions.judging, grid)
    notes = remarks(store, questions, judged, asked)
    for note in notes:
        notify(note)
    return Outcome(assemble(config, store, questions, chosen, judged, asked, notes), rows, len(found))


def surveyed(store: Store, survey: Survey, asked: Asked) -> list[Candidate]:
    """All candidates with their recall. Those of three stages only where the first one lets enough through."""
    found = list(survey.singles_and_pairs(store.sizes))
    pairs = triples_worth_trying(store.sizes, found, asked.recall)
    with progress_bar("surveying funnels", len(pairs)) as advance:
        for first, middle in pairs:
            found += survey.triples(first, middle)
            advance(1)
    return found


def worth_timing(
    config: PlanConfig, store: Store, found: Sequence[Candidate], costs: Costs, asked: Asked
) -> list[Candidate]:
    """The cheapest acceptable candidate of each chain of sizes, some of them; and some from all to compare with."""
    near = [each for each in found if each.recall >= asked.recall]
    lows = _lows(config, store, near, found) if near else np.empty(0)
    best: dict[object, Candidate] = {}
    for each, low in zip(near, lows, strict=True):
        fits = low >= asked.recall and index_bytes(store, each.funnel) <= asked.ram_bytes
        if fits and (each.chain not in best or costs.of(each.funnel) < costs.of(best[each.chain].funnel)):
            best[each.chain] = each
    acceptable = sorted(best.values(), key=lambda each: costs.of(each.funnel))[: config.timed]
    front: list[Candidate] = []
    for each in sorted(found, key=lambda each: (costs.of(each.funnel), -each.recall)):
        if not front or each.recall > front[-1].recall:
            front.append(each)
    places = np.unique(np.linspace(0, len(front) - 1, _SHOWN).round().astype(int))
    chosen = {each.funnel: each for each in (*acceptable, *(front[place] for place in places))}
    return list(chosen.values())


def _lows(config: PlanConfig, store: Store, some: Sequence[Candidate], found: Sequence[Candidate]) -> Float64s:
    """The lower ends of the recall of `some`."""
    known = {chain: severity(chain, found) for chain in {each.chain for each in some}}
    severities = [known[each.chain] for each in some]
    low, _ = intervals(np.stack([each.recalls for each in some]), severities, config.resamples, config.seed)
    sure = [certain(store, each.funnel) for each in some]
    return np.where(sure, [each.recall for each in some], low)


def row(config: PlanConfig, store: Store, measured: Measured, how_severe: float) -> Row:
    """A measured funnel with the interval of its recall and its bytes."""
    low, high = intervals(measured.recalls[None], how_severe, config.resamples, config.seed)
    mean = float(measured.recalls.mean())
    exact = mean == 1 and certain(store, measured.funnel)
    bounds = (1.0, 1.0) if exact else (float(low[0]), float(high[0]))
    mapped = sum(store.vector_bytes(layer) for layer in {stage.size.layers for stage in measured.funnel.stages[1:]})
    return Row(
        measured.funnel,
        Recall(mean=mean, low=bounds[0], high=bounds[1], queries=len(measured.recalls)),
        measured.latency,
        Bytes(index=index_bytes(store, measured.funnel), mapped_vectors=mapped),
    )


def judge(
    config: PlanConfig, store: Store, encoder: QueryEncoder, funnel: Funnel, texts: Sequence[str], grid: Sequence[int]
) -> Row:
    """The chosen funnel on queries that had no part in choosing it."""
    first, *middle = [stage.size for stage in funnel.stages[:-1]] or [funnel.stages[0].size]
    vectors = encode(encoder, texts, {first, *middle, max(store.sizes)})
    survey = Survey(store, vectors, config.k, grid)
    same = list(survey.singles_and_pairs([first]))
    same += [each for size in middle for each in survey.triples(first, size)]
    measured = measure(store, encoder, funnel, texts, vectors, survey.exact)
    return row(config, store, measured, severity(tuple(stage.size for stage in funnel.stages), same))


def nothing_fits(rows: Sequence[Row], asked: Asked, candidates: int) -> str:
    """What the nearest of `rows` reaches, beside what was asked."""
    nearest = min(rows, key=lambda each: each.excess(asked))
    recall = nearest.recall
    return (
        f"none of {candidates:,} funnels has a recall of {asked.recall:g} (lower end), a p99 of {asked.p99_ms:g} ms "
        f"and {asked.ram_bytes / 1e6:g} MB in memory: the nearest, {nearest.funnel}, reaches {recall.mean:.4f} "
        f"[{recall.low:.4f}, {recall.high:.4f}] on {recall.queries} questions, {nearest.latency.p99_ms:.1f} ms and "
        f"{nearest.bytes.index / 1e6:.1f} MB; ask for less, give more questions, or add sizes to the index"
    )


def remarks(store: Store, questions: HeldOut, judged: Row, asked: Asked) -> list[str]:
    """What a user must know beside the numbers."""
    notes = []
    if questions.revision in store.manifest.plan.data.revision:
        notes.append(
            f"WARNING: the index was built from {questions.name}, the file of these questions: an evaluation on that "
            "file does not test this plan"
        )
    if judged.recall.low < asked.recall:
        notes.append(
            f"WARNING: on the {judged.recall.queries} questions that judge the choice the lower end of the recall is "
            f"{judged.recall.low:.4f}, below the {asked.recall:g} that was asked; more questions make it surer"
        )
    if judged.latency.p99_ms > asked.p99_ms:
        notes.append(
            f"WARNING: on the questions that judge the choice p99 is {judged.latency.p99_ms:.1f} ms, above the "
            f"{asked.p99_ms:g} ms that was asked"
        )
    return notes


def assemble(
    config: PlanConfig,
    store: Store,
    questions: HeldOut,
    chosen: Row,
    judged: Row,
    asked: Asked,
    notes: Sequence[str],
) -> SearchPlan:
    """The plan file's content."""
    built = store.manifest.plan
    machine = hardware()
    return SearchPlan(
        funnel=str(chosen.funnel),
        k=config.k,
        reference=str(max(store.sizes)),
        asked=asked,
        recall=judged.recall,
        recall_when_chosen=chosen.recall,
        latency=judged.latency,
        bytes=judged.bytes,
        questions=Source(name=questions.name, revision=questions.revision, count=len(questions)),
        basis=Basis(
            model=built.model.name,
            revision=built.model.revision,
            index=store.folder.resolve().name,
            kind=built.kind,
            fingerprint=fingerprint(store.manifest, chosen.funnel),
        ),
        hardware=f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, GPU "
        f"{machine['gpu'] or 'none'}",
        seed=config.seed,
        notes=tuple(notes),
    )
