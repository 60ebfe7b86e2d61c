from __future__ import annotations

import numpy as np
import pytest
import torch

from rag_ese.reader.model import LONGEST, Inputs, SpanHeads, loss, number_of, span_of
from rag_ese.reader.weights import Reader
from rag_ese.reader.windows import Cutter, Stretch
from rag_ese.types import Passage


def test_scores_are_those_of_the_formula() -> None:
    torch.manual_seed(1)
    heads = SpanHeads(8, width=4)
    states = torch.randn(1, 60, 8)
    owner = torch.tensor([[-1] * 4 + [0] * 40 + [-1] * 2 + [1] * 14])
    spans, closed = heads(states, owner)
    maps = {name: each.detach().numpy().astype(np.float64) for name, each in heads.state_dict().items()}
    rows = states[0].numpy().astype(np.float64)
    ends = rows @ maps["ends.weight"].T + maps["ends.bias"]
    pair = rows @ maps["pair.weight"].T + maps["pair.bias"]
    assert spans.shape == (1, 60, LONGEST)
    for first in range(60):
        for more in range(LONGEST):
            last, found = first + more, float(spans[0, first, more].detach())
            if last < 60 and owner[0, first] == owner[0, last] and owner[0, first] >= 0:
                expected = ends[first, 0] + ends[last, 1] + pair[first, :4] @ pair[last, 4:] / 2
                assert found == pytest.approx(expected, abs=1e-4)
                assert span_of(number_of(first, last)) == (first, last)
                assert float(spans.flatten()[number_of(first, last)].detach()) == found
            else:
                assert found == float("-inf")
    expected_closed = rows[0] @ maps["closed.weight"].T + maps["closed.bias"]
    assert closed[0].detach().numpy() == pytest.approx(expected_closed, abs=1e-4)


def test_the_loss_is_the_share_of_the_right_candidates() -> None:
    draw = np.random.default_rng(0)
    spans, closed = draw.normal(size=(3, 5, 5)), draw.normal(size=(3, 3))
    spans[:, 4, 0] = -np.inf
    gold = [[1 * 5 + 2, 0 * 5 + 3], [25], [27 - 0]]
    shares = []
    for window, right in enumerate(gold):
        scores = np.exp([*spans[window].ravel(), *closed[window]])
        shares.append(-np.log(scores[right].sum() / scores.sum()))
    value = loss(torch.from_numpy(spans), torch.from_numpy(closed), gold)
    assert float(value) == pytest.approx(np.mean(shares))


def test_padding_changes_nothing(reader: Reader, cutter: Cutter, passages: tuple[Passage, ...]) -> None:
    short = cutter.window("Who?", passages, [Stretch(2, 0, 3)])
    long = cutter.window("Who?", passages, [Stretch(0, 0, 14)])
    reader.model.eval()
    with torch.no_grad():
        alone = reader.model(Inputs.of([short]))
        beside = reader.model(Inputs.of([long, short]))
    size = len(short)
    assert torch.allclose(alone[0][0], beside[0][1, :size], atol=1e-4)
    assert torch.allclose(alone[1][0], beside[1][1], atol=1e-4)
    assert torch.isinf(beside[0][1, size:]).all()
