from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from rag_ese.generator import ExtractiveReader, Prompt
from rag_ese.generator.question_type import Kind, direction_of, kind_of
from rag_ese.generator.spans import first_date, numbers, spans
from rag_ese.types import Answer

Ask = Callable[..., Prompt]


def answer(prompt: Prompt) -> Answer:
    return ExtractiveReader().generate([prompt])[0]


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Are Ann Lee and Bo Ray both singers?", Kind.YES_NO),
        ("Who is older, Ann Lee or Bo Ray?", Kind.CHOICE),
        ("Is the main base the Kinshasa Airport or Tbilisi International?", Kind.CHOICE),
        ("Between Ann Lee and Bo Ray, who wrote more?", Kind.CHOICE),
        ("What do opera and oratorio have in common?", Kind.SHARED),
        ("In which year was the band formed?", Kind.YEAR),
        ("When was the band formed?", Kind.DATE),
        ("How many members has the band?", Kind.NUMBER),
        ("Who directed the film?", Kind.PERSON),
        ("Which French composer wrote it?", Kind.PERSON),
        ("Where does the river rise?", Kind.PLACE),
        ("In what city is the stadium?", Kind.PLACE),
        ("What is the name of the show?", Kind.OTHER),
    ],
)
def test_question_kinds(question: str, kind: Kind) -> None:
    assert kind_of(question) is kind


def test_directions() -> None:
    assert direction_of("Who was born first, A or B?") == (-1, "year")
    assert direction_of("Which is newer, A or B?") == (1, "year")
    assert direction_of("Which river is longer, A or B?") == (1, "number")
    assert direction_of("Which town has fewer people, A or B?") == (-1, "number")
    assert direction_of("Which singer is Swiss, A or B?") is None


def test_spans() -> None:
    text = 'On 3 May 1990 Jean de la Cruz sold 2.5 million copies of "Low Tide" in Old Bay.'
    assert [(span.text, span.kind, span.start) for span in spans(text)][:-1] == [
        ("3 May 1990", "date", 1),
        ("Jean de la Cruz", "name", 4),
        ("2.5 million", "number", 9),
        ("Low Tide", "quoted", 14),
    ]
    assert first_date("born May 3, 1990 in Rome") == (1990, 5, 3)
    assert first_date("no date at all") is None
    assert numbers("It has 1,250 rooms, 2.5 million guests and opened in 1990.") == [1250.0, 2_500_000.0]


def test_person(ask: Ask) -> None:
    prompt = ask(
        "Who directed the film Silver Harbour?",
        {"Silver Harbour": "Silver Harbour is a 1950 film.| It was directed by Maria Holm."},
        Quarry="Quarry is a village.",
    )
    got = answer(prompt)
    assert got.text == "Maria Holm"
    assert got.supporting_facts is not None
    assert ("Silver Harbour", 1) in got.supporting_facts


def test_bridge_follows_a_title(ask: Ask) -> None:
    prompt = ask(
        "In what year was the director of Silver Harbour born?",
        {
            "Oak Street": "Oak Street was born as a market in 1811.",
            "Maria Holm": "Maria Holm was a painter (born 1902).",
            "Silver Harbour": "The director of Silver Harbour is Maria Holm.",
        },
    )
    got = answer(prompt)
    assert got.text == "1902"
    assert got.supporting_facts == (("Maria Holm", 0), ("Silver Harbour", 0))


def test_year_is_taken_from_a_date_and_number_and_date(ask: Ask) -> None:
    text = "The Low Bridge opened on 4 June 1931 and has 12 arches."
    assert answer(ask("In what year did the Low Bridge open?", Low=text)).text == "1931"
    assert answer(ask("When did the Low Bridge open?", Low=text)).text == "4 June 1931"
    assert answer(ask("How many arches has the Low Bridge?", Low=text)).text == "12"


LIVES = {
    "Bo Ray": "Bo Ray (born 3 March 1950) is a Danish singer.",
    "Ann Lee": "Ann Lee (born 9 March 1950) is a Danish painter.",
}


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Who was born first, Ann Lee or Bo Ray?", "Bo Ray"),
        ("Who is younger, Ann Lee or Bo Ray?", "Ann Lee"),
        ("Who is a painter, Bo Ray or Ann Lee?", "Ann Lee"),
        ("Are Ann Lee and Bo Ray both singers?", "no"),
        ("Are Ann Lee and Bo Ray both Danish?", "yes"),
        ("Are Ann Lee and Bo Ray of the same nationality?", "yes"),
        ("Was Bo Ray born before Ann Lee?", "yes"),
        ("What do Ann Lee and Bo Ray have in common?", "Danish"),
    ],
)
def test_comparison(ask: Ask, question: str, expected: str) -> None:
    got = answer(ask(question, LIVES))
    assert got.text == expected
    assert set(got.supporting_facts or ()) == {("Ann Lee", 0), ("Bo Ray", 0)}


def test_comparison_of_numbers_spells_the_option_as_the_question(ask: Ask) -> None:
    rivers = {"Ousel (river)": "The Ousel is 320 km long.", "Tarn Water": "Tarn Water is 45 km long."}
    assert answer(ask("Which is longer, the ousel or Tarn Water?", rivers)).text == "ousel"
    assert answer(ask("Which is shorter, the ousel or Tarn Water?", rivers)).text == "Tarn Water"


def test_the_answer_is_not_already_in_the_question(ask: Ask) -> None:
    got = answer(ask("Who sang with Ann Lee in Oslo?", Oslo="Ann Lee sang in Oslo with Carl Moe."))
    assert got.text == "Carl Moe"


def test_no_passages_and_empty_passages_and_no_spans(ask: Ask) -> None:
    assert answer(ask("Who?")) == Answer("", ())
    assert answer(Prompt("Who?", ())).text == ""
    assert answer(ask("Who sings?", moss="moss grows slowly.")).text == "moss"


def test_deterministic_across_processes() -> None:
    code = (
        "from rag_ese.generator import ExtractiveReader, Prompt\n"
        "from rag_ese.types import Passage\n"
        "words = [f'Town {chr(65 + n)}x lies near rivers lakes hills and coast' for n in range(20)]\n"
        "prompt = Prompt('Which place lies near hills, coast, lakes and rivers?', (Passage('Map', tuple(words)),))\n"
        "reader = ExtractiveReader()\n"
        "print(reader.fingerprint, reader.generate([prompt]))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_fingerprint_and_progress(ask: Ask) -> None:
    seen: list[int] = []
    reader = ExtractiveReader()
    assert len(reader.generate([ask("Who?"), ask("Where?")], seen.append)) == 2
    assert seen == [1, 2]
    assert reader.fingerprint.startswith("rules code=")
