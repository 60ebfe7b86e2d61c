from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rag_ese.errors import ConfigError, GeneratorError
from rag_ese.generator import Prompt, extract_short_answer, load_prompt
from rag_ese.generator.fitting import fit, fit_all, over_context

Ask = Callable[..., Prompt]
TEXTS = {
    "name": "mine",
    "system": "Be brief.",
    "user": "{passages}\nQ: {question}",
    "passage": "{number}. {title}: {text}",
    "plain": "{system}\n{user}\nA:",
}


def write(path: Path, texts: dict[str, str]) -> Path:
    path.write_text(
        "# a comment\n" + "".join(f"{key}: {value!r}\n".replace("\\n", " ") for key, value in texts.items())
    )
    return path


def test_the_shipped_prompt(ask: Ask) -> None:
    template = load_prompt()
    prompt = ask("Is {this} so?", A="One.| Two.", B="Braces {stay} as they are.")
    system, user = template.messages(prompt)
    assert system["role"] == "system"
    assert "yes or no" in system["content"]
    assert user["content"].startswith("Passages:\n\n[1] A\nOne. Two.\n\n[2] B\nBraces {stay} as they are.\n\n")
    assert user["content"].endswith("Question: Is {this} so?")
    assert template.plain_text(prompt) == f"{system['content']}\n\n{user['content']}\nAnswer:"


def test_the_hash_covers_the_texts_and_not_the_comments(tmp_path: Path) -> None:
    first = load_prompt(write(tmp_path / "a.yaml", TEXTS))
    (tmp_path / "b.yaml").write_text((tmp_path / "a.yaml").read_text().replace("# a comment", "# another"))
    changed = load_prompt(write(tmp_path / "c.yaml", TEXTS | {"system": "Be very brief."}))
    assert first.hash == load_prompt(tmp_path / "b.yaml").hash
    assert first.hash != changed.hash
    assert len(first.hash) == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": "{passages}"}, r"user in .*missing placeholders \['question'\]"),
        ({"passage": "{number} {title} {text} {score}"}, r"unknown placeholders \['score'\]"),
        ({"plain": "{system} {user"}, "brace"),
        ({"extra": "x"}, "unknown key 'extra'"),
    ],
)
def test_wrong_prompt_files(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_prompt(write(tmp_path / "wrong.yaml", TEXTS | change))


def test_unknown_prompt_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no prompt 'trivia-v9': choose hotpotqa-v1"):
        load_prompt("trivia-v9")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Paris", "Paris"),
        ("  Answer: Paris.  \nBecause ...", "Paris"),
        ("Answer:\nParis", "Paris"),
        ("**Answer:** Paris", "Paris"),
        ("The answer is Paris.", "Paris"),
        ('"Low Tide".', "Low Tide"),
        ("“Low Tide.”", "Low Tide"),
        ("U.S.", "U.S."),
        ("Hank Williams Jr.", "Hank Williams Jr."),
        ("<think>Rome? No.</think>\nParis", "Paris"),
        ("Rome? No.</think>Paris", "Paris"),
        ("<think>Rome? No, it must", ""),
        ("Answering Machine", "Answering Machine"),
        ("3.5", "3.5"),
        ("", ""),
        ("\n\n", ""),
    ],
)
def test_short_answers(raw: str, expected: str) -> None:
    assert extract_short_answer(raw) == expected


def words(prompt: Prompt) -> int:
    return len(load_prompt().plain_text(prompt).split())


def test_passages_give_way_from_the_end(ask: Ask) -> None:
    prompt = ask("Where is it?", A="one two three.| four five six.", B="seven.", C="eight.")
    full, empty = words(prompt), words(ask("Where is it?"))
    assert fit(prompt, words, full, "words") == (prompt, {})
    assert fit(prompt, words, full - 1, "words") == (
        Prompt(prompt.question, prompt.passages[:2]),
        {"dropped_passages": 1},
    )
    cut, usage = fit(prompt, words, empty + 5, "words")
    assert cut.passages[0].sentences == ("one two three.",)
    assert usage == {"dropped_passages": 2, "cut_passages": 1}
    assert fit(prompt, words, empty + 1, "words") == (Prompt(prompt.question, ()), {"dropped_passages": 3})


def test_a_question_is_never_truncated(ask: Ask) -> None:
    prompt, short = ask("Where is it? " * 50, A="one."), ask("Where?")
    with pytest.raises(GeneratorError, match=r"takes \d+ tokens without any passage but the model reads at most 100"):
        fit(prompt, words, 100, "tokens")
    fitted, failure = fit_all([prompt, short], words, 100)
    assert [position for position, _, _ in fitted] == [1]
    assert failure is not None


def test_without_passages_the_question_stands_alone(ask: Ask, tmp_path: Path) -> None:
    system, user = load_prompt().messages(ask("Where is it?"))
    assert user["content"] == "Question: Where is it?" and "passages" not in system["content"].lower()
    older = load_prompt(write(tmp_path / "older.yaml", TEXTS))  # names no texts for this case
    assert [message["content"] for message in older.messages(ask("Where?"))] == ["Be brief.", " Q: Where?"]


def test_few_shot(ask: Ask) -> None:
    zero, few = load_prompt(), load_prompt("hotpotqa-v2-few-shot")
    prompt = ask("Where is it?", A="There.")
    messages = few.messages(prompt)
    assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * 3, "user"]
    assert [messages[0], messages[-1]] == zero.messages(prompt)
    assert [message["content"] for message in messages[2::2]] == ["Norway", "no", "Marl Bridge"]
    text = few.plain_text(prompt)
    assert text.startswith(messages[0]["content"] + "\n\nPassages:\n\n[1] Odda Venn\n")
    assert text.count(messages[0]["content"]) == 1 and text.count("Answer:") == 4
    assert "Answer: Norway\n\nPassages:" in text and text.endswith("Question: Where is it?\nAnswer:")
    closed = few.messages(ask("Where is it?"))
    assert not any("Passages:" in message["content"] for message in closed) and len(closed) == 8
    assert few.hash != zero.hash != load_prompt("hotpotqa-v1").hash


def test_wrong_examples(tmp_path: Path) -> None:
    path = write(tmp_path / "wrong.yaml", TEXTS)
    path.write_text(path.read_text() + "examples: [{question: Who}]\n")
    with pytest.raises(ConfigError, match=r"examples\.0\.answer"):
        load_prompt(path)
    with pytest.raises(ConfigError, match=r"closed_user in .*missing placeholders \['question'\]"):
        load_prompt(write(tmp_path / "closed.yaml", TEXTS | {"closed_user": "Say it."}))


@pytest.mark.parametrize(
    "error",
    [
        "This model's maximum context length is 512 tokens. However, you requested 12 output tokens",
        "context_length_exceeded",
        "the request exceeds the available context size, try increasing it",
        "input exceeds the context window",
    ],
)
def test_what_servers_say_of_a_long_prompt(error: str) -> None:
    assert over_context(error) and not over_context("no such model") and not over_context("rate limit")
