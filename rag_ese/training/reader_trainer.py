"""Trains a reader: batches, loss, steps, held-out measurements and checkpoints; resumable at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from rag_ese.data.readings import Reading
from rag_ese.encoder.batching import batches
from rag_ese.errors import TrainingError
from rag_ese.progress import progress_bar
from rag_ese.reader.model import CLOSED, LONGEST, Inputs, ReaderModel, loss, span_of
from rag_ese.reader.rendering import Example
from rag_ese.reader.squad import score
from rag_ese.reader.windows import Cutter
from rag_ese.training.journal import Journal
from rag_ese.training.reader_config import ReaderTrainConfig
from rag_ese.training.reader_data import ReaderData
from rag_ese.training.state import load_state, save_state
from rag_ese.training.trainer import BEST, STATE, schedule

FROZEN = ("embeddings.word_embeddings", "embeddings.position_embeddings")
"""Parts of parameter names that stay as they are: what is shipped is smaller for it."""


class ReaderTrainer:
    """Trains `model` on `data`; everything random is a function of (seed, step)."""

    def __init__(
        self,
        config: ReaderTrainConfig,
        model: ReaderModel,
        data: ReaderData,
        cutter: Cutter,
        note: Callable[[str], None],
    ) -> None:
        self.config, self.model, self.data, self.cutter, self.note = config, model, data, cutter, note
        self.device = next(model.parameters()).device
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not any(part in name for part in FROZEN))
        self.trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
        groups = [("backbone.", config.lr), ("heads.", config.head_lr)]
        self.rates = [rate for _, rate in groups]
        self.optimizer = torch.optim.AdamW(
            [{"params": [each for name, each in self.trained.items() if name.startswith(part)]} for part, _ in groups],
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.held_out = data.held_out()
        self.counters: dict[str, Any] = {"step": 0, "best": None, "best_step": 0, "checks_without_progress": 0}

    def run(self) -> dict[str, Any]:
        """Trains to the end, or to where progress stops; the model then holds the best weights. Returns counters."""
        out, steps = self.config.out, len(self.data)
        if found := load_state(out / STATE, self.config.determining(), self.trained, self.optimizer):
            self.counters = found[0]
            self.note(f"going on from step {self.counters['step']} of {steps}")
        journal = Journal(out, self.counters["step"], tensorboard=False)
        try:
            with progress_bar("training", steps) as advance:
                advance(self.counters["step"])
                while self.counters["step"] < steps and not self._finished():
                    entry = self._step(self.counters["step"])
                    self.counters["step"] += 1
                    self._check(entry)
                    journal.write(self.counters["step"], entry)
                    if self.counters["step"] % self.config.save_every == 0:
                        self._save()
                    advance(1)
            self._save()
        finally:
            journal.close()
        if self.counters["best"] is not None and self.counters["best_step"] < self.counters["step"]:
            load_state(out / BEST, {}, self.trained, None)
        return self.counters

    def _step(self, step: int) -> dict[str, Any]:
        started = time.perf_counter()
        torch.manual_seed(self.config.seed * 1_000_003 + step)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * schedule(step, len(self.data), self.config.warmup)
        batch = self.data.batch(step)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = self._loss(batch)
        total.backward()  # type: ignore[no-untyped-call]
        value = float(total.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.config.clip)
        if not math.isfinite(value) or not math.isfinite(float(norm)):
            raise TrainingError(
                f"step {step + 1}: the loss is {value}, the gradient's norm {float(norm)}: the last good "
                f"checkpoint is in {self.config.out / STATE}; lower --lr, or look at the data"
            )
        self.optimizer.step()
        return {
            "loss": value,
            "lr": self.optimizer.param_groups[0]["lr"],
            "gradient_norm": float(norm),
            "windows": len(batch),
            "tokens": sum(len(example.window) for example in batch),
            "seconds": time.perf_counter() - started,
        }

    def _loss(self, examples: Sequence[Example]) -> torch.Tensor:
        spans, closed = self._scores(examples)
        return loss(spans, closed, [example.gold(spans.shape[1]) for example in examples])

    def _scores(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = Inputs.of([example.window for example in examples]).to(self.device)
        with self._precision():
            scores: tuple[torch.Tensor, torch.Tensor] = self.model(inputs)
        return scores

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    @torch.no_grad()
    def measure(self) -> dict[str, dict[str, float]]:
        """Loss, exact match and F1 of the held-out rows of every data set."""
        self.model.eval()
        return {name: self._measure(rows) for name, rows in self.held_out.items()}

    def _measure(self, rows: Sequence[tuple[Reading, Example]]) -> dict[str, float]:
        sums = {"loss": 0.0, "em": 0.0, "f1": 0.0}
        for places in batches([len(example.window) for _, example in rows], self.config.batch_tokens):
            examples = [rows[place][1] for place in places]
            spans, closed = self._scores(examples)
            gold = [example.gold(spans.shape[1]) for example in examples]
            sums["loss"] += len(places) * float(loss(spans, closed, gold))
            best = torch.cat([spans.flatten(1), closed], dim=1).argmax(1).tolist()
            for place, candidate in zip(places, best, strict=True):
                row, example = rows[place]
                said = answer_text(row, example, candidate, spans.shape[1], self.cutter)
                em, f1 = score(said, _right(row))
                sums["em"] += em
                sums["f1"] += f1
        return {name: value / len(rows) for name, value in sums.items()}

    def _check(self, entry: dict[str, Any]) -> None:
        step = self.counters["step"]
        if not self.held_out or (step % self.config.check_every and step != len(self.data)):
            return
        entry["held_out"] = measured = self.measure()
        value = sum(each["f1"] for each in measured.values()) / len(measured)
        if self.counters["best"] is None or value > self.counters["best"]:
            self.counters |= {"best": value, "best_step": step, "checks_without_progress": 0}
            save_state(self.config.out / BEST, {}, self.counters, self.trained, None, {})
        else:
            self.counters["checks_without_progress"] += 1
        each = ", ".join(f"{name.split('.')[0]} {scores['f1']:.3f}" for name, scores in measured.items())
        self.note(f"step {step} of {len(self.data)}: held-out F1 {value:.4f} ({each})")

    def _finished(self) -> bool:
        patience = self.config.patience
        return bool(patience and self.counters["checks_without_progress"] >= patience)

    def _save(self) -> None:
        folder, config = self.config.out / STATE, self.config.determining()
        save_state(folder, config, self.counters, self.trained, self.optimizer, {})


def answer_text(row: Reading, example: Example, candidate: int, length: int, cutter: Cutter) -> str:
    """What a candidate of a window that was padded to `length` says."""
    if candidate >= length * LONGEST:
        return CLOSED[candidate - length * LONGEST]
    passage, first, last = example.window.locate(*span_of(candidate))
    text = row.passages[passage].text
    tokens = cutter.tokens(text)
    return text[tokens.starts[first] : tokens.ends[last]]


def _right(row: Reading) -> list[str]:
    if row.closed:
        return [row.closed]
    return [row.passages[gold.passage].text[gold.start : gold.end] for gold in row.gold]
