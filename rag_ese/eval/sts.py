"""Sentence similarity at every size: one encode pass per model, every layer and width scored on the same pairs."""

from __future__ import annotations

import importlib.metadata
import random
import time
from collections.abc import Callable, Sequence

import numpy as np

from rag_ese.data.files import fingerprint
from rag_ese.data.sts import SENTEVAL, PairSet, load_sets, read_texts
from rag_ese.encoder import ElasticEncoder
from rag_ese.errors import DataError, ModelError
from rag_ese.eval.controls import RANDOM_ROTATIONS, Matrix, pca_rotation, random_rotation
from rag_ese.eval.cost import hardware, peak_memory, versions
from rag_ese.eval.sts_compare import SizeCosines, differences
from rag_ese.eval.sts_config import StsConfig
from rag_ese.eval.sts_results import ModelScores, SetScores, StsResults
from rag_ese.eval.sts_scores import Floats, Sentences, spearman, unit
from rag_ese.progress import progress_bar
from rag_ese.types import Float32s, Size


def evaluate(config: StsConfig, notify: Callable[[str], None]) -> StsResults:
    """Runs the evaluation that `config` describes. `notify` is told what is left out or unusual, as it happens."""
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        notify(text)

    names, controls = config.models(), config.control_names()
    sets = load_sets(config.data, config.split, config.set_names())
    for each in sets:
        if len(each) != (official := SENTEVAL[config.split][each.name]):
            note(f"WARNING: {each.name} has {len(each)} pairs, SentEval's has {official}: not comparable with papers")
    sentences = Sentences.of(sets)
    texts = _control_texts(config, controls, sentences, note)
    encoders = [config.load(name) for name in names]  # all before any works: a wrong name is better refused early
    dims = config.dims_of(encoders[0])
    encoders[0].check([Size(encoders[0].depth, dims[-1])])
    if texts and len(texts) < (widest := max(encoder.width for encoder in encoders)):
        note(f"WARNING: pca has {len(texts)} texts for {widest} dimensions: its axes beyond their number are arbitrary")
    models, cosines = [], []
    for encoder in encoders:
        own = dims if encoder is encoders[0] else sorted({dim for dim in dims if dim < encoder.width} | {encoder.width})
        measured, by_size = _measure(config, encoder, own, sets, sentences, texts)
        models.append(measured)
        cosines.append(by_size)
    gold = {each.name: np.array(each.gold) for each in sets}
    return StsResults(
        command=config.command(),
        config=config.keys(),
        data=[{"set": each.name, "pairs": len(each), "revision": each.revision} for each in sets],
        control_texts=_about_texts(config, texts),
        models=models,
        differences=differences(models, cosines, gold, config.resamples, config.seed),
        hardware=hardware(),
        versions=versions() | {"scipy": importlib.metadata.version("scipy")},
        peak_memory_bytes=peak_memory(),
        notes=notes,
    )


def _control_texts(
    config: StsConfig, controls: Sequence[str], sentences: Sentences, note: Callable[[str], None]
) -> list[str]:
    """The texts that pca is fitted on: a seeded sample, never one of the sentences that are scored."""
    if "pca" not in controls:
        return []
    if config.control_texts is None:
        note("the pca control is left out: it is fitted on training texts, which --control-texts FILE names")
        return []
    scored = {*sentences.texts}
    texts = [text for text in read_texts(config.control_texts) if text not in scored]
    if len(texts) < 2:
        raise DataError(
            f"{config.control_texts} holds {len(texts)} texts that are not scored here: pca needs many; name another "
            "file, or write --controls random"
        )
    return random.Random(config.seed).sample(texts, min(config.control_limit, len(texts)))


def _about_texts(config: StsConfig, texts: Sequence[str]) -> dict[str, object] | None:
    if not texts or config.control_texts is None:
        return None
    return {"file": str(config.control_texts), "revision": fingerprint(config.control_texts), "texts": len(texts)}


def _measure(
    config: StsConfig,
    encoder: ElasticEncoder,
    dims: Sequence[int],
    sets: Sequence[PairSet],
    sentences: Sentences,
    texts: Sequence[str],
) -> tuple[ModelScores, SizeCosines]:
    layers = config.layers_of(encoder)
    began = time.perf_counter()
    vectors = _encode(config, encoder, sentences.texts, layers)
    seconds = time.perf_counter() - began
    cosines: SizeCosines = {}
    for layer in layers:
        for dim, by_set in sentences.cosines(vectors[layer], dims).items():
            cosines[Size(layer, dim)] = by_set
    scores = {size: _score(by_set, sets, f"{encoder.name} at {size}") for size, by_set in cosines.items()}
    controls = {}
    for name, rotations in _rotations(config, encoder, layers[-1], texts).items():
        rotated = [sentences.cosines(vectors[layers[-1]] @ rotation, dims) for rotation in rotations]
        controls[name] = {
            dim: _average([_score(each[dim], sets, f"{encoder.name}, {name} at {dim}") for each in rotated])
            for dim in dims
        }
    measured = ModelScores(
        name=encoder.name,
        revision=encoder.revision,
        dtype=str(encoder.dtype).removeprefix("torch."),
        depth=encoder.depth,
        width=encoder.width,
        layers=layers,
        dims=list(dims),
        scores=scores,
        controls=controls,
        encoding={"sentences": len(sentences.texts), "seconds": round(seconds, 2)},
    )
    return measured, cosines


def _encode(
    config: StsConfig, encoder: ElasticEncoder, texts: Sequence[str], layers: Sequence[int]
) -> dict[int, Float32s]:
    with progress_bar(f"encoding with {encoder.name}", len(texts)) as advance:
        vectors = encoder.encode_layers(texts, layers, config.role, progress=advance)
    for layer, matrix in vectors.items():
        if bad := int((~np.isfinite(matrix)).any(axis=1).sum()):
            raise ModelError(
                f"{encoder.name} gives {bad} of {len(matrix)} vectors that are not finite at layer {layer}: try "
                "--dtype float32"
            )
    return vectors


def _rotations(config: StsConfig, encoder: ElasticEncoder, layer: int, texts: Sequence[str]) -> dict[str, list[Matrix]]:
    """The rotations of each control that was asked for; a single random one says little, so there are some."""
    wanted = config.control_names()
    rotations = {}
    if "pca" in wanted and texts:
        rotations["pca"] = [pca_rotation(unit(_encode(config, encoder, texts, [layer])[layer]))]
    if "random" in wanted:
        rotations["random"] = [random_rotation(encoder.width, config.seed + n) for n in range(RANDOM_ROTATIONS)]
    return rotations


def _score(cosines: dict[str, Floats], sets: Sequence[PairSet], name: str) -> SetScores:
    return {each.name: spearman(cosines[each.name], each.gold, f"{name}, {each.name}") for each in sets}


def _average(scores: Sequence[SetScores]) -> SetScores:
    return {name: float(np.mean([each[name] for each in scores])) for name in scores[0]}
