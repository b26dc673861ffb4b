"""What a training keeps: a record of its losses that survives a kill, and whole checkpoints."""

from __future__ import annotations

import hashlib
import json
import math
import time
from pathlib import Path

import torch
from mmengine.dist import all_reduce_dict, broadcast_object_list, get_rank, get_world_size, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from benchmark.training.draws import dice
from pgd.checkpoint import written
from pgd.dense import reader_of
from pgd.distiller import Distiller

#: a curve has the losses of every so many steps, and of the last
INTERVAL = 10


def distiller(runner) -> Distiller:
    """What a runner trains, out of the wrapper of several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


@HOOKS.register_module()
class Record(Hook):
    """Appends losses and AP to ``curve.jsonl`` in the work dir, and stops a training whose loss is not finite.

    After a resume, entries past the checkpoint are dropped first, so that no step stands twice. Torch's random numbers
    of a step follow from seed and step alone: a training that goes on throws what it would have thrown. Of several
    processes the first one writes: means of their losses, and what its own head counts.
    """

    def __init__(self, interval: int = INTERVAL) -> None:
        self.interval = interval
        self._earlier = 0.0

    @property
    def seconds(self) -> float:
        """Spent in training and monitoring up to now, also by the processes that this one goes on from."""
        return self._earlier + time.perf_counter() - self._started

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        head = distiller(runner).student.bbox_head
        memory = {name: getattr(head, name) for name in reader_of(head).memory}
        checkpoint["meta"].update(train_seconds=self.seconds, head_memory=memory)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        self._earlier = checkpoint["meta"]["train_seconds"]
        for name, value in checkpoint["meta"]["head_memory"].items():
            setattr(distiller(runner).student.bbox_head, name, value)

    def before_train(self, runner) -> None:
        self._started = time.perf_counter()
        self.file = Path(runner.work_dir) / "curve.jsonl"
        kept = [e for e in read_curve(self.file) if e["step"] <= runner.iter] if runner.iter else []
        # what the first one reads, before it writes
        shared = [kept]
        broadcast_object_list(shared)
        kept = shared[0]
        if is_main_process():
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text("".join(json.dumps(e) + "\n" for e in kept), encoding="utf-8")
            if not runner.iter:
                initial_file(runner.work_dir).write_text(weights_digest(distiller(runner).student))
        if runner.iter and due(runner) and not any("AP" in e and e["step"] == runner.iter for e in kept):
            # it was killed between the checkpoint and the look at AP that follows
            runner.val_loop.run()

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        # alone, a training throws what it threw before there were others
        others = () if get_world_size() == 1 else (get_rank(),)
        torch.manual_seed(dice(runner.seed, runner.iter, *others))

    def append(self, entry: dict) -> None:
        """Add an entry; its key ``step`` says when."""
        if not is_main_process():
            return
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(entry) + "\n")

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        step = runner.iter + 1
        norm = gradient_norm(runner)
        # No wait for a GPU is added: mmengine has read the norm already. With AMP the scaler skips what is not finite.
        if norm is not None and not math.isfinite(norm) and not hasattr(runner.optim_wrapper, "loss_scaler"):
            raise self.diverged(runner, data_batch, f"the norm of the gradients is {norm}")
        last = step == runner.max_iters
        if step % self.interval and not last and math.isfinite(outputs["loss"].item()):
            return
        found = {k: v.detach() for k, v in outputs.items() if k == "loss" or k.startswith("loss_")}
        losses = {k: v.item() for k, v in found.items()}
        bad = [k for k, v in losses.items() if not math.isfinite(v)]
        if bad:
            name = next((k for k in bad if k != "loss"), "loss")
            raise self.diverged(runner, data_batch, f"{name} is {losses[name]}")
        if get_world_size() > 1:
            all_reduce_dict(found, op="mean")
            losses = {k: v.item() for k, v in found.items()}
        entry = {"step": step, "lr": runner.optim_wrapper.get_lr()["lr"][0]}
        if norm is not None:
            entry["grad_norm"] = round(norm, 4)
        self.append({**entry, **{k: round(v, 6) for k, v in losses.items()}})

    @staticmethod
    def diverged(runner, data_batch: dict, what: str) -> FloatingPointError:
        """The error of a training that cannot go on, with step and images."""
        images = ", ".join(str(sample.img_id) for sample in data_batch["data_samples"])
        return FloatingPointError(
            f"{runner.work_dir}: {what} at iteration {runner.iter + 1} (images {images}); training stopped, "
            "the checkpoint before is kept"
        )

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.append({"step": runner.iter, "AP": round(metrics["AP"], 3)})


def gradient_norm(runner) -> float | None:
    """Of the last update, before it was clipped; None where nothing is clipped, or was yet."""
    found = runner.message_hub.log_scalars.get("train/grad_norm")
    return None if found is None else found.current()


def due(runner) -> bool:
    """Whether the training looks at AP after the step that it has just done."""
    # loops over epochs evaluate after whole ones, and their checkpoints stand there too
    loop, length = runner.train_loop, len(runner.train_dataloader)
    steps = loop.val_interval * (length if isinstance(loop, EpochBasedTrainLoop) else 1)
    return runner.iter % steps == 0


def initial_file(work_dir: str | Path) -> Path:
    """Keeps the digest of the student's weights before the first step."""
    return Path(work_dir) / "initial"


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of what a model learns; buffers such as batch norm's means move without it."""
    found = hashlib.sha256()
    for value in model.parameters():
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def require_change(label: str, work_dir: Path, student: nn.Module) -> None:
    """A training that left its student as it was has failed, whatever its losses say."""
    if initial_file(work_dir).read_text() == weights_digest(student):
        raise FloatingPointError(
            f"{label}: the student's weights are what they were before the first step; is the learning rate 0?"
        )


def read_curve(path: Path) -> list[dict]:
    """The entries of a ``curve.jsonl``; a last line that was cut off by a kill is dropped."""
    entries = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
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
        with written(Path(filepath)) as partial:
            super().put(obj, partial)
