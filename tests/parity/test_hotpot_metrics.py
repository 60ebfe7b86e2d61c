"""HotpotQA's metrics against cases worked out by hand and against a second, naive computation on random strings."""

from __future__ import annotations

import random

import pytest

from rag_ese.eval.answers import AnswerScores, joint, normalise, score_answer, score_supporting

ZERO = (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        ("Lune", "lune", (1, 1, 1, 1)),
        ("The Lune!", "lune", (1, 1, 1, 1)),
        ("an apple a day", "apple day", (1, 1, 1, 1)),
        ("theatre", "atre", ZERO),  # an article is a whole word
        ("l'a", "la", (1, 1, 1, 1)),  # punctuation goes before articles do: "l'a" has no article left
        ("a.", "", (1, 0, 0, 0)),  # both normalise to nothing: EM 1, F1 0
        ("The", "a an", (1, 0, 0, 0)),
        ("", "", (1, 0, 0, 0)),
        ("", "lune", ZERO),
        ("yes", "Yes.", (1, 1, 1, 1)),
        ("yes", "no", ZERO),
        ("yes it is", "yes", ZERO),  # the overlap does not count beside a yes
        ("yes", "yes it is", ZERO),
        ("noanswer", "noanswer given", ZERO),
        ("no way", "no one", (0, 0.5, 0.5, 0.5)),  # neither side is "no" itself
        ("new new york", "new york", (0, 0.8, 2 / 3, 1)),  # a repeated token counts as often as in the other
        ("new york", "new new york", (0, 0.8, 1, 2 / 3)),
        ("york new", "new york", (0, 1, 1, 1)),  # a bag of words
        ("St. Louis–based", "st louisbased", (0, 0.5, 0.5, 0.5)),  # an en dash is no ASCII punctuation
        ("1,802 m", "1802 m", (1, 1, 1, 1)),
        ("Étude", "étude", (1, 1, 1, 1)),
    ],
)
def test_answers_by_hand(prediction: str, gold: str, expected: tuple[float, ...]) -> None:
    assert score_answer(prediction, gold) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predicted", "gold", "expected"),
    [
        ([("A", 0), ("B", 1)], [("B", 1), ("A", 0)], (1, 1, 1, 1)),
        ([("A", 0), ("A", 0)], [("A", 0)], (1, 1, 1, 1)),  # sets
        ([("A", 0)], [("A", 0), ("B", 1)], (0, 2 / 3, 1, 0.5)),
        ([("A", 0), ("B", 0), ("C", 0)], [("A", 0)], (0, 0.5, 1 / 3, 1)),
        ([("A", 1)], [("A", 0)], ZERO),
        ([], [("A", 0)], ZERO),
        ([], [], (1, 0, 0, 0)),
    ],
)
def test_supporting_facts_by_hand(
    predicted: list[tuple[str, int]], gold: list[tuple[str, int]], expected: tuple[float, ...]
) -> None:
    assert score_supporting(predicted, gold) == pytest.approx(expected)


def naive_tokens(text: str) -> list[str]:
    """Character by character, without regular expressions."""
    kept = "".join(
        c for c in text.lower() if not ("!" <= c <= "/" or ":" <= c <= "@" or "[" <= c <= "`" or "{" <= c <= "~")
    )
    # A word ends where letters, digits and underscores end, for the articles; at a blank, for the tokens.
    words, current = [], ""
    for c in kept + " ":
        if c.isalnum() or c == "_":
            current += c
        else:
            words += [" " if current in ("a", "an", "the") else current, c]
            current = ""
    return "".join(words).split()


def naive_overlap(predicted: list[object], gold: list[object]) -> tuple[float, float, float]:
    left, common = list(gold), 0
    for item in predicted:
        if item in left:
            left.remove(item)
            common += 1
    if common == 0:
        return 0.0, 0.0, 0.0
    # F1 = 2 TP / (2 TP + FP + FN)
    return 2 * common / (len(predicted) + len(gold)), common / len(predicted), common / len(gold)


def naive_answer(prediction: str, gold: str) -> tuple[float, ...]:
    p, g = naive_tokens(prediction), naive_tokens(gold)
    if p == g:
        return (1.0, *naive_overlap(list(p), list(g)))
    if p in (["yes"], ["no"], ["noanswer"]) or g in (["yes"], ["no"], ["noanswer"]):
        return ZERO
    return (0.0, *naive_overlap(list(p), list(g)))


PIECES = [
    "a",
    "an",
    "the",
    "The",
    "yes",
    "no",
    "noanswer",
    "lune",
    "Lune",
    "1901",
    "x",
    "é",
    "–",
    "the–x",
    "'",
    ".",
    "_",
    "",
    "\t",
]


def test_random_answers_agree_with_the_naive_computation() -> None:
    draw = random.Random(0)
    partial = exact = 0
    for _ in range(20_000):
        prediction, gold = (draw.choice(["", " "]).join(draw.choices(PIECES, k=draw.randrange(1, 7))) for _ in "pg")
        ours = score_answer(prediction, gold)
        assert ours == pytest.approx(naive_answer(prediction, gold)), (prediction, gold)
        assert normalise(prediction) == " ".join(naive_tokens(prediction))
        partial += 0 < ours.f1 < 1
        exact += ours.em == 1
    assert partial > 1000 and exact > 200  # the strings are not all unlike each other


def test_random_supporting_facts_and_joint_scores_agree_with_the_naive_computation() -> None:
    draw = random.Random(1)
    for _ in range(5_000):
        predicted, gold = ([(draw.choice("AB"), draw.randrange(3)) for _ in range(draw.randrange(5))] for _ in "pg")
        p, g = sorted(set(predicted)), sorted(set(gold))
        supporting = score_supporting(predicted, gold)
        assert supporting == pytest.approx((float(p == g), *naive_overlap(list(p), list(g))))
        words = ["x", "y", "z", "yes"]
        answer = score_answer(" ".join(draw.choices(words, k=2)), " ".join(draw.choices(words, k=draw.randrange(1, 3))))
        both = joint(answer, supporting)
        product_p, product_r = answer[2] * supporting[2], answer[3] * supporting[3]
        f1 = 0.0 if product_p * product_r == 0 else 2 / (1 / product_p + 1 / product_r)
        assert both == pytest.approx(AnswerScores(answer.em * supporting.em, f1, product_p, product_r))
