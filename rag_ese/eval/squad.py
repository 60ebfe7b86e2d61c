"""The trained reader on SQuAD 1.1: `python -m rag_ese.eval squad --data dev-v1.1.json.gz`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from rag_ese.config import StrictModel
from rag_ese.data.squad import read_squad
from rag_ese.errors import disk_errors
from rag_ese.generator import Prompt
from rag_ese.progress import progress_bar


class SquadConfig(StrictModel):
    """What is read, and by which reader."""

    data: Path = Field(description="SQuAD 1.1's official file, such as dev-v1.1.json.gz")
    reader: str = Field("", description="folder of a trained reader (default: the one that comes with the package)")
    device: str = Field("auto", description="auto, cpu, cuda or mps")
    limit: int | None = Field(None, ge=1, description="the first questions only")
    predictions: Path | None = Field(None, description="JSON file for the answers, as the official script reads them")
    as_json: bool = Field(False, alias="json", description="print the results as JSON instead of a sentence")


def evaluate(config: SquadConfig) -> dict[str, Any]:
    """EM and F1 in points of 100, the number of questions, and seconds."""
    from rag_ese.reader.squad import score
    from rag_ese.reader.trained import TrainedReader

    questions = read_squad(config.data)[: config.limit]
    reader = TrainedReader(Path(config.reader) if config.reader else None, config.device, pairs=0, closed=False)
    started = time.perf_counter()
    with progress_bar("reading", len(questions)) as advance:
        prompts = [Prompt(question.text, (question.passage,)) for question in questions]
        answers = reader.generate(prompts, lambda _: advance(1))
    seconds = time.perf_counter() - started
    if config.predictions:
        given = {question.id: answer.text for question, answer in zip(questions, answers, strict=True)}
        with disk_errors("writing", config.predictions):
            config.predictions.write_text(json.dumps(given, ensure_ascii=False), encoding="utf-8")
    scores = [score(answer.text, question.answers) for question, answer in zip(questions, answers, strict=True)]
    em, f1 = (100 * np.mean(scores, axis=0)).tolist()
    return {"exact_match": em, "f1": f1, "questions": len(questions), "seconds": seconds}


def sentence(results: dict[str, Any]) -> str:
    rate = results["questions"] / results["seconds"]
    return (
        f"EM {results['exact_match']:.2f}, F1 {results['f1']:.2f} of 100 on {results['questions']:,} questions, "
        f"{rate:.1f} questions per second"
    )
