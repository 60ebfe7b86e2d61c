"""The trained reader as a generator: passages alone, then in pairs, and the best answer of all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from pathlib import Path
from threading import Lock

from rag_ese.encoder import attention, packed_block
from rag_ese.encoder.device import choose_device, choose_dtype
from rag_ese.generator.base import Generator, Prompt
from rag_ese.generator.comparison import answer_comparison
from rag_ese.generator.identity import code_hash, model_identity
from rag_ese.generator.question_type import Kind, kind_of
from rag_ese.generator.reader import sentences_by_rules
from rag_ese.reader.decision import Decision, Span, decide
from rag_ese.reader.pairing import choose_pairs
from rag_ese.reader.scoring import WindowScores, score_windows
from rag_ese.reader.squad import normalise
from rag_ese.reader.weights import EMBEDDED_READER, load_reader
from rag_ese.reader.windows import Cutter, Stretch, Window, strides
from rag_ese.types import Answer, Evidence, Passage, SupportingFact

BUDGET = 8192
"""Padded tokens of a batch."""
CPU_BUDGET = 1536
"""The same on a CPU: what its cache holds is fastest (docs/log.md)."""
TOGETHER = 64
"""Questions whose windows are sorted by length together."""
PAIRS = 3
"""Pairs of passages that are read for a question; chosen on held-out training questions (docs/log.md)."""
OVERLAP = 64
"""Tokens that two stretches of a long passage share."""
KEEP = 20
"""Spans of a window that may become the answer."""


class TrainedReader(Generator):
    """Reads with the weights in `folder` (default: those that come with the package); deterministic.

    First every passage alone, then the `pairs` most promising pairs, so that a second hop is read beside the first;
    where there are pairs, they answer. Questions that ask whether something is so are answered by yes or no where
    `closed` says so. Comparisons of two passages that the question names, which so few training rows hold, are left to
    rules where these apply (and `pairs` is not 0); such answers have no `evidence`. A question without passages gets
    the empty answer. Raises ModelError for a folder that is no trained reader.

    The scores of the last `remember` windows are kept, for prompts that share passages with earlier ones of the same
    question, as those of a study do: a passage, or a pair, is then read for a question once.
    """

    def __init__(
        self,
        folder: Path | None = None,
        device: str = "auto",
        pairs: int = PAIRS,
        closed: bool = True,
        remember: int = 0,
    ) -> None:
        folder = folder or EMBEDDED_READER
        reader = load_reader(folder)
        chosen = choose_device(device)
        dtype = choose_dtype("auto", chosen)
        self._model = reader.model.to(chosen)
        self._model.backbone.to(dtype)
        packed_block.pack_blocks(self._model.backbone)
        self._tokenizer, self._max_tokens, self._pairs = reader.tokenizer, reader.max_tokens, pairs
        self._budget = CPU_BUDGET if chosen.type == "cpu" else BUDGET
        self._closed, self._remember = closed, remember
        self._known: dict[bytes, WindowScores] = {}
        self._lock = Lock()
        self.name = "reader"
        rules = code_hash("reader", "comparison", "question_type", "spans")
        code = hashlib.blake2b(digest_size=8)
        for file in (
            *sorted(Path(__file__).parent.glob("*.py")),
            *map(Path, (attention.__file__, packed_block.__file__)),
        ):
            code.update(file.read_bytes())
        weights, options = model_identity(str(folder)), f"pairs={pairs} closed={closed}"
        self.fingerprint = f"reader weights={weights} {dtype} {options} code={code.hexdigest()}{rules}"

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Answer]]:
        """As Generator.stream, in order."""
        for start in range(0, len(prompts), TOGETHER):
            part = prompts[start : start + TOGETHER]
            yield from enumerate(self._read(part), start)

    def _read(self, prompts: Sequence[Prompt]) -> list[Answer]:
        cutter = Cutter(self._tokenizer, self._max_tokens)
        cutter.learn([text for prompt in prompts for text in _texts(prompt)])
        alone = [_alone(prompt, cutter) for prompt in prompts]
        scored = self._score(alone)
        pairs = [
            self._paired(prompt, cutter, windows, scores)
            for prompt, windows, scores in zip(prompts, alone, scored, strict=True)
        ]
        beside = self._score(pairs)
        return [
            self._answer(prompt, cutter, more or windows, others or scores)
            for prompt, windows, more, scores, others in zip(prompts, alone, pairs, scored, beside, strict=True)
        ]

    def _score(self, windows: Sequence[Sequence[Window]]) -> list[list[WindowScores]]:
        """The scores of each question's windows, all of them sorted by length together."""
        keys = [[window.key for window in each] for each in windows]
        asked = dict(zip(chain(*keys), chain(*windows), strict=True))
        with self._lock:
            found = {key: self._known[key] for key in asked if key in self._known}
        fresh = [key for key in asked if key not in found]
        for place, scores in score_windows(self._model, [asked[key] for key in fresh], self._budget, KEEP):
            found[fresh[place]] = scores
        if self._remember:
            with self._lock:
                self._known.update((key, found[key]) for key in fresh)
                while len(self._known) > self._remember:
                    del self._known[next(iter(self._known))]
        return [[found[key] for key in each] for each in keys]

    def _paired(
        self, prompt: Prompt, cutter: Cutter, windows: Sequence[Window], scores: Sequence[WindowScores]
    ) -> list[Window]:
        merit = [float("-inf")] * len(prompt.passages)
        for window, each in zip(windows, scores, strict=True):
            passage = window.stretches[0].passage
            merit[passage] = max(merit[passage], each.total)
        pairs = choose_pairs(prompt.question, prompt.passages, merit, self._pairs)
        return [_together(prompt, pair, cutter) for pair in pairs]

    def _answer(
        self, prompt: Prompt, cutter: Cutter, windows: Sequence[Window], scores: Sequence[WindowScores]
    ) -> Answer:
        if self._pairs and (compared := answer_comparison(prompt)):
            return compared
        closed = self._closed and kind_of(prompt.question) is Kind.YES_NO
        if not windows or not (closed or any(each.spans for each in scores)):
            return Answer("", ())

        def words(span: Span) -> list[str]:
            return normalise(_said(prompt, span, cutter)).split()

        return answer_of(prompt, decide(windows, scores, closed, words), cutter)


def _said(prompt: Prompt, span: Span, cutter: Cutter) -> str:
    passage, first, last = span
    text, tokens = prompt.passages[passage].text, cutter.tokens(prompt.passages[passage].text)
    return text[tokens.starts[first] : tokens.ends[last]]


def answer_of(prompt: Prompt, decision: Decision, cutter: Cutter) -> Answer:
    """The answer in words, with its place and with the sentences that support it: one of each of two passages."""
    if decision.closed:
        facts = [fact for number in decision.seen for fact in _best_facts(prompt, [number])]
        passage = prompt.passages[decision.seen[0]]
        start = sum(map(len, passage.sentences[: facts[0][1]])) if facts else 0
        return Answer(decision.closed, tuple(facts), evidence=_evidence(passage, start, start, decision.score))
    passage = prompt.passages[decision.passage]
    tokens = cutter.tokens(passage.text)
    start, end = int(tokens.starts[decision.first]), int(tokens.ends[decision.last])
    others = [number for number in decision.seen if number != decision.passage]
    others = others or [number for number in range(len(prompt.passages)) if number != decision.passage]
    facts = [(passage.title, _sentence_at(passage, start)), *_best_facts(prompt, others)]
    evidence = _evidence(passage, start, end, decision.score)
    return Answer(passage.text[start:end], tuple(facts), evidence=evidence)


def _evidence(passage: Passage, start: int, end: int, score: float) -> Evidence:
    number = _sentence_at(passage, start)
    before = sum(map(len, passage.sentences[:number]))
    return Evidence(passage.id, passage.title, start, end, score, passage.sentences[number], before)


def _sentence_at(passage: Passage, start: int) -> int:
    ends = accumulate(map(len, passage.sentences))
    return next(number for number, end in enumerate(ends) if start < end)


def _best_facts(prompt: Prompt, passages: Sequence[int]) -> list[SupportingFact]:
    """The sentence of these passages that shares most with the question; none where they have none."""
    chosen = tuple(prompt.passages[number] for number in passages)
    return sentences_by_rules(Prompt(prompt.question, chosen))[:1]


def _alone(prompt: Prompt, cutter: Cutter) -> list[Window]:
    """Every passage with words by itself; long ones in stretches that overlap."""
    windows = []
    for number, passage in enumerate(prompt.passages):
        length, room = len(cutter.tokens(passage.text)), cutter.room(prompt.question, [passage])
        for first, last in strides(length, room, OVERLAP) if length else ():
            windows.append(cutter.window(prompt.question, prompt.passages, [Stretch(number, first, last)]))
    return windows


def _together(prompt: Prompt, pair: tuple[int, int], cutter: Cutter) -> Window:
    """Two passages in one window, the better ranked first; what does not fit of either is left out at its end."""
    passages = [prompt.passages[number] for number in pair]
    lengths = [len(cutter.tokens(passage.text)) for passage in passages]
    room = cutter.room(prompt.question, passages)
    short = min(lengths)
    limits = [min(length, max(room // 2, room - short)) for length in lengths]
    stretches = [Stretch(number, 0, limit) for number, limit in zip(pair, limits, strict=True)]
    return cutter.window(prompt.question, prompt.passages, stretches)


def _texts(prompt: Prompt) -> list[str]:
    return [prompt.question, *(text for passage in prompt.passages for text in (passage.title, passage.text))]
