"""Where answers were found: examples for the report, the answer marked in its sentence."""

from __future__ import annotations

from rag_ese.eval.results import Results

SHOWN = 10


def markdown_evidence(results: Results) -> str:
    """The first questions as the reference row answers them; empty where its generator names no place."""
    system = next(system for system in results.systems if system.name == results.reference)
    lines: list[str] = []
    for question in results.questions:
        answer = system.answers.get(question.id)
        if answer and answer.evidence and len(lines) < SHOWN:
            found = answer.evidence
            lines.append(
                f"- {question.text} — {answer.text} (gold: {question.answer}; score {found.score:.2f})\n"
                f"  - {found.title}: {found.marked().strip()}"
            )
    return "\n".join(lines)
