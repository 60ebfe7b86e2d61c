"""Prompt files: the versioned texts around a question and its passages."""

from __future__ import annotations

import hashlib
from pathlib import Path
from string import Formatter

from pydantic import Field, ValidationInfo, field_validator

from rag_ese.config import StrictModel, load
from rag_ese.errors import ConfigError
from rag_ese.generator.base import Prompt

DEFAULT = "hotpotqa-v1"
PROTOCOL = 1
"""Part of every language model's fingerprint. Raise it when rendering, fitting or the extraction of answers changes."""

_FOLDER = Path(__file__).parent / "prompts"
_PLACEHOLDERS = {
    "user": {"passages", "question"},
    "passage": {"number", "title", "text"},
    "plain": {"system", "user"},
}


class PromptTemplate(StrictModel):
    """The texts of one prompt file. Every placeholder of a text must be there, and no other."""

    name: str = Field(description="name and version of the prompt")
    system: str = Field(description="system message")
    user: str = Field(description="user message with {passages} and {question}")
    passage: str = Field(description="one passage with {number}, {title} and {text}")
    plain: str = Field(description="rendering without a chat template, with {system} and {user}")

    @field_validator(*_PLACEHOLDERS)
    @classmethod
    def _placeholders(cls, text: str, info: ValidationInfo) -> str:
        wanted = _PLACEHOLDERS[str(info.field_name)]
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
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=8).hexdigest()

    def messages(self, prompt: Prompt) -> list[dict[str, str]]:
        """The prompt as chat messages: system, user."""
        passages = "\n\n".join(
            self.passage.format(number=number, title=passage.title, text=passage.text.strip())
            for number, passage in enumerate(prompt.passages, 1)
        )
        user = self.user.format(passages=passages, question=prompt.question.strip())
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}]

    def plain_text(self, prompt: Prompt) -> str:
        """The prompt as one text, for models without a chat template."""
        system, user = (message["content"] for message in self.messages(prompt))
        return self.plain.format(system=system, user=user)


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
