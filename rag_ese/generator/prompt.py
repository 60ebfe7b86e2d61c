"""Prompt files: the versioned texts around a question and its passages."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from string import Formatter

from pydantic import Field, ValidationInfo, field_validator

from rag_ese.config import StrictModel, load
from rag_ese.errors import ConfigError
from rag_ese.generator.base import Prompt
from rag_ese.types import Passage

DEFAULT = "hotpotqa-v2"
PROTOCOL = 1
"""Part of every language model's fingerprint. Raise it when rendering, fitting or the extraction of answers changes."""

_FOLDER = Path(__file__).parent / "prompts"
_PLACEHOLDERS = {
    "user": {"passages", "question"},
    "passage": {"number", "title", "text"},
    "plain": {"system", "user"},
    "closed_user": {"question"},
}


class ExamplePassage(StrictModel):
    """A passage of an example."""

    title: str = Field(description="its title")
    text: str = Field(description="its text")


class Example(StrictModel):
    """A question that is shown with its answer before the one that is asked (few-shot)."""

    question: str = Field(description="the question")
    passages: tuple[ExamplePassage, ...] = Field((), description="what was retrieved for it")
    answer: str = Field(description="the answer as it should be given")

    def prompt(self) -> Prompt:
        return Prompt(self.question, tuple(Passage(each.title, (each.text,)) for each in self.passages))


class PromptTemplate(StrictModel):
    """The texts of one prompt file. Every placeholder of a text must be there, and no other."""

    name: str = Field(description="name and version of the prompt")
    system: str = Field(description="system message")
    user: str = Field(description="user message with {passages} and {question}")
    passage: str = Field(description="one passage with {number}, {title} and {text}")
    plain: str = Field(description="rendering without a chat template, with {system} and {user}")
    closed_system: str = Field("", description="system message where there are no passages (default: system)")
    closed_user: str = Field(
        "", description="user message where there are no passages, with {question} (default: user)"
    )
    examples: tuple[Example, ...] = Field((), description="questions with answers that are shown before (few-shot)")

    @field_validator(*_PLACEHOLDERS)
    @classmethod
    def _placeholders(cls, text: str, info: ValidationInfo) -> str:
        wanted = _PLACEHOLDERS[str(info.field_name)]
        if not text and info.field_name == "closed_user":
            return text
        try:
            found = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
        except ValueError as error:
            raise ValueError(f"{error}: write a brace that is meant literally twice") from error
        if found != wanted:
            missing, unknown = sorted(wanted - found), sorted(found - wanted)
            raise ValueError(
                f"missing placeholders {missing}, unknown placeholders {unknown}: "
                f"the text must hold each of {', '.join(f'{{{name}}}' for name in sorted(wanted))} and no other"
            )
        return text

    @property
    def hash(self) -> str:
        """16 hexadecimal digits over the texts; comments and layout of the file do not count."""
        return hashlib.blake2b(self.model_dump_json(exclude_defaults=True).encode(), digest_size=8).hexdigest()

    def messages(self, prompt: Prompt) -> list[dict[str, str]]:
        """The prompt as chat messages: system, then user and assistant for each example, then user.

        Where the prompt has no passages the examples are shown without theirs.
        """
        closed = not prompt.passages
        turns = [{"role": "system", "content": (self.closed_system if closed else "") or self.system}]
        for example in self.examples:
            shown = replace(example.prompt(), passages=()) if closed else example.prompt()
            turns += [
                {"role": "user", "content": self._user(shown)},
                {"role": "assistant", "content": example.answer},
            ]
        return [*turns, {"role": "user", "content": self._user(prompt)}]

    def plain_text(self, prompt: Prompt) -> str:
        """The prompt as one text, for models without a chat template; each example is rendered like the question."""
        (system, *turns) = (message["content"] for message in self.messages(prompt))
        *shown, user = [
            self.plain.format(system=system if number == 0 else "", user=text).lstrip()
            for number, text in enumerate(turns[::2])
        ]
        examples = (f"{text} {answer}\n\n" for text, answer in zip(shown, turns[1::2], strict=True))
        return "".join(examples) + user

    def _user(self, prompt: Prompt) -> str:
        if not prompt.passages and self.closed_user:
            return self.closed_user.format(question=prompt.question.strip())
        passages = "\n\n".join(
            self.passage.format(number=number, title=passage.title, text=passage.text.strip())
            for number, passage in enumerate(prompt.passages, 1)
        )
        return self.user.format(passages=passages, question=prompt.question.strip())


def load_prompt(name: str | Path = DEFAULT) -> PromptTemplate:
    """Reads a prompt file: the name of one that comes with the package, or the path of a YAML file.

    Raises ConfigError for an unknown name, an unknown key, or a missing or unknown placeholder.
    """
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        path = _FOLDER / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in _FOLDER.glob("*.yaml")))
            raise ConfigError(f"there is no prompt {str(name)!r}: choose {known} or give the path of a .yaml file")
    return load(PromptTemplate, path)
