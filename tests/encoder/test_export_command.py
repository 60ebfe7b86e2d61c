"""`python -m rag_ese.export`: the summary, the model card, the upload, and one sentence for what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import pytest
import torch
import yaml

from rag_ese.cli import Command, run
from rag_ese.encoder import ElasticEncoder
from rag_ese.encoder.gates import open_gate
from rag_ese.encoder.heads import ViewHeads
from rag_ese.encoder.model_card import model_card
from rag_ese.errors import ModelError
from rag_ese.export import ExportConfig, main
from rag_ese.types import Size

Call = Callable[..., tuple[int, str, str]]
TRAINING = {
    "command": "python -m rag_ese.train --config configs/train/ese.yaml",
    "data": ["pairs.jsonl (CC BY-SA 4.0)", "more.jsonl"],
    "licence": "CC BY-SA 4.0",
    "scores": {"STS-B": {"L4-d32": 81.5, "L1-d8": 60}, "nDCG@10": 71.9},
    "seed": 7,
    "hardware": "2 cores",
}


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """What the command line gives: exit code, standard output, standard error."""

    def calling(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run("rag_ese.export", {"": Command(ExportConfig, main, "export")}, [str(each) for each in arguments])
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return calling


class FakeHub:
    """Takes note of what is uploaded, or refuses it."""

    calls: ClassVar[list[tuple[Any, ...]]] = []
    refuses = False

    def create_repo(self, repo_id: str, exist_ok: bool = False) -> None:
        self.calls.append(("create", repo_id, exist_ok))

    def upload_folder(self, *, repo_id: str, folder_path: Path) -> None:
        if self.refuses:
            raise ConnectionError("the hub\nis away")
        self.calls.append(("upload", repo_id, sorted(file.name for file in Path(folder_path).iterdir())))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeHub]:
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    monkeypatch.setattr(FakeHub, "calls", [])
    return FakeHub


def refused(result: tuple[int, str, str]) -> str:
    code, _, said = result
    assert code == 2 and said.startswith("error: ") and said.count("\n") == 1, said
    return said


def test_the_summary(folder: Path, tmp_path: Path, call: Call) -> None:
    code, printed, said = call(tmp_path / "out", "--model", folder, "--size", "L3-d8")
    assert code == 0 and "error" not in said
    first, second, third = printed.splitlines()
    assert first == f"{tmp_path / 'out'}: 3 layers, 8 dimensions"
    assert "parameters" in second and third.startswith("checked: sentence-transformers gives the same vectors")


@pytest.mark.parametrize(
    ("text", "size"), [("full", "4 layers, 32 d"), ("L2", "2 layers, 32 d"), ("8", "4 layers, 8 d")]
)
def test_sizes_are_written_as_everywhere(folder: Path, tmp_path: Path, call: Call, text: str, size: str) -> None:
    code, printed, _ = call(tmp_path / "out", "--model", folder, "--size", text)
    assert code == 0 and size in printed


def test_what_is_refused(folder: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "out"
    assert "exists already" in refused(call(folder, "--model", "no such model"))
    assert "has no size L9-d8" in refused(call(out, "--model", folder, "--size", "L9-d8"))
    assert "cannot read the size" in refused(call(out, "--model", folder, "--size", "small"))
    assert "a/b/c is not a name of the hub" in refused(call(out, "--model", folder, "--push-to-hub", "a/b/c"))
    assert not out.exists()


def test_an_upload(folder: Path, tmp_path: Path, call: Call, hub: type[FakeHub]) -> None:
    code, printed, _ = call(tmp_path / "out", "--model", folder, "--size", "L1-d8", "--push-to-hub", "me/model")
    assert code == 0 and printed.endswith("uploaded to https://huggingface.co/me/model\n")
    assert hub.calls[0] == ("create", "me/model", True)
    (_, repository, files) = hub.calls[1]
    assert repository == "me/model" and {"README.md", "model.safetensors", "modules.json"} <= {*files}


def test_an_upload_that_fails_leaves_the_folder(
    folder: Path, tmp_path: Path, call: Call, hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "refuses", True)
    said = refused(call(tmp_path / "out", "--model", folder, "--size", "L1-d8", "--push-to-hub", "me/model"))
    assert "is written, but the hub did not take it as me/model: the hub is away" in said
    assert ElasticEncoder.load(tmp_path / "out", "float32", "cpu").depth == 1


def front(card: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return content


def test_a_card_says_what_is_recorded(folder: Path, tmp_path: Path, call: Call) -> None:
    (folder / "training.json").write_text(json.dumps(TRAINING))
    call(tmp_path / "out", "--model", folder, "--size", "L3-d8")
    card = (tmp_path / "out" / "README.md").read_text()
    assert front(card)["library_name"] == "sentence-transformers"
    assert front(card)["pipeline_tag"] == "sentence-similarity"
    assert front(card)["license"] == "cc-by-sa-4.0" and "base_model" not in front(card)
    assert "# tiny at L3-d8" in card and str(folder) not in card
    assert f"`{TRAINING['command']}`" in card and "pairs.jsonl (CC BY-SA 4.0); more.jsonl" in card and "Seed: 7" in card
    assert "| STS-B / L4-d32 | 81.5 |\n| STS-B / L1-d8 | 60 |\n| nDCG@10 | 71.9 |" in card
    assert "Size(3, 8)" in card and "SentenceTransformer(" in card


def test_a_card_without_records_invents_nothing(tiny: ElasticEncoder) -> None:
    card = model_card(tiny, Size(4, 32))
    assert not {"license", "base_model"} & {*front(card)} and "Scores" not in card
    assert card.count("not recorded") == 4
    assert "matryoshka" not in front(card)["tags"]


def test_the_card_of_the_embedded_model(embedded: ElasticEncoder) -> None:
    card = model_card(embedded, Size(1, 64))
    assert front(card)["base_model"] == "sentence-transformers/all-MiniLM-L6-v2" and "matryoshka" in front(card)["tags"]


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("gated", [False, True])
def test_a_card_says_which_servers_read_it(tiny: ElasticEncoder, layers: int, gated: bool) -> None:
    weights = {layer: torch.zeros(8, 64) for layer in range(1, 5)}
    gates = {layer: open_gate(32) for layer in weights} if gated else None
    tiny.replace_head(ViewHeads(1, weights, {layer: torch.zeros(8) for layer in weights}, gates))
    card = model_card(tiny, Size(layers, 8)).replace("\n", " ")
    assert ("text-embeddings-inference read too" in card) == (layers == 1 and not gated)
    assert ("not in vLLM or text-embeddings-inference" in card) == (layers == 3 or gated)


def test_a_licence_that_the_hub_does_not_know(tiny: ElasticEncoder, folder: Path) -> None:
    (folder / "training.json").write_text(json.dumps({"licence": "My Own"}))
    assert {key: front(model_card(tiny, Size(4, 32)))[key] for key in ("license", "license_name")} == {
        "license": "other",
        "license_name": "my-own",
    }


@pytest.mark.parametrize("content", ["{", "[1]", '{"data": "one"}'])
def test_a_broken_record(tiny: ElasticEncoder, folder: Path, content: str) -> None:
    (folder / "training.json").write_text(content)
    with pytest.raises(ModelError, match=r"training\.json"):
        model_card(tiny, Size(4, 32))
