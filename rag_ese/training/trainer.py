"""The training loop: batches, loss, gradients, steps, held-out measurements, checkpoints; resumable at any step."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from rag_ese.encoder.elastic import Role
from rag_ese.errors import TrainingError
from rag_ese.objectives import BaseLoss, Objective
from rag_ese.progress import progress_bar
from rag_ese.training.columns import Plan, labels_of, text_columns
from rag_ese.training.config import TrainConfig
from rag_ese.training.gradient_cache import Loss, backward, sum_gradients
from rag_ese.training.journal import Journal
from rag_ese.training.mixture import Batch, Mixture
from rag_ese.training.state import load_state, save_state
from rag_ese.training.student import Student
from rag_ese.training.teacher import Teacher

STATE, BEST = "state", "best"


class Trainer:
    """Trains `student` on `mixture`; everything random is a function of (seed, step)."""

    def __init__(
        self,
        config: TrainConfig,
        student: Student,
        objective: Objective,
        base: BaseLoss,
        mixture: Mixture,
        held_out: Sequence[Batch],
        teacher: Teacher | None,
        note: Callable[[str], None],
    ) -> None:
        self.config = config
        self.student = student
        self.objective = objective
        self.base = base
        self.mixture = mixture
        self.held_out = held_out
        self.teacher = teacher
        self.note = note
        self.steps = config.steps or max(1, round(config.epochs * mixture.steps_per_epoch))
        self.layers = objective.layers(student.encoder.depth)
        self.limits: dict[Role, int] = {"query": config.query_tokens, "passage": config.passage_tokens}
        self.trained = student.trained()
        groups = [("backbone.", config.lr), ("heads.", config.head_lr)]
        self.rates = [rate for _, rate in groups]
        self.optimizer = torch.optim.AdamW(
            [{"params": _named(self.trained, part), "lr": rate} for part, rate in groups],
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
        )
        self.counters: dict[str, Any] = {"step": 0, "best": None, "best_step": 0, "checks_without_progress": 0}

    def run(self) -> dict[str, Any]:
        """Trains to the end, or to where progress stops; the student then holds the best weights. Returns counters."""
        out = self.config.out
        self._resume(out / STATE)
        journal = Journal(out, self.counters["step"], self.config.tensorboard) if _is_first() else None
        try:
            with progress_bar("training", self.steps) as advance:
                advance(self.counters["step"])
                while self.counters["step"] < self.steps and not self._finished():
                    entry = self._step(self.counters["step"])
                    self.counters["step"] += 1
                    self._check(entry)
                    if journal:
                        journal.write(self.counters["step"], entry)
                    if self.counters["step"] % self.config.save_every == 0:
                        self._save(out / STATE)
                    advance(1)
            self._save(out / STATE)
        except KeyboardInterrupt:
            self._save(out / STATE)
            raise
        finally:
            if journal:
                journal.close()
        if self.counters["best"] is not None and self.counters["best_step"] < self.counters["step"]:
            self._load(out / BEST, None)
        self.student.publish()
        return self.counters

    def _step(self, step: int) -> dict[str, Any]:
        started = time.perf_counter()
        torch.manual_seed(self.config.seed * 1_000_003 + step)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * schedule(step, self.steps, self.config.warmup)
        batch = self.mixture.batch(step)
        self.student.train(self.config.dropout)
        self.optimizer.zero_grad(set_to_none=True)
        parts, tokens = self._differentiate(batch, random.Random(f"{self.config.seed} {step}"))
        sum_gradients(list(self.trained.values()))
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.config.clip)
        loss = sum(parts.values())
        if not math.isfinite(loss) or not math.isfinite(float(norm)):
            bad = [name for name, value in parts.items() if not math.isfinite(value)] or ["the gradient"]
            raise TrainingError(
                f"step {step + 1}: {', '.join(bad[:3])} is not a finite number (data set {batch.name}): the last good "
                f"checkpoint is in {self.config.out / STATE}; lower --lr, or look at the data"
            )
        self.optimizer.step()
        seconds = time.perf_counter() - started
        return {
            "loss": loss,
            "parts": parts,
            "data": batch.name,
            "lr": self.optimizer.param_groups[0]["lr"],
            "gradient_norm": float(norm),
            "tokens": tokens,
            "seconds": seconds,
        }

    def _differentiate(self, batch: Batch, draw: random.Random) -> tuple[dict[str, float], int]:
        plan, loss = self._prepare(batch, draw)
        return backward(plan.embedders(self.student, self.layers), loss, self.config.gradient_cache), plan.tokens

    def _prepare(self, batch: Batch, draw: random.Random) -> tuple[Plan, Loss]:
        """What is embedded for a batch, and its loss as a function of the embeddings."""
        columns = text_columns(batch.rows, self.config.negatives, draw)
        plan = Plan(columns, self.student, self.limits, self.config.chunk_tokens)
        labels = labels_of(batch.rows, columns).to(self.student.encoder.device)
        targets = [self.teacher.embed(column.texts, column.role) for column in columns] if self.teacher else None
        base = self.base if batch.labelled else None
        return plan, lambda chunks: self.objective(plan.assemble(chunks), base, labels, draw, targets)

    @torch.no_grad()
    def measure(self) -> float:
        """The mean loss of the held-out batches, with the same draws every time."""
        self.student.train(False)
        total = 0.0
        for number, batch in enumerate(self.held_out):
            plan, loss = self._prepare(batch, random.Random(number))
            parts = loss([embed() for embed in plan.embedders(self.student, self.layers)])
            total += sum(float(part) for part in parts.values())
        return total / len(self.held_out)

    def _check(self, entry: dict[str, Any]) -> None:
        step = self.counters["step"]
        if not self.held_out or (step % self.config.check_every and step != self.steps):
            return
        entry["held_out"] = value = self.measure()
        if self.counters["best"] is None or value < self.counters["best"]:
            self.counters |= {"best": value, "best_step": step, "checks_without_progress": 0}
            if _is_first():
                save_state(self.config.out / BEST, {}, self.counters, self.trained, None, {})
        else:
            self.counters["checks_without_progress"] += 1
        self.note(f"step {step} of {self.steps}: held-out loss {value:.4f} (best {self.counters['best']:.4f})")

    def _finished(self) -> bool:
        patience = self.config.patience
        return bool(patience and self.counters["checks_without_progress"] >= patience)

    def _save(self, folder: Path) -> None:
        if _is_first():
            extra = self.objective.state_dict()
            save_state(folder, self.config.determining(), self.counters, self.trained, self.optimizer, extra)

    def _resume(self, folder: Path) -> None:
        if self._load(folder, self.optimizer):
            self.note(f"going on from step {self.counters['step']} of {self.steps}")

    def _load(self, folder: Path, optimizer: torch.optim.Optimizer | None) -> bool:
        config = self.config.determining() if optimizer else {}
        found = load_state(folder, config, self.trained, optimizer)
        if found and optimizer:
            self.counters, extra = found
            self.objective.load_state_dict(extra)
        return found is not None


def schedule(step: int, steps: int, warmup: float) -> float:
    """The share of the full learning rate at a step: a linear rise over `warmup` of the steps, then a cosine to 0."""
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise)))


def join_processes() -> str | None:
    """Joins the group that torchrun or accelerate launch started; the device of this process, None when alone."""
    import os

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if cuda else "cpu"


def _named(parameters: Mapping[str, nn.Parameter], part: str) -> list[nn.Parameter]:
    return [parameter for name, parameter in parameters.items() if name.startswith(part)]


def _is_first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0
