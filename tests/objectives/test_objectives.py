"""Every objective against its formula, written out with a base loss whose value tells which columns it was given."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from torch import Tensor, nn

from rag_ese.errors import ConfigError, SizeError
from rag_ese.objectives import InfoNCE, Objective, objective
from rag_ese.objectives.alignment import coordinate_alignment, divergence, embedding_alignment, score_alignment
from rag_ese.objectives.compression import batch_pca
from rag_ese.objectives.weighting import inverse_log, last, linear, shallow, uniform

Make = Callable[..., list[Tensor]]
Layers = dict[int, list[Tensor]]
DEPTH, WIDTH, ROWS = 4, 32, 6
NAMES = ["raw-ft", "mrl", "2dmse", "ese", "ese-paper", "ese-code", "starbucks"]
BASE = InfoNCE()


@pytest.fixture
def batch(columns: Make) -> Layers:
    return {layer: columns(layer, rows=ROWS, width=WIDTH) for layer in range(DEPTH + 1)}


def parts_of(goal: Objective, batch: Layers, seed: int = 0, **more: Any) -> dict[str, Tensor]:
    needed = {layer: batch[layer] for layer in goal.layers(DEPTH)}
    return goal(needed, BASE, None, random.Random(seed), **more)


def loss_of(goal: Objective, batch: Layers, seed: int = 0, **more: Any) -> float:
    return float(sum(part.item() for part in parts_of(goal, batch, seed, **more).values()))


def at(batch: Layers, layer: int, dim: int) -> list[Tensor]:
    return [column[:, :dim] for column in batch[layer]]


def base_at(batch: Layers, layer: int, dim: int = WIDTH) -> float:
    return BASE(at(batch, layer, dim)).item()


def flat(batch: Layers, layer: int, dim: int = WIDTH) -> Tensor:
    return torch.cat(at(batch, layer, dim)).detach()


def test_raw_ft(batch: Layers) -> None:
    assert parts_of(objective("raw-ft", DEPTH, WIDTH), batch)["base L4-d32"].item() == base_at(batch, 4)
    small = objective("raw-ft", DEPTH, WIDTH, size="L2-d8")
    assert small.layers(DEPTH) == (2,)
    assert parts_of(small, batch)["base L2-d8"].item() == base_at(batch, 2, 8)


def test_mrl_sums_over_prefixes_of_the_last_layer(batch: Layers) -> None:
    goal = objective("mrl", DEPTH, WIDTH)
    assert goal.layers(DEPTH) == (4,)
    assert loss_of(goal, batch) == pytest.approx(sum(base_at(batch, 4, dim) for dim in (8, 16, 32)))


class Given(nn.Module):
    """Stands for a model: its features already are embeddings."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(features)

    def get_embedding_dimension(self) -> int:
        return WIDTH

    get_sentence_embedding_dimension = get_embedding_dimension


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mrl_is_that_of_sentence_transformers(columns: Make, seed: int) -> None:
    batch = columns(seed, rows=ROWS, width=WIDTH)
    model: Any = Given()
    theirs = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), [32, 16, 8])
    value = theirs([{"sentence_embedding": column} for column in batch], torch.empty(0))
    assert loss_of(objective("mrl", DEPTH, WIDTH), {4: batch}) == pytest.approx(value.item())


@pytest.mark.parametrize("seed", range(5))
def test_2dmse_is_its_formula(batch: Layers, seed: int) -> None:
    goal = objective("2dmse", DEPTH, WIDTH, temperature=0.5)
    parts = parts_of(goal, batch, seed)
    [name] = [name for name in parts if name.startswith("align")]
    layer = int(name.split("-")[0].split("L")[1])
    [dim] = {int(name.split("-d")[1]) for name in parts if name.startswith("base")} - {WIDTH}
    sizes = [(4, WIDTH), (layer, WIDTH), (4, dim), (layer, dim)]
    expected = sum(base_at(batch, *size) for size in sizes)
    expected += 0.25 * divergence(flat(batch, layer), flat(batch, 4), 0.5).item()
    assert sum(part.item() for part in parts.values()) == pytest.approx(expected)
    assert parts_of(goal, batch, seed).keys() == parts.keys()


def test_2dmse_draws_every_lower_layer_and_size(batch: Layers) -> None:
    goal = objective("2dmse", DEPTH, WIDTH)
    drawn = {name for seed in range(60) for name in parts_of(goal, batch, seed)}
    assert drawn == {f"base L{layer}-d{dim}" for layer in range(1, 5) for dim in (8, 16, 32)} | {
        f"align L{layer}-d32" for layer in range(1, 4)
    }


def test_ese_paper_is_its_formula(batch: Layers) -> None:
    goal = objective("ese-paper", DEPTH, WIDTH, k=8, temperature=0.5)
    assert goal.layers(DEPTH) == (1, 2, 3, 4)
    expected = 0.0
    for layer in range(1, 5):
        weight = 1.0 if layer == 4 else 1 / (1 + math.log(layer))
        target = batch_pca(flat(batch, layer), 8)
        aligned = coordinate_alignment(flat(batch, layer, 8), target, 0.5).item()
        expected += weight * (base_at(batch, layer, 8) + aligned)
    assert loss_of(goal, batch) == pytest.approx(expected)


def reference_ese(angle_emb: Any, batch: Layers, k: int) -> float:
    """The loss of angle-emb's own trainer, whose model hands out `batch` as the hidden states of one-token texts."""
    trainer = angle_emb.AngleESETrainer.__new__(angle_emb.AngleESETrainer)
    texts = [torch.stack(batch[layer], dim=1).detach().flatten(0, 1)[:, None] for layer in range(DEPTH + 1)]
    pooler = type("Pooler", (SimpleNamespace,), {"__call__": lambda *_, **__: texts})
    trainer.pooler = pooler(pooling_strategy="cls", padding_side="right")
    trainer.loss_fct = lambda _, outputs: BASE([outputs[i::3] for i in range(3)])
    trainer.n_layers, trainer.teacher_name_or_path = DEPTH, None
    trainer.ese_kl_temperature, trainer.ese_compression_size, trainer.apply_ese_pca = 0.5, k, True
    inputs = {"input_ids": torch.zeros(len(texts[0]), 1), "attention_mask": torch.ones(len(texts[0]), 1)}
    return float(trainer.compute_loss(None, inputs))


def test_ese_code_is_angle_emb(angle_emb: Any, batch: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole loss of its trainer; an exact SVD with fixed signs stands in for the randomised one on both sides."""

    def exact(matrix: Tensor, q: int) -> tuple[Tensor, Tensor, None]:
        left, values, _ = torch.linalg.svd(matrix)
        return left[:, :q] * left[0, :q].sign(), values[:q], None

    monkeypatch.setattr(torch, "svd_lowrank", exact)
    goal = objective("ese-code", DEPTH, WIDTH, k=8, temperature=0.5)
    assert goal.layers(DEPTH) == (0, 1, 2, 4)
    assert loss_of(goal, batch) == pytest.approx(reference_ese(angle_emb, batch, 8))
    bare = objective("ese-code", DEPTH, WIDTH, k=8, temperature=0.5, pca=False)
    assert loss_of(bare, batch) < loss_of(goal, batch) - 0.1


def test_ese_code_with_a_teacher(batch: Layers, columns: Make) -> None:
    goal = objective("ese-code", DEPTH, WIDTH, k=WIDTH)
    teacher = columns(9, rows=ROWS, width=WIDTH)
    parts = parts_of(goal, batch, teacher=teacher)
    assert parts["align L4-d32"].item() == pytest.approx(divergence(flat(batch, 4), torch.cat(teacher), 1.0).item())
    assert parts["base L4-d32"].item() == pytest.approx(2 * base_at(batch, 4))
    with pytest.raises(ConfigError, match="16 dimensions and not 32"):
        parts_of(goal, batch, teacher=columns(9, rows=ROWS, width=16))


@pytest.mark.parametrize("own", [True, False])
def test_starbucks_is_its_formula(batch: Layers, columns: Make, own: bool) -> None:
    goal = objective("starbucks", DEPTH, WIDTH, pairs=["L4-d32", "L1-d8", "L3-d16"])
    assert goal.layers(DEPTH) == (1, 3, 4)
    teacher = None if own else columns(9, rows=ROWS, width=40)
    expected = 0.0
    for layer, dim in [(1, 8), (3, 16), (4, 32)]:
        aligned = score_alignment(at(batch, layer, dim), teacher or batch[4], 0.05, ["question-passage"]).item()
        expected += (base_at(batch, layer, dim) + (0 if own and dim == 32 else aligned)) / 3
    assert loss_of(goal, batch, teacher=teacher) == pytest.approx(expected)


@pytest.mark.parametrize("own", [True, False])
def test_ese_is_its_formula(batch: Layers, columns: Make, own: bool) -> None:
    goal = objective(
        "ese", DEPTH, WIDTH, layers=[2, 3, 4], sizes=[8, 32], size_weights=[2, 1], weighting="inverse-log",
        full_weight=3.0, base_weight=0.5, align_weight=2.0, embed_weight=0.7, base_depths=[3, 4], temperature=0.1,
        compress="batch-pca", compress_weight=0.3, compress_size=16,
    )  # fmt: skip
    teacher = None if own else columns(9, rows=ROWS, width=WIDTH)
    target = teacher or batch[4]

    def cell(layer: int, dim: int) -> float:
        value = 0.5 * base_at(batch, layer, dim) if layer > 2 else 0.0
        if own and (layer, dim) == (4, 32):
            return value
        value += 2 * score_alignment(at(batch, layer, dim), target, 0.1).item()
        return value + (
            0.7 * embedding_alignment(flat(batch, layer), torch.cat(list(target))).item() if dim == 32 else 0
        )

    weight = {layer: 1 / (1 + math.log(layer)) for layer in (2, 3, 4)}
    others = {(layer, dim): weight[layer] * (2 if dim == 8 else 1) for layer in weight for dim in (8, 32)}
    del others[4, 32]
    expected = 3 * cell(4, 32) + sum(w * cell(*size) for size, w in others.items()) / sum(others.values())
    for layer, w in weight.items():
        aligned = coordinate_alignment(flat(batch, layer, 16), batch_pca(flat(batch, layer), 16))
        expected += 0.3 * w / sum(weight.values()) * aligned.item()
    parts = parts_of(goal, batch, teacher=teacher)
    assert sum(part.item() for part in parts.values()) == pytest.approx(expected)
    assert ("align L4-d32" in parts) != own


def test_sampled_ese_has_the_same_mean(batch: Layers) -> None:
    options = {"sizes": [8, 16, 32], "weighting": "linear"}
    whole = objective("ese", DEPTH, WIDTH, **options)
    sampled = objective("ese", DEPTH, WIDTH, sampled=3, **options)
    parts = parts_of(sampled, batch, 1)
    assert len([name for name in parts if name.startswith("base")]) == 4 and "base L4-d32" in parts
    drawn = [loss_of(sampled, batch, seed) for seed in range(300)]
    spread = torch.tensor(drawn).std().item()
    assert spread > 0
    assert sum(drawn) / 300 == pytest.approx(loss_of(whole, batch), abs=4 * spread / 300**0.5)


def test_ese_learns_from_unlabelled_texts_and_the_others_do_not(batch: Layers) -> None:
    for name in NAMES:
        goal = objective(name, DEPTH, WIDTH)
        needed = {layer: batch[layer] for layer in goal.layers(DEPTH)}
        if name == "ese":
            assert {part.split()[0] for part in goal(needed, None, None, random.Random(0))} == {"align"}
        else:
            with pytest.raises(ConfigError, match=f"{name} cannot learn from texts without pairs"):
                goal(needed, None, None, random.Random(0))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_what_is_asked_for_and_nothing_else(batch: Layers, columns: Make, name: str) -> None:
    goal = objective(name, DEPTH, WIDTH)
    teacher = columns(9, rows=ROWS, width=WIDTH)
    torch.stack(list(parts_of(goal, batch, teacher=teacher).values())).sum().backward()
    learned = {layer for layer in batch if all(column.grad is not None for column in batch[layer])}
    assert learned <= {*goal.layers(DEPTH)} and DEPTH in learned
    if name != "2dmse":
        assert learned == {*goal.layers(DEPTH)}
    assert all(column.grad is None for column in teacher)


@pytest.mark.parametrize("name", ["starbucks", "ese"])
def test_a_small_size_does_not_pull_at_its_target(batch: Layers, name: str) -> None:
    """Without a base loss on it, the full size has no gradient: it is the target, and only that."""
    more = {"base_weight": 0.0} if name == "ese" else {"pairs": ["L1-d8", "L2-d16"]}
    parts = parts_of(objective(name, DEPTH, WIDTH, **more), batch)
    small = [part for label, part in parts.items() if label.startswith("align") and not label.startswith("align L4")]
    torch.stack(small).sum().backward()
    assert all(column.grad is None for column in batch[4])
    assert all(column.grad is not None and column.grad.abs().sum() > 0 for column in batch[1])


def test_a_prefix_leaves_the_other_dimensions_alone(batch: Layers) -> None:
    torch.stack(list(parts_of(objective("mrl", DEPTH, WIDTH, sizes=[8, 16]), batch).values())).sum().backward()
    for column in batch[4]:
        assert column.grad is not None
        assert (column.grad[:, 16:] == 0).all() and (column.grad[:, :16] != 0).any(dim=0).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_batch_does_not_matter(batch: Layers, name: str) -> None:
    goal = objective(name, DEPTH, WIDTH, **({"pca": False} if name == "ese-code" else {}))
    order = torch.tensor([5, 1, 3, 0, 4, 2])
    shuffled = {layer: [column[order] for column in batch[layer]] for layer in batch}
    assert loss_of(goal, shuffled) == pytest.approx(loss_of(goal, batch))


def test_a_running_basis_survives_a_restart_and_a_measurement(batch: Layers) -> None:
    def fresh() -> Objective:
        return objective("ese", DEPTH, WIDTH, compress="running-pca", layers=[2, 4], compress_size=8)

    first, second = fresh(), fresh()
    scaled = {layer: [0.5 * column for column in batch[layer]] for layer in batch}
    loss_of(first, batch)
    state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    with torch.no_grad():
        loss_of(first, scaled)
    assert {*state} == {*first.state_dict()} != set()
    assert all(torch.equal(tensor, state[name]) for name, tensor in first.state_dict().items())
    second.load_state_dict(state)
    assert loss_of(second, scaled) == loss_of(first, scaled)
    assert loss_of(fresh(), scaled) != pytest.approx(loss_of(first, scaled))
    assert not objective("mrl", DEPTH, WIDTH).state_dict()


def test_default_sizes() -> None:
    pairs: Any = objective("starbucks", 6, 768)
    assert [str(size) for size in pairs.pairs] == ["L1-d32", "L2-d64", "L3-d128", "L4-d256", "L5-d512", "L6-d768"]
    ese: Any = objective("ese", 2, 100)
    assert {*map(str, ese.cells)} == {f"L{layer}-d{dim}" for layer in (1, 2) for dim in (32, 64, 100)} - {"L2-d100"}
    mrl: Any = objective("mrl", 6, 768)
    assert mrl.sizes == (12, 24, 48, 96, 192, 384, 768)


def test_weightings() -> None:
    assert [uniform(layer, 4) for layer in (1, 4)] == [1, 1]
    assert [linear(layer, 4) for layer in (1, 4)] == [0.25, 1]
    assert [last(layer, 4) for layer in (1, 4)] == [0, 1]
    assert [shallow(layer, 4) for layer in (1, 3, 4)] == [1, 1, 0]
    assert [inverse_log(layer, 4) for layer in (1, 4)] == pytest.approx([1, 1 / (1 + math.log(4))])


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("espresso", {}, ConfigError, "no objective 'espresso': choose one of raw-ft, mrl, 2dmse, ese"),
        ("mrl", {"dims": [8]}, ConfigError, "no option 'dims': its options are sizes"),
        ("raw-ft", {"size": "L5-d8"}, SizeError, "L5-d8 is larger than the model, L4-d32"),
        ("starbucks", {"pairs": ["L2-d33"]}, SizeError, "L2-d33 is larger"),
        ("mrl", {"sizes": [8, 64]}, SizeError, "8, 64 are not all between 1 and 32"),
        ("mrl", {"sizes": []}, SizeError, "no dimensions were given"),
        ("ese", {"layers": [0, 1]}, SizeError, "0, 1 are not all between 1 and 4"),
        ("ese", {"sizes": [8, 16], "size_weights": [1]}, ConfigError, "1 size_weights for the 2 sizes"),
        ("ese", {"weighting": "log"}, ConfigError, "inverse-log, uniform, linear, last, shallow"),
        ("ese", {"compress": "pca"}, ConfigError, "none, running-pca, batch-pca, reference"),
        ("ese", {"sampled": 0}, ConfigError, "cannot draw 0"),
        ("ese", {"base_weight": 0, "align_weight": 0}, ConfigError, "all weights of ese are 0"),
        ("2dmse", {"sizes": [32]}, SizeError, "below the full width 32"),
    ],
)
def test_refusals(name: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        objective(name, DEPTH, WIDTH, **options)


@pytest.mark.parametrize("name", ["2dmse", "ese-paper", "ese-code"])
def test_a_single_layer_is_refused_where_there_is_nothing_below(name: str) -> None:
    with pytest.raises(SizeError, match=f"{name} trains layers below the last, and this model has 1"):
        objective(name, 1, WIDTH)
