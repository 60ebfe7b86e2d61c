"""One model is the flags, the keys, the defaults, the help and the checks."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from pydantic import Field, ValidationError, field_validator

from rag_ese.config import POSITIONAL, StrictModel, add_arguments, from_arguments, load
from rag_ese.errors import ConfigError


class Options(StrictModel):
    """A command's options."""

    path: Path = Field(description="where, 100% sure", json_schema_extra=POSITIONAL)
    top_k: int = Field(10, ge=1, description="how many")
    share: float = Field(0.5, description="100% is all")
    quiet: bool = Field(False, description="say little")
    as_json: bool = Field(False, alias="json", description="for machines")
    name: str = Field("", description="a name")

    @field_validator("name")
    @classmethod
    def _no_blank(cls, value: str) -> str:
        if " " in value:
            raise ValueError("A blank is no part of a name: leave it out")
        return value


def read(*arguments: str) -> Options:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Options)
    return from_arguments(Options, parser.parse_args(arguments))


def test_flags_become_fields() -> None:
    options = read("here", "--top-k", "3", "--quiet", "--json", "--share", "1e-3")
    assert options.model_dump() == {
        "path": Path("here"),
        "top_k": 3,
        "share": 0.001,
        "quiet": True,
        "as_json": True,
        "name": "",
    }
    assert read("here").top_k == 10 and not read("here", "--no-quiet").quiet


def test_a_flag_may_be_required() -> None:
    class Needing(StrictModel):
        sizes: str = Field(description="sizes to add")

    parser = argparse.ArgumentParser()
    add_arguments(parser, Needing)
    with pytest.raises(ConfigError, match=r"^sizes is not given: sizes to add$"):
        from_arguments(Needing, parser.parse_args([]))
    assert "Undefined" not in parser.format_help()


def test_flags_go_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("top_k: 5\nquiet: true\njson: true\nname: ada\n")
    options = read("here", "--config", str(file), "--top-k", "7", "--no-quiet")
    assert (options.top_k, options.quiet, options.as_json, options.name) == (7, False, True, "ada")
    file.write_text("# nothing but a comment\n")
    assert read("here", "--config", str(file)) == read("here")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"path": "x", "topk": 3}, "unknown key 'topk': the keys are path, top_k, share, quiet, json, name"),
        ({"path": "x", "as_json": True}, "unknown key 'as_json': the keys are path, top_k, share, quiet, json, name"),
        ({"path": "x", "top_k": 0}, "top_k: input should be greater than or equal to 1, got 0"),
        ({"path": "x", "quiet": 7}, "quiet: input should be a valid boolean, unable to interpret input, got 7"),
        ({"path": "x", "name": "a b"}, "name: a blank is no part of a name: leave it out"),
        ({}, "path is not given: where, 100% sure"),
    ],
)
def test_what_is_wrong_is_one_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Options, overrides=values)
    assert str(caught.value) == sentence


def test_the_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    printed = capsys.readouterr().out
    for text in ("PATH", "--top-k K", "how many (default: 10)", "100% is all (default: 0.5)", "--no-quiet", "--config"):
        assert text in printed


def test_options_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read("here").top_k = 3
