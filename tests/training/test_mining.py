"""Mined negatives against the definition, written out in plain loops, and the command that mines."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rag_ese.cli import run
from rag_ese.data.pairs import Pair
from rag_ese.data.training_rows import read_rows
from rag_ese.errors import StorageError
from rag_ese.training import mine as command
from rag_ese.training.mining import Dense, Hybrid, Lexical, Rules, mine, pool_of
from rag_ese.types import Float32s, Passage

COUNT, WIDTH = 60, 8
ANSWERS = ["Lune", "1901", "blue moon"]


def unit(vectors: Float32s) -> Float32s:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class World:
    """Random passages, half of which hold an answer, and questions whose vectors lie near those of their passages."""

    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        holds = ["", *ANSWERS, "Lunes", "19 01"]  # the last two look like answers and are none
        self.pool = [Passage(f"t{n}", (f"Number {n}. {holds[int(draw.integers(len(holds)))]}!",)) for n in range(COUNT)]
        self.vectors = unit(draw.normal(size=(COUNT, WIDTH)).astype(np.float32))
        self.pairs, self.embedded = [], {}
        for n in range(40):
            own, question = int(draw.integers(COUNT)), f"question {n // 2}?"  # two passages for each question
            answer = () if n % 8 < 2 else (ANSWERS[int(draw.integers(3))],)
            self.pairs.append(Pair(question, self.pool[own].title, self.pool[own].text, (), answer))
            self.embedded[question] = unit(self.vectors[[own]] + draw.normal(size=(1, WIDTH)).astype(np.float32) / 2)[0]

    def embed(self, questions: Sequence[str]) -> Float32s:
        return np.stack([self.embedded[question] for question in questions])

    def scorer(self) -> Dense:
        return Dense(self.vectors, self.embed)

    def expected(self, pair: Pair, rules: Rules) -> list[str]:
        """The definition."""
        scores = {passage.full: float(self.embedded[pair.question] @ vector) for passage, vector in self._lines()}
        same = [other for other in self.pairs if other.question == pair.question]
        own = {other.passage for other in same}
        answers = {answer for other in same for answer in other.answers}
        ranked = sorted((text for text in scores if text not in own), key=lambda text: -scores[text])
        return [
            text
            for text in ranked[rules.skip : rules.depth]
            if scores[text] < rules.max_share * scores[pair.passage]
            and not (rules.answer_filter and any(re.search(rf"\b{answer}\b", text) for answer in answers))
        ][: rules.negatives]

    def _lines(self) -> list[tuple[Passage, Float32s]]:
        return list(zip(self.pool, self.vectors, strict=True))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "rules",
    [
        Rules(short="keep"),
        Rules(7, 12, 2, 0.8, short="keep"),
        Rules(3, 60, 0, 0.5, answer_filter=False, short="keep"),
    ],
)
def test_negatives_are_those_of_the_definition(seed: int, rules: Rules) -> None:
    world = World(seed)
    mined = list(mine(world.pairs, world.pool, world.scorer(), rules))
    pairs = [(each.pair.question, each.pair.passage) for each in mined]
    assert pairs == list(dict.fromkeys((pair.question, pair.passage) for pair in world.pairs))
    for each in mined:
        assert list(each.negatives) == world.expected(each.pair, rules)
        assert each.found == len(each.negatives)
    assert any(each.found for each in mined)
    assert any(each.found < rules.negatives for each in mined) == rules.answer_filter


def test_missing_negatives_are_filled_with_harmless_passages() -> None:
    world = World(0)
    rules = Rules(6, 10, 0, 0.8)
    mined = list(mine(world.pairs, world.pool, world.scorer(), rules))
    assert mined == list(mine(world.pairs, world.pool, world.scorer(), rules))
    assert any(each.found < 6 for each in mined)
    for each in mined:
        assert list(each.negatives[: each.found]) == world.expected(each.pair, rules)
        assert len(set(each.negatives)) == 6
        for other in world.pairs:
            if other.question == each.pair.question:
                assert other.passage not in each.negatives
                assert not any(re.search(rf"\b{a}\b", text) for a in other.answers for text in each.negatives)


def test_texts_that_hold_the_positive_or_a_part_of_it_are_no_negatives() -> None:
    pair = Pair("q", "T", "One two three. Four five six.")
    pool = pool_of(
        [pair],
        [
            Passage("Other title", ("One two three. Four five six.",)),
            Passage("Long", ("Zero. ONE two three; four five six! Seven.",)),
            Passage("Part", ("Four five six.",)),
            Passage("Near", ("Five six.", " Seven.")),
        ],
    )
    vectors = unit(np.ones((5, 2), np.float32) + np.eye(5, 2, dtype=np.float32))
    scorer = Dense(vectors, lambda questions: np.ones((len(questions), 2), np.float32))
    [mined] = mine([pair], pool, scorer, Rules(max_share=2.0))
    assert mined.negatives == ("Near\nFive six. Seven.",)


def test_lexical_and_hybrid_scores(tmp_path: Path) -> None:
    texts = ["the river bridge", "a river", "a painter", "novel"]
    pool = [Passage("", (text,)) for text in texts]
    lexical = Lexical(pool, tmp_path)
    scores = lexical.scores(["river bridge", "nothing known"])
    assert scores[0, 0] > scores[0, 1] > scores[0, 2] == scores[0, 3] == 0 and not scores[1].any()
    pair = Pair("river bridge", "", texts[0])
    [mined] = mine([pair], pool, lexical, Rules(short="keep"))
    assert mined.negatives == (texts[1],), "what shares no word is no candidate"
    vectors = unit(np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32))
    dense = Dense(vectors, lambda questions: vectors[: len(questions)])
    hybrid = Hybrid(dense, lexical).scores(["river bridge", "nothing known"])
    assert np.allclose(hybrid[0], vectors @ vectors[0] + 0.5 * scores[0] / scores[0].max(), atol=1e-6)
    assert np.allclose(hybrid[1], vectors @ vectors[1], atol=1e-6)


NAMES = ["Ada", "Bell", "Cora", "Dora", "Edda", "Flora", "Greta", "Hanna", "Ida", "Jola", "Kara", "Lea"]
ROWS = [
    {
        "question": f"Which river has bridge {name}?",
        "title": f"Bridge_{name}",
        "context": f"It crosses a river for {name}.",
    }
    for name in NAMES
]


def mined(folder: Path, *options: str, name: str = "out.jsonl.gz", code: int = 0) -> Path:
    pairs = folder / "pairs.jsonl"
    pairs.write_text("\n".join(map(json.dumps, [*ROWS, ROWS[0]])))
    out = folder / name
    arguments = ["--pairs", str(pairs), "--out", str(out), "--system", "bm25", *options]
    with pytest.raises(SystemExit) as ended:
        run("rag_ese.training.mine", {"": command.Command(command.MineConfig, command.main, "")}, arguments)
    assert ended.value.code == code
    return out


def test_the_command_writes_rows_that_training_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text(json.dumps({"title": "Lune", "text": "The river Lune has a bridge, which the pool adds."}))
    options = ("--pool", str(pool), "--negatives", "3", "--max-share", "0.99")
    out = mined(tmp_path, *options)
    assert "12 of 12 pairs, negatives from 13 passages; for 0 pairs (0.0%) fewer than 3" in capsys.readouterr().err
    records = [json.loads(line) for line in gzip.decompress(out.read_bytes()).splitlines()]
    assert [each["question"] for each in records] == [row["question"] for row in ROWS]
    assert {each["source"] for each in records} == {"pairs.jsonl"}
    rows = list(read_rows(out))
    assert [row.texts[:2] for row in rows] == [
        (r["question"], f"Bridge {n}\n{r['context']}") for n, r in zip(NAMES, ROWS, strict=True)
    ]
    assert all(len({*row.texts[1:]}) == 4 for row in rows)
    assert mined(tmp_path, *options, name="again.jsonl.gz").read_bytes() == out.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.jsonl.gz",
        "out.jsonl.gz",
        "pairs.jsonl",
        "pool.jsonl",
    ]


def test_short_rows_can_be_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = mined(tmp_path, "--max-share", "0.0001", "--short", "drop", name="out.jsonl")
    assert out.read_text() == "" and "0 of 12 pairs" in capsys.readouterr().err


def test_what_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mined(tmp_path, "--skip", "50", code=2)
    mined(tmp_path, name="out.csv", code=2)
    (tmp_path / "there.jsonl").write_text("mine")
    assert mined(tmp_path, name="there.jsonl", code=2).read_text() == "mine"
    said = capsys.readouterr().err
    assert "leaves nothing: raise --depth" in said and "out.csv has another ending" in said
    assert "there.jsonl exists" in " ".join(said.split())


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = iter([{"question": "q"}])

    def record(*_: object) -> dict[str, str]:
        if row := next(written, None):
            return row
        raise StorageError("the disk is full")

    monkeypatch.setattr(command, "_record", record)
    mined(tmp_path, name="new/out.jsonl.gz", code=2)
    assert list((tmp_path / "new").iterdir()) == []
