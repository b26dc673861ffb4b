"""Stops a training whose loss grows without end, though every figure of it is still finite."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from benchmark.training.hooks import Record, read_curve

#: times the loss of the beginning, and steps in a row: no schedule here has come near, with warm-up or without
LIMIT, STEPS = 100.0, 10


@HOOKS.register_module()
class Divergence(Hook):
    """Compares the loss with that of the beginning; a training that goes on finds it in its curve.

    Raises:
        FloatingPointError: the loss was more than :data:`LIMIT` times that of the beginning :data:`STEPS` times in a
            row; what was saved before it grew is kept.
    """

    priority = "LOW"

    def before_train(self, runner) -> None:
        losses = [entry["loss"] for entry in read_curve(Path(runner.work_dir) / "curve.jsonl") if "loss" in entry]
        self.first = losses[0] if runner.iter and losses else None
        self.last: deque[float] = deque(maxlen=STEPS)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.last.append(outputs["loss"].item())
        if len(self.last) < STEPS:
            return
        if self.first is None:
            self.first = sum(self.last) / STEPS
        if min(self.last) > LIMIT * self.first:
            grown = f"{self.last[-1]:.3g}, {self.first:.3g} at first"
            raise Record.diverged(runner, data_batch, f"the loss diverges ({grown})")
