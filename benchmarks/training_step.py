"""What a multi-layer objective costs over a plain fine-tune, and what bounds the memory of a large batch.

    python benchmarks/training_step.py --data squad_train_26k.jsonl.gz

Each contender is a run of `python -m rag_ese.train` in a process of its own, on the same batches (same data, seed and
batch size); contenders take turns, for several rounds. Tokens per second are medians over the steps of all rounds but
each run's first, memory is the peak of the process, Python and model included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from pydantic import Field
from rich.console import Console
from rich.table import Table

from rag_ese.cli import Command, run
from rag_ese.config import StrictModel
from rag_ese.errors import TrainingError

CONTENDERS: dict[str, list[str]] = {
    "raw-ft, the plain fine-tune": ["--objective", "raw-ft"],
    "mrl, 5 widths": ["--objective", "mrl"],
    "2dmse": ["--objective", "2dmse"],
    "ese, 6 layers x 5 widths, no teacher": ["--objective", "ese", "--teacher", ""],
    "ese with a teacher": ["--objective", "ese"],
}
CACHED = ["--objective", "raw-ft", "--gradient-cache", "--chunk-tokens"]


class StepConfig(StrictModel):
    """What the runs train on, and how long."""

    data: Path = Field(description="question-passage pairs, JSONL")
    model: str = Field("embedded", description="the model that every run starts from")
    batch_size: int = Field(64, ge=2, description="pairs per step")
    large: int = Field(256, ge=2, description="pairs per step where the memory of a large batch is measured")
    steps: int = Field(6, ge=2, description="steps per run")
    rounds: int = Field(2, ge=1, description="turns per contender")
    precision: str = Field("bfloat16", description="of the blocks")


def main(config: StepConfig) -> None:
    runs = {**CONTENDERS, **_memory_runs(config)}
    rates: dict[str, list[float]] = {name: [] for name in runs}
    peaks: dict[str, float] = {}
    for number in range(config.rounds):
        for name, options in runs.items():
            if number and name not in CONTENDERS:
                continue
            found, peak = _run(config, options)
            rates[name] += found
            peaks[name] = max(peak, peaks.get(name, 0.0))
    plain = median(rates[next(iter(CONTENDERS))])
    table = Table(title=f"{config.model}, {config.batch_size} pairs a step, {config.precision}, {os.cpu_count()} cores")
    for column in ("run", "tokens/s", "time against plain", "peak memory"):
        table.add_column(column, justify="left" if column == "run" else "right")
    for name, found in rates.items():
        table.add_row(name, f"{median(found):,.0f}", f"{plain / median(found):.2f}x", f"{peaks[name]:.2f} GB")
    Console().print(table)


def _memory_runs(config: StepConfig) -> dict[str, list[str]]:
    large = ["--batch-size", str(config.large)]
    return {
        f"raw-ft, {config.large} pairs at once": ["--objective", "raw-ft", *large],
        f"raw-ft, {config.large} pairs, cached, chunks of 8192 tokens": [*CACHED, "8192", *large],
        f"raw-ft, {config.large} pairs, cached, chunks of 2048 tokens": [*CACHED, "2048", *large],
    }


def _run(config: StepConfig, options: list[str]) -> tuple[list[float], float]:
    """Tokens per second of every step but the first, and the peak resident memory in GB, of one run."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "rag_ese.train", "--data", str(config.data), "--model", config.model]
        command += ["--steps", str(config.steps), "--held-out", "0", "--precision", config.precision, "--out", str(out)]
        if "--batch-size" not in options:
            command += ["--batch-size", str(config.batch_size)]
        with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            said = process.stderr.read().decode()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise TrainingError(f"{' '.join(options)} ended with {process.returncode}: {said.strip()}")
        steps = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        timed = [step for step in steps if "seconds" in step][1:]
        return [step["tokens"] / step["seconds"] for step in timed], usage.ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    run("benchmarks/training_step.py", {"": Command(StepConfig, main, "cost of a training step")})
