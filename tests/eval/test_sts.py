"""`python -m rag_ese.eval sts` end to end on pairs made by hand, with encoders made for it and a real one."""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from scipy.stats import spearmanr

from rag_ese.encoder import ElasticEncoder
from rag_ese.errors import SizeError
from rag_ese.eval.controls import pca_rotation, random_rotation
from rag_ese.eval.sts_config import StsConfig

Main = Callable[..., tuple[int, str, str]]

PAIRS = [
    ("4.8", "A baker pulls warm loaves from the oven.", "Fresh bread is taken out of the oven by a baker."),
    ("4.1", "Two boys kick a ball across the yard.", "Children are playing football outside."),
    ("3.2", "The ferry leaves the harbour at noon.", "A boat departs in the morning."),
    ("2.0", "She repairs old clocks in a small shop.", "A woman sells watches at the market."),
    ("0.9", "Snow covered the mountain road.", "The road to the beach was busy."),
    ("0.2", "The committee rejected the budget.", "A cat sleeps on the sofa."),
    ("3.2", "A violinist tunes her instrument.", "The musician is preparing to play."),
    ("1.4", "The farmer counts his sheep.", "A dog chases sheep over the hill."),
]
OTHERS = [
    ("5", "Rain is falling.", "It rains."),
    ("2", "Rain is falling.", "The sun is out."),
    ("0", "It rains.", "Go!"),
]
TEXTS = [f"Sentence number {n} is about {word}." for n in range(40) for word in ("apples", "bees", "coal", "drums")]


class Words:
    """An encoder whose vectors are drawn from layer and text, or `fill` throughout; it notes what it is given."""

    revision, depth, dtype = "r1", 3, torch.float32

    def __init__(self, name: str, width: int = 100) -> None:
        self.name, self.width, self.seen = name, width, list[tuple[list[str], list[int]]]()
        self.fill: float | None = None

    check = ElasticEncoder.check

    def encode_layers(self, texts: Sequence[str], layers: Sequence[int], role: str, progress: Any) -> dict[int, Any]:
        self.seen.append((list(texts), list(layers)))
        progress(len(texts))
        return {layer: np.stack([self.vector(text, layer) for text in texts]) for layer in layers}

    def vector(self, text: str, layer: int) -> Any:
        draw = np.random.default_rng([layer, self.width, *text.encode()])
        return (draw.normal(size=self.width) if self.fill is None else np.full(self.width, self.fill)).astype(
            np.float32
        )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the two sets of the dev split and training texts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sts").mkdir()
    for name, rows in (("stsb_dev", PAIRS), ("sickr_trial", OTHERS)):
        (tmp_path / "sts" / f"{name}.tsv").write_text("\n".join(["score\tsentence1\tsentence2", *map("\t".join, rows)]))
    scored = {"premise": PAIRS[0][1], "hypothesis": "The only text of this line that is not scored."}
    lines = [{"question": TEXTS[n], "context": TEXTS[n + 1]} for n in range(0, len(TEXTS), 2)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, [scored, *lines])))
    return tmp_path


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> dict[str, Words]:
    """Encoders `wide` (100 dimensions) and `narrow` (80) instead of models."""
    made = {"wide": Words("wide"), "narrow": Words("narrow", 80)}
    monkeypatch.setattr(StsConfig, "load_encoder", lambda config: made[config.model])
    return made


BASE = ["sts", "--data", "sts", "--split", "dev"]
WIDE = [*BASE, "--model", "wide", "--out", "out"]


def written_out(vector: Callable[[str], Any], pairs: Sequence[tuple[str, str, str]], dim: int) -> float:
    """Spearman x 100 from the definitions, pair by pair."""
    cosines = []
    for _, first, second in pairs:
        a, b = (vector(text)[:dim].astype(np.float64) for text in (first, second))
        cosines.append(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))))
    return 100 * float(spearmanr(cosines, [float(score) for score, *_ in pairs]).statistic)


def test_every_number(here: Path, words: dict[str, Words], run_main: Main) -> None:
    options = ["--control-texts", "texts.jsonl", "--compare", "narrow", "--resamples", "100", "--json"]
    code, printed, said = run_main("eval", *WIDE, *options)
    assert code == 0, said
    metrics = json.loads((here / "out" / "metrics.json").read_text())
    assert json.loads(printed) == metrics
    assert "WARNING: stsb_dev has 8 pairs, SentEval's has 1500" in said
    wide, narrow = metrics["models"]
    assert (wide["dims"], narrow["dims"], wide["layers"]) == ([50, 64, 100], [50, 64, 80], [1, 2, 3])
    for model, encoder in ((wide, words["wide"]), (narrow, words["narrow"])):
        for layer in (1, 2, 3):
            for dim in model["dims"]:
                sets = {
                    name: written_out(lambda text, n=layer, e=encoder: e.vector(text, n), pairs, dim)
                    for name, pairs in (("stsb_dev", PAIRS), ("sickr_trial", OTHERS))
                }
                assert model["per_set"][f"L{layer}-d{dim}"] == pytest.approx(sets, abs=1e-4)
                assert model["average"][f"L{layer}-d{dim}"] == pytest.approx(np.mean([*sets.values()]), abs=1e-4)
        for dim in model["dims"]:
            shallow = np.mean([model["average"][f"L{layer}-d{dim}"] for layer in (1, 2)])
            assert model["shallow_average"][str(dim)] == pytest.approx(shallow, abs=1e-3)
    full = next(each for each in metrics["differences"] if (each["layers"], each["dim"]) == ("last", "full"))
    assert full["difference"] == pytest.approx(wide["average"]["L3-d100"] - narrow["average"]["L3-d80"], abs=1e-3)
    assert full["low"] <= full["high"]
    assert metrics["hardware"]["cores"] and metrics["versions"]["scipy"] and metrics["seed"] == 0
    assert metrics["command"] == (
        "python -m rag_ese.eval sts --model wide --data sts --split dev --control-texts texts.jsonl --compare narrow "
        "--resamples 100"
    )


def test_controls(here: Path, words: dict[str, Words], run_main: Main) -> None:
    code, _, said = run_main("eval", *WIDE, "--control-texts", "texts.jsonl", "--json", "--seed", "4")
    assert code == 0 and "arbitrary" not in said
    model = json.loads((here / "out" / "metrics.json").read_text())["models"][0]
    (sentences, layers), (fitted, fitted_layers) = words["wide"].seen
    assert layers == [1, 2, 3] and fitted_layers == [3]
    assert len(sentences) == len({*sentences}) == 20  # each once, in one pass, all layers
    assert {*fitted} == {*TEXTS, "The only text of this line that is not scored."}  # never what is scored

    encoder = words["wide"]
    vectors = np.stack([encoder.vector(text, 3) for text in fitted]).astype(np.float64)
    rotation = pca_rotation(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    for dim in (50, 64):
        wanted = written_out(lambda text: encoder.vector(text, 3) @ rotation, PAIRS, dim)
        assert model["controls"]["pca"][str(dim)]["stsb_dev"] == pytest.approx(wanted, abs=1e-3)
        rotations = [random_rotation(100, seed) for seed in range(4, 9)]
        draws = [written_out(lambda text, q=q: encoder.vector(text, 3) @ q, PAIRS, dim) for q in rotations]
        assert model["controls"]["random"][str(dim)]["stsb_dev"] == pytest.approx(np.mean(draws), abs=1e-3)
    for control in ("pca", "random"):  # rotated full vectors have the same cosines
        assert model["controls"][control]["100"]["average"] == pytest.approx(model["average"]["L3-d100"], abs=1e-4)


def test_few_control_texts(here: Path, words: dict[str, Words], run_main: Main) -> None:
    code, _, said = run_main("eval", *WIDE, "--control-texts", "texts.jsonl", "--control-limit", "30")
    assert code == 0 and "WARNING: pca has 30 texts for 100 dimensions: its axes beyond" in said
    assert len(words["wide"].seen[1][0]) == 30


def test_files_and_tables(here: Path, words: dict[str, Words], run_main: Main) -> None:
    code, printed, said = run_main("eval", *WIDE, "--compare", "narrow", "--resamples", "100", "--layers", "1,3")
    assert code == 0 and "the pca control is left out: it is fitted on training texts" in said
    assert max(map(len, printed.splitlines())) <= 100
    report = (here / "out" / "report.md").read_text()
    wide = json.loads((here / "out" / "metrics.json").read_text())["models"][0]
    for title in ("Average over 2 sets, by width", "wide: every set, last layer (L3)", "wide minus another model"):
        assert title in printed and f"## {title}" in report
    cells = [f"{wide['average'][f'L1-d{dim}']:.2f}" for dim in (50, 64, 100)]
    assert f"| L1 | {' | '.join(cells)} |" in report
    assert f"| wide, shallow (L1) | {cells[0]} | {cells[1]} | – | {cells[2]} |" in report
    assert "wide, L3 rotated at random" in printed and "by PCA" not in printed.split("Spearman's rank")[0]
    assert "![layer by width](layers_and_widths.png)" in report
    assert imread(here / "out" / "layers_and_widths.png").shape[0] > 200


def test_without_matplotlib(
    here: Path, words: dict[str, Words], run_main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    code, _, said = run_main("eval", *WIDE, "--controls", "none")
    assert code == 0 and "no picture" in said and "[plot]" in said and "pca" not in said
    assert sorted(path.name for path in (here / "out").iterdir()) == ["metrics.json", "report.md"]
    assert "![" not in (here / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sts"], "data is not given: --data names a folder with sts12.tsv to sts16.tsv, stsb_test.tsv and"),
        (["sts", "--data", "gone"], "gone is not a folder: name the one that holds sts12.tsv, sts13.tsv"),
        (["sts", "--data", "sts"], "sts lacks sts12.tsv, sts13.tsv, sts14.tsv, sts15.tsv, sts16.tsv, stsb_test.tsv"),
        ([*BASE, "--sets", "sts12"], "the dev split has no set 'sts12': choose among stsb_dev, sickr_trial"),
        ([*BASE, "--split", "train"], "split: input should be 'test' or 'dev', got 'train'"),
        ([*BASE, "--sizes", "wide"], "cannot read the widths 'wide': write numbers from 1 on, such as 64,128,768"),
        ([*BASE, "--sizes", "64,0"], "cannot read the widths '64,0'"),
        ([*BASE, "--sizes", ","], "cannot read the widths ','"),
        ([*BASE, "--sizes", "64,101"], "no size L3-d101: it has layers 1 to 3 and 1 to 100 dimensions"),
        ([*BASE, "--layers", "1,4"], "no size L4-d1: it has layers 1 to 3"),
        ([*BASE, "--layers", "one"], "cannot read the layers 'one': write numbers such as 2,4,6"),
        ([*BASE, "--controls", "pca,lda"], "there is no control 'lda': write pca, random, pca,random or none"),
        ([*BASE, "--control-texts", "gone.jsonl"], "gone.jsonl does not exist"),
        ([*BASE, "--control-texts", "one.jsonl"], "one.jsonl holds 1 texts that are not scored here: pca needs many"),
        ([*BASE, "--compare", "narrow,narrow"], "the model narrow is named twice: leave it out of --compare"),
        ([*BASE, "--resamples", "1"], "resamples: input should be greater than or equal to 100"),
    ],
)
def test_refusals(here: Path, words: dict[str, Words], run_main: Main, options: list[str], message: str) -> None:
    scored = {"question": PAIRS[0][1], "context": "Something else."}
    (here / "one.jsonl").write_text(json.dumps(scored))
    code, printed, said = run_main("eval", *options, "--model", "wide", "--out", "out")
    assert (code, printed) == (2, "")
    sentence = said.splitlines()[-1]
    assert sentence.startswith("error: ") and message in sentence and "Traceback" not in said
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (0.0, "wide at L1-d50, stsb_dev: all 8 cosines are 0, so no rank correlation is defined"),
        (1.0, "wide at L1-d50, stsb_dev: all 8 cosines are 1, so no rank correlation is defined"),
        (np.nan, "wide gives 20 of 20 vectors that are not finite at layer 1: try --dtype float32"),
    ],
)
def test_vectors_that_cannot_be_scored(
    here: Path, words: dict[str, Words], run_main: Main, fill: float, message: str
) -> None:
    words["wide"].fill = fill
    code, printed, said = run_main("eval", *WIDE)
    assert (code, printed) == (2, "") and message in said.splitlines()[-1]


def test_default_widths() -> None:
    config = StsConfig(data=Path())
    assert config.dims_of(Words("x", 768)) == [64, 128, 256, 384, 512, 768]  # type: ignore[arg-type]
    assert config.dims_of(Words("x", 384)) == [64, 128, 192, 256, 384]  # type: ignore[arg-type]
    assert config.dims_of(Words("x", 32)) == [16, 32]  # type: ignore[arg-type]
    chosen = StsConfig(data=Path(), sizes="128, 64,128")
    assert chosen.dims_of(Words("x", 768)) == [64, 128]  # type: ignore[arg-type]
    with pytest.raises(SizeError):
        StsConfig(data=Path(), sizes="²").dims_of(Words("x"))  # type: ignore[arg-type]


def test_parity_with_sentence_transformers(here: Path, run_main: Main) -> None:
    """The full size of the backbone: sentence-transformers loads it, cuts it, and scores it with its own evaluator."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    from rag_ese.encoder.names import resolve

    options = [*BASE, "--sets", "stsb_dev", "--dtype", "float32", "--device", "cpu", "--controls", "none", "--json"]
    code, printed, said = run_main("eval", *options, "--model", "embedded-raw", "--sizes", "48,384", "--layers", "6")
    assert code == 0, said
    ours = json.loads(printed)["models"][0]["per_set"]
    theirs = SentenceTransformer(str(resolve("embedded-raw").path), device="cpu")
    gold, first, second = zip(*PAIRS, strict=True)
    for dim in (48, 384):
        evaluator = EmbeddingSimilarityEvaluator(
            list(first), list(second), [float(score) for score in gold], main_similarity="cosine", truncate_dim=dim
        )
        score = evaluator(theirs)[evaluator.primary_metric]
        assert ours[f"L6-d{dim}"]["stsb_dev"] == pytest.approx(100 * score, abs=1e-3)
