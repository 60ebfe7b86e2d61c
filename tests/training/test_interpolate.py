"""Interpolation: the ends are the two models, the middle is the mean of their weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rag_ese.encoder import ElasticEncoder
from rag_ese.encoder.heads import ViewHeads
from rag_ese.errors import ModelError
from rag_ese.reader.weights import load_reader, save_reader, start_reader
from rag_ese.training.interpolate import InterpolateConfig, main
from rag_ese.training.weights import save_weights


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with every trained weight a quarter larger, and heads that are twice as large."""
    encoder = ElasticEncoder.load("embedded", "float32", "cpu")
    head = encoder.checkpoint.head
    assert isinstance(head, ViewHeads)
    with torch.no_grad():
        for name, tensor in encoder.checkpoint.blocks.model.named_parameters():
            if "encoder.layer" in name:
                tensor.mul_(1.25)
    encoder.replace_head(head.rotated(2 * torch.eye(head.width)))
    folder = tmp_path_factory.mktemp("changed") / "model"
    save_weights(encoder, folder)
    return folder


def interpolated(changed: Path, share: float, out: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    main(InterpolateConfig.model_validate({"to": str(changed), "share": share, "out": out}))
    ElasticEncoder.load(str(out)).encode_layers(["A harbour froze."], [2])
    return load_file(out / "heads.safetensors"), load_file(out / "delta.safetensors")


def test_the_middle_is_the_mean_of_the_weights(changed: Path, tmp_path: Path) -> None:
    first = interpolated(changed, 0.0, tmp_path / "first")
    last = interpolated(changed, 1.0, tmp_path / "last")
    middle = interpolated(changed, 0.5, tmp_path / "middle")
    for before, after, mean in zip(first, last, middle, strict=True):
        assert before.keys() == mean.keys()
        for name, tensor in mean.items():
            expected = (before[name].float() + after[name].float()) / 2
            torch.testing.assert_close(tensor.float(), expected, rtol=2e-3, atol=1e-5)
    torch.testing.assert_close(last[0]["layer.6.weight"].float(), 2 * first[0]["layer.6.weight"].float())


def test_readers_are_interpolated_too(tmp_path: Path) -> None:
    for name, seed in (("before", 1), ("after", 2)):
        torch.manual_seed(seed)
        reader = start_reader(64)
        with torch.no_grad():
            reader.model.backbone.get_parameter("encoder.layer.0.output.dense.bias").add_(seed)
        save_reader(reader, tmp_path / name, {"steps": seed})
    config = {"model": str(tmp_path / "before"), "to": str(tmp_path / "after"), "share": 0.25, "out": tmp_path / "out"}
    main(InterpolateConfig.model_validate(config))
    parts = [dict(load_reader(tmp_path / name).model.named_parameters()) for name in ("before", "after", "out")]
    for name, tensor in parts[2].items():
        torch.testing.assert_close(tensor, 0.75 * parts[0][name] + 0.25 * parts[1][name], rtol=2e-3, atol=1e-4)
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["steps"] == 2 and record["interpolated"]["share"] == 0.25
    with pytest.raises(ModelError, match="is not a trained reader"):
        main(InterpolateConfig.model_validate({**config, "to": "embedded"}))


def test_models_of_different_shapes_are_refused(tmp_path: Path) -> None:
    config = {"model": "embedded", "to": "embedded-raw", "out": tmp_path / "out"}
    with pytest.raises(ModelError, match="cannot be interpolated"):
        main(InterpolateConfig.model_validate(config))
    assert not (tmp_path / "out").exists()
