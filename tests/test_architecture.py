"""Imports go downwards only, heavy libraries are loaded when they are used, and some things are never done."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rag_ese

ROOT = Path(rag_ese.__file__).parent
LAYERS = [
    ["errors", "types"],
    ["config", "progress"],
    ["cli", "data"],
    ["encoder", "index", "generator", "objectives", "reader"],
    ["retriever", "training", "indexing"],
    ["pipeline"],
    ["eval", "integrations", "distributed", "train", "export"],
    ["plan"],
]
"""From the bottom; a part may use those of lower layers. `indexing` composes data, encoder and index."""

BESIDE = {("types", "errors"), ("reader", "encoder"), ("reader", "generator"), ("generator", "reader")}
"""Uses within a layer."""

COMMANDS = {("index", "indexing"), ("index", "encoder")}
"""What only the __main__ of a package may use: a command stands above all layers."""

READS_PICKLE = {("rag_ese.integrations.langchain.faiss_folder", "Unpickler")}
"""The one reader of pickles: it maps two known classes to records without behaviour and refuses all others."""

FILES = sorted(ROOT.rglob("*.py"))
LAYER = {part: number for number, layer in enumerate(LAYERS) for part in layer}


def name_of(file: Path) -> str:
    return ".".join(["rag_ese", *file.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


MODULES = {name_of(file): file for file in FILES}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, in functions too; `from rag_ese.data import files` is rag_ese.data.files."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module or "" for name in names)


def test_every_module_has_a_layer() -> None:
    assert {part_of(name_of(file)) for file in FILES} - {""} <= {*LAYER}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_go_downwards(file: Path) -> None:
    part = part_of(name_of(file))
    for module in imports(file):
        used = part_of(module) if module.split(".")[0] == "rag_ese" else ""
        if not used or used == part:
            continue
        below = not part or LAYER[used] < LAYER[part] or (part, used) in BESIDE
        command = file.name == "__main__.py" and (part, used) in COMMANDS
        assert below or command, f"{name_of(file)} imports {module}"
        assert not module.endswith("__main__"), f"{name_of(file)} imports a command"


def test_there_are_no_cycles() -> None:
    uses = {name: {module for module in imports(file) if module in MODULES} for name, file in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " > ".join((*path, name))
        if name not in done:
            for used in sorted(uses[name]):
                visit(used, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (["rag_ese", "rag_ese.integrations"], ["torch", "faiss", "vllm", "transformers", "bm25s", "datasets"]),
        (["rag_ese", "rag_ese.integrations"], ["langchain_core"]),
        (["rag_ese.integrations.langchain"], ["torch", "faiss", "transformers", "langchain", "langchain_community"]),
        (["rag_ese.index", "rag_ese.retriever", "rag_ese.cli", "rag_ese.data.config"], ["torch", "transformers"]),
        (["rag_ese.generator", "rag_ese.pipeline"], ["torch", "transformers", "vllm", "openai"]),
    ],
    ids=["package", "package-langchain", "langchain", "index", "generator"],
)
def test_what_importing_does_not_load(modules: list[str], absent: list[str]) -> None:
    program = f"import sys, {', '.join(modules)}; print(*sorted({{*sys.modules}} & {{*{absent}}}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.split() == []


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_what_is_never_done(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert not {"dill", "joblib", "cloudpickle", "marshal", "shelve"} & {*imports(file)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            allowed = node.attr.endswith("Error") or (name_of(file), node.attr) in READS_PICKLE
            assert allowed, f"pickle.{node.attr} in line {node.lineno}"
        if isinstance(node, ast.Call):
            assert not (isinstance(node.func, ast.Name) and node.func.id == "print"), f"print in line {node.lineno}"
            for keyword in node.keywords:
                if keyword.arg in ("allow_pickle", "trust_remote_code"):
                    assert isinstance(keyword.value, ast.Constant) and keyword.value.value is False, node.lineno
                if keyword.arg == "weights_only":
                    assert isinstance(keyword.value, ast.Constant) and keyword.value.value is True, node.lineno
            if ast.unparse(node.func) == "torch.load":
                assert "weights_only" in {keyword.arg for keyword in node.keywords}, node.lineno
        if isinstance(node, ast.ImportFrom):
            assert "*" not in {alias.name for alias in node.names} and node.module != "pickle"
