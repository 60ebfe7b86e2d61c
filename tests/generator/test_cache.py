from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from rag_ese.errors import StorageError
from rag_ese.generator import CachedGenerator, Generator, Prompt
from rag_ese.types import Answer, Passage

Ask = Callable[..., Prompt]


class Parrot(Generator):
    """Repeats the question, backwards through the batch, and stops with an error after `patience` answers."""

    name = "parrot"

    def __init__(self, fingerprint: str = "parrot 1", patience: int = 99) -> None:
        self.fingerprint, self.patience, self.asked = fingerprint, patience, list[str]()

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Answer]]:
        for position, prompt in reversed(list(enumerate(prompts))):
            if len(self.asked) == self.patience:
                raise KeyboardInterrupt
            self.asked.append(prompt.question)
            yield position, Answer(prompt.question, (("Title", 2),), {"prompt_tokens": 3})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "answers.sqlite"


def test_hit_after_a_restart(ask: Ask, path: Path) -> None:
    prompts = [ask(text, A="One.| Two.") for text in ("a", "b", "ü")]
    first = CachedGenerator(Parrot(), path)
    expected = first.generate(prompts)
    parrot = Parrot()
    again = CachedGenerator(parrot, path)
    assert again.generate(prompts) == expected
    assert [answer.text for answer in expected] == ["a", "b", "ü"]
    assert expected[0].supporting_facts == (("Title", 2),)
    assert parrot.asked == []
    assert (first.hits, first.misses, again.hits, again.misses) == (0, 3, 3, 0)
    assert (again.name, again.fingerprint) == ("parrot", "parrot 1")


def test_everything_that_determines_an_answer_is_in_the_key(ask: Ask, path: Path) -> None:
    CachedGenerator(Parrot(), path).generate([ask("a", A="One.", B="Two.")])
    others = [
        ask("a", B="Two.", A="One."),
        ask("a", A="One."),
        ask("a ", A="One.", B="Two."),
        ask("a", A="One.", B="Two!"),
        ask("a", A="One.", C="Two."),
        Prompt("a", (Passage("A", ("One.", "")), Passage("B", ("Two.",)))),
    ]
    changed = CachedGenerator(Parrot(), path)
    changed.generate(others)
    assert changed.misses == len(others)
    other_model = CachedGenerator(Parrot("parrot 2"), path)
    other_model.generate([ask("a", A="One.", B="Two.")])
    assert other_model.misses == 1


def test_duplicates_are_generated_once(ask: Ask, path: Path) -> None:
    parrot = Parrot()
    cached = CachedGenerator(parrot, path)
    assert [answer.text for answer in cached.generate([ask("a"), ask("b"), ask("a"), ask("a")])] == ["a", "b", "a", "a"]
    assert sorted(parrot.asked) == ["a", "b"]
    assert (cached.hits, cached.misses) == (2, 2)


def test_an_interruption_keeps_what_was_answered(ask: Ask, path: Path) -> None:
    prompts = [ask(letter) for letter in "abcdef"]
    with pytest.raises(KeyboardInterrupt):
        CachedGenerator(Parrot(patience=4), path).generate(prompts)
    parrot = Parrot()
    assert [answer.text for answer in CachedGenerator(parrot, path).generate(prompts)] == list("abcdef")
    assert sorted(parrot.asked) == ["a", "b"]


def test_a_killed_process_loses_no_answer(ask: Ask, path: Path) -> None:
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_cache import Parrot
from rag_ese.generator import CachedGenerator, Prompt
prompts = [Prompt(letter, ()) for letter in "abcdef"]
for number, _ in enumerate(CachedGenerator(Parrot(), {str(path)!r}).stream(prompts)):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    parrot = Parrot()
    CachedGenerator(parrot, path).generate([ask(letter) for letter in "abcdef"])
    assert sorted(parrot.asked) == ["a", "b"]


def test_two_generators_share_the_file_at_once(ask: Ask, path: Path) -> None:
    prompts = [ask(letter) for letter in "abcdef"]
    one, other = CachedGenerator(Parrot(), path), CachedGenerator(Parrot(), path)
    pairs = list(zip(one.stream(prompts), other.stream(prompts), strict=True))
    assert [first for first, _ in pairs] == [second for _, second in pairs]


def test_processes_that_create_the_file_at_once(path: Path) -> None:
    code = f"""
import multiprocessing, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_cache import Parrot
from rag_ese.generator import CachedGenerator
context = multiprocessing.get_context("fork")
def create(path, barrier):
    barrier.wait()
    CachedGenerator(Parrot(), path)
for attempt in range(20):
    barrier = context.Barrier(6)
    workers = [context.Process(target=create, args=({str(path)!r} + str(attempt), barrier)) for _ in range(6)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    assert [worker.exitcode for worker in workers] == [0] * 6
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look like one" * 30, b"SQLite format 3\0" * 99]
)
def test_a_file_that_is_no_cache(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"answers\.sqlite is damaged or no cache: delete it"):
        CachedGenerator(Parrot(), path)


def test_a_damaged_answer(ask: Ask, path: Path) -> None:
    CachedGenerator(Parrot(), path).generate([ask("a")])
    with sqlite3.connect(path) as database:
        database.execute("UPDATE answers SET answer = '[1'")
    with pytest.raises(StorageError, match="delete it"):
        CachedGenerator(Parrot(), path).generate([ask("a")])


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be used"):
        CachedGenerator(Parrot(), tmp_path)
