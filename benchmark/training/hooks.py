"""What a training keeps: a record of its losses that survives a kill, and whole checkpoints."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from pgd.dense import reader_of


@HOOKS.register_module()
class Record(Hook):
    """Appends losses and AP to ``curve.jsonl`` in the work dir, and stops a training whose loss is not finite.

    After a resume, entries past the checkpoint are dropped first, so that no step stands twice.
    """

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval
        self._earlier = 0.0

    @property
    def seconds(self) -> float:
        """Spent in training and monitoring up to now, also by the processes that this one goes on from."""
        return self._earlier + time.perf_counter() - self._started

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        head = runner.model.student.bbox_head
        memory = {name: getattr(head, name) for name in reader_of(head).memory}
        checkpoint["meta"].update(train_seconds=self.seconds, head_memory=memory)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        self._earlier = checkpoint["meta"]["train_seconds"]
        for name, value in checkpoint["meta"]["head_memory"].items():
            setattr(runner.model.student.bbox_head, name, value)

    def before_train(self, runner) -> None:
        self._started = time.perf_counter()
        self.file = Path(runner.work_dir) / "curve.jsonl"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        kept = [e for e in read_curve(self.file) if e["step"] <= runner.iter] if runner.iter else []
        self.file.write_text("".join(json.dumps(e) + "\n" for e in kept))

    def append(self, entry: dict) -> None:
        """Add an entry; its key ``step`` says when."""
        with self.file.open("a") as out:
            out.write(json.dumps(entry) + "\n")

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        step = runner.iter + 1
        last = step == runner.max_iters
        if step % self.interval and not last and math.isfinite(outputs["loss"].item()):
            return
        losses = {k: v.item() for k, v in outputs.items() if k == "loss" or k.startswith("loss_")}
        bad = [k for k, v in losses.items() if not math.isfinite(v)]
        if bad:
            name = next((k for k in bad if k != "loss"), "loss")
            raise FloatingPointError(
                f"{runner.work_dir}: {name} is {losses[name]} at iteration {step}; training stopped"
            )
        rate = runner.optim_wrapper.get_lr()["lr"][0]
        self.append({"step": step, "lr": rate, **{k: round(v, 6) for k, v in losses.items()}})

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.append({"step": runner.iter, "AP": round(metrics["AP"], 3)})


def read_curve(path: Path) -> list[dict]:
    """The entries of a ``curve.jsonl``; a last line that was cut off by a kill is dropped."""
    entries = []
    if path.is_file():
        for line in path.read_text().splitlines():
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return entries


@register_backend("atomic", force=True)
class AtomicBackend(LocalBackend):
    """mmengine's local files, written beside their place and then moved there: a kill leaves no half checkpoint.

    Used where a config names it: ``CheckpointHook(backend_args={"backend": "atomic"})``.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        target = Path(filepath)
        partial = target.with_name(target.name + ".partial")
        super().put(obj, partial)
        partial.replace(target)
