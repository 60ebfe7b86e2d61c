"""The size study: the same HotpotQA questions, retrieved and answered at every size, scored and compared."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rag_ese.data import HotpotQA, resolve_gold
from rag_ese.encoder import ElasticEncoder
from rag_ese.errors import ConfigError, DataError
from rag_ese.eval import answers as answer_metrics
from rag_ese.eval import retrieval as retrieval_metrics
from rag_ese.eval.bounds import CLOSED_BOOK, ORACLE, bounds
from rag_ese.eval.config import RUNS, EvalConfig
from rag_ese.eval.cost import hardware, latency, peak_memory, versions
from rag_ese.eval.examples import section as example_section
from rag_ese.eval.losses import count_losses
from rag_ese.eval.promise import check_promise
from rag_ese.eval.reading import Reading, read
from rag_ese.eval.results import Results, SystemResult, compare, contrast
from rag_ese.eval.rotated import rotated
from rag_ese.eval.systems import System, systems, two_hops
from rag_ese.generator import CachedGenerator, Generator, Prompt, load_prompt, read_options, resolve
from rag_ese.index import Store
from rag_ese.index.builder import timing_file
from rag_ese.indexing import automatic_store, completed, sizes_of
from rag_ese.pipeline import prompts as make_prompts
from rag_ese.retriever import Funnel, FunnelSearcher, SearchPlan
from rag_ese.retriever.exact_searcher import ExactSearcher
from rag_ese.retriever.on_device import placed
from rag_ese.types import Question, Size


def evaluate(config: EvalConfig, notify: Callable[[str], None]) -> Results:
    """Runs the study that `config` describes. `notify` is told what was chosen or substituted, as it happens."""
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        notify(text)

    hotpot = config.load(note, config.limit, config.seed)
    encoder = config.load_encoder()
    generator = _generator(config, note)
    sizes = sizes_of(config.sizes, config.layers, encoder)
    plan = SearchPlan.open(Path(config.plan)) if config.plan else None
    funnels = _funnels(config, encoder, plan)
    if generator:
        _check_reading(config, funnels, note)
    store = _store(config, hotpot, encoder, sizes, funnels, note)
    questions = _questions(config, hotpot, store, note)
    if plan:
        _check_plan(config, plan, hotpot, store, encoder, questions, note)
    rows = _systems(config, store, encoder, sizes, funnels)
    results, examples = [], ""
    for row in rows:
        result, prompts = _measure(config, row, store, questions, generator)
        results.append(result)
        if prompts and row.name == str(max(sizes)):
            examples = example_section(questions, prompts, result.answers, result.values["f1"])
    if generator:
        results += bounds(hotpot, store, questions, generator, config.closed_book, config.oracle, note)
    for searcher in (row.searcher for row in rows):
        if isinstance(searcher, ExactSearcher) and searcher.touched:
            note(f"{searcher.name} read per question: {searcher.touched}")
    reference = str(max(sizes))
    compare(results, reference, config.resamples, config.seed)
    contrast(results, ORACLE, config.resamples, config.seed)
    contrast(results, "", config.resamples, config.seed, bases=True)
    if empty := sum(row.empty_answers for row in results if row.name != CLOSED_BOOK):
        note(f"{empty} answers are empty; they score 0 (the report counts them per row)")
    return Results(
        command=config.command(),
        config=config.keys(),
        data={"source": hotpot.source, "revision": hotpot.revision, "fallback": hotpot.fallback},
        pool={"passages": len(store), **store.manifest.plan.data.model_dump()},
        model=store.manifest.plan.model.model_dump(),
        query_dtype=str(encoder.dtype).removeprefix("torch."),
        generator={"name": generator.name, "fingerprint": generator.fingerprint} if generator else None,
        answers=_cache_counts(generator),
        encoding=_encoding(store),
        hardware=hardware(),
        versions=versions(),
        peak_memory_bytes=peak_memory(),
        notes=notes,
        reference=reference,
        questions=questions,
        systems=results,
        examples=examples,
    )


def _generator(config: EvalConfig, note: Callable[[str], None]) -> Generator | None:
    generator = resolve(config.generator, note, load_prompt(config.prompt), read_options(config.llm_options))
    if generator is None and (config.closed_book or config.oracle):
        raise ConfigError(
            "--closed-book and --oracle are answers, which --generator none does not give: name a generator"
        )
    if generator is None or config.cache == "none":
        return generator
    return CachedGenerator(generator, Path(config.cache) if config.cache else RUNS / "answers.sqlite")


def _funnels(config: EvalConfig, encoder: ElasticEncoder, plan: SearchPlan | None) -> list[Funnel]:
    """Those that were written down, and the plan's, which must fit the index before sizes are added to it."""
    funnels = [Funnel.parse(part, encoder.depth, encoder.width) for part in config.funnel.split(";") if part.strip()]
    if plan:
        funnels.append(plan.parsed(encoder.depth, encoder.width))
        if config.index:
            plan.check(Store(Path(config.index)), encoder)
    return funnels


def _check_reading(config: EvalConfig, funnels: Sequence[Funnel], note: Callable[[str], None]) -> None:
    """That rankings are long enough for the generator."""
    if config.top_k > config.depth:
        raise ConfigError(f"the generator cannot read {config.top_k} passages of {config.depth}: raise --depth")
    if short := [str(funnel) for funnel in funnels if funnel.keep < config.top_k]:
        note(f"WARNING: the funnel {short[0]} keeps fewer than the {config.top_k} passages that other rows read")


def _systems(
    config: EvalConfig, store: Store, encoder: ElasticEncoder, sizes: Sequence[Size], funnels: Sequence[Funnel]
) -> list[System]:
    """The rows: sizes, funnels, lexical ones, controls, and those that search twice."""
    search = placed(store, config.search_device)
    rows = [
        *systems(
            store, search, encoder, sizes, funnels, config.depth, config.hybrid, config.hybrid_weight, config.exact
        )
    ]
    controls = [part.strip() for part in config.controls.split(",") if part.strip()]
    rows += rotated(store, encoder, sizes, controls, config.depth, config.seed)
    return [*rows, *two_hops(rows, store)] if config.hops == 2 else rows


def _store(
    config: EvalConfig,
    hotpot: HotpotQA,
    encoder: ElasticEncoder,
    sizes: Sequence[Size],
    funnels: Sequence[Funnel],
    note: Callable[[str], None],
) -> Store:
    """The index that was named, with the sizes that it lacks added, or one built for this data and found again."""
    stages = [stage.size for funnel in funnels for stage in funnel.stages]
    encoder.check(stages)
    if not config.index:
        return automatic_store(config, config, hotpot, encoder, sorted({*sizes, *stages}), note)
    if config.corpus:
        raise ConfigError("--corpus belongs to the index: with --index the pool is what the index holds; leave one out")
    store = Store(Path(config.index))
    for name in config.model_fields_set & {"kind", "stored", "bm25"}:
        wanted, built = getattr(config, name), getattr(store.manifest.plan, name)
        if wanted != built:
            raise ConfigError(f"{name} {wanted} was asked for, but {store.folder} was built with {built}: leave it out")
    return completed(store.folder, [*sizes, *stages], encoder, note)


def _questions(config: EvalConfig, hotpot: HotpotQA, store: Store, note: Callable[[str], None]) -> list[Question]:
    """The questions with their gold passages as this pool has them; what it lacks is said, and counts as missed."""
    questions = hotpot.questions
    if blank := [question.id for question in questions if len(question.id.split()) != 1]:
        raise DataError(f"the question id {blank[0]!r} holds a blank, which a TREC run cannot carry: rename it")
    if config.setting == "fullwiki":
        questions, _ = resolve_gold(questions, (store.passages[row] for row in range(len(store))))
    pool = {store.passages.id(row) for row in range(len(store))}
    gold = [name for question in questions for name in question.gold]
    missing = sum(name not in pool for name in gold)
    if missing == len(gold):
        raise DataError(
            f"{store.folder} holds none of the {len(gold)} gold passages of {hotpot.source}: it was built from other "
            "data; build one with --data or --corpus of these questions"
        )
    if missing:
        note(f"WARNING: the pool lacks {missing} of {len(gold)} gold passages; they count as not retrieved")
    return questions


def _check_plan(
    config: EvalConfig,
    plan: SearchPlan,
    hotpot: HotpotQA,
    store: Store,
    encoder: ElasticEncoder,
    questions: Sequence[Question],
    note: Callable[[str], None],
) -> None:
    """Notes whether the plan's promise holds on these questions, and whether they are its own."""
    if plan.questions.revision == hotpot.revision:
        note(
            f"WARNING: the plan was made on {plan.questions.name}, the very questions evaluated: this is no test of it"
        )
    texts = [question.text for question in questions]
    note(check_promise(plan, store, encoder, texts, config.resamples, config.seed))


def _measure(
    config: EvalConfig, system: System, store: Store, questions: Sequence[Question], generator: Generator | None
) -> tuple[SystemResult, list[Prompt]]:
    """The row, and what its generator was given (nothing without one)."""
    texts = [question.text for question in questions]
    began = time.perf_counter()
    traces = system.searcher.trace(texts) if isinstance(system.searcher, FunnelSearcher) else []
    rankings = [stages[-1] for stages in traces] if traces else system.searcher.search(texts)
    search_seconds = time.perf_counter() - began
    ids = {
        question.id: [store.passages.id(int(row)) for row in ranking.rows]
        for question, ranking in zip(questions, rankings, strict=True)
    }
    rows = {store.passages.id(int(row)): int(row) for ranking in rankings for row in ranking.rows}
    values = retrieval_metrics.score(
        ids, questions, min(system.searcher.keep, len(store)), lambda name: store.passages[rows[name]].full
    )
    prompts = make_prompts(store, texts, rankings, config.top_k) if generator else []
    reading = read(system.name, questions, prompts, generator) if generator else Reading({}, 0, 0.0)
    if generator:
        values |= answer_metrics.score(reading.answers, questions)
    result = SystemResult(
        name=system.name,
        kind=system.kind,
        size=str(system.size) if system.size else None,
        index_bytes=system.index_bytes,
        vector_bytes=system.vector_bytes,
        latency=latency(system.searcher, texts[: config.latency_queries]),
        values=values,
        rankings=ids,
        answers=reading.answers,
        losses=count_losses(store, questions, traces, values.get("f1")) if system.kind == "funnel" else {},
        base=system.base,
        reading=reading.speed(search_seconds) if generator else {},
    )
    return result, prompts


def _cache_counts(generator: Generator | None) -> dict[str, int]:
    return (
        {"found_in_cache": generator.hits, "generated": generator.misses}
        if isinstance(generator, CachedGenerator)
        else {}
    )


def _encoding(store: Store) -> dict[str, Any] | None:
    """How fast the passages were encoded when the store was built, if it still says so."""
    file = timing_file(store.folder)
    return dict(json.loads(file.read_text())) if file.exists() else None
