"""What MasKD learns on a teacher before it teaches: masks, by the teacher's own losses on what it sees through them.

The stage `match` asks for it where a run of the pair needs it, once for all its students. ``work/masks/<pair>`` then
holds ``masks.pth`` and ``masks.json``: what they depend on and what they took. It belongs to no stage, as
``work/checkpoints``; the digest of the masks is part of what those runs depend on, so that other masks train them anew.
Minutes at full scale: what is killed begins anew.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

import benchmark.training.draws  # noqa: F401  registers what trainings draw by
import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.experiment.config import SCALES, training_config
from benchmark.experiment.digest import BESIDE_TRAINING, closure
from benchmark.experiment.settings import Job
from benchmark.experiment.workspace import Workspace, file_digest, locked
from benchmark.match import LEARNER, basis
from benchmark.train import planned_data, repeat_on_gpus
from benchmark.training.usage import machine, peak_memory_mb
from pgd.checkpoint import atomic_save, load_strict
from pgd.dense import reader_of
from pgd.methods.maskd import Masks
from pgd.scaling import scaled

#: at full scale
ITERATIONS = 2000
RATE, LAST_RATE, DECAY = 0.01, 1e-6, 0.001


def iterations(cfg: Config) -> int:
    """How long the masks of a teacher with this training are learned: by its scale, and no longer than the teacher."""
    size = SCALES[cfg.get("scale", "full")]
    found = scaled({"iterations": ITERATIONS}, {"iterations": {"warmup": 1}}, size)["iterations"]
    return min(found, cfg.train_cfg.get("max_iters") or found)


def freeze(teacher: nn.Module) -> None:
    """Let a detector train as it does, heads that work otherwise in tests included, but leave all of it as it is."""
    teacher.train().requires_grad_(False)
    for module in teacher.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def learn(teacher: nn.Module, batches: Iterator[tuple[Tensor, list]], count: int) -> tuple[nn.ModuleList, list[dict]]:
    """Learn a teacher's masks in ``count`` iterations.

    Args:
        teacher: an mmdet detector with a neck; nothing of it changes but that it is in training mode.
        batches: preprocessed images ``[N, 3, H, W]`` and their data samples.
        count: iterations.

    Returns:
        :class:`~pgd.methods.maskd.Masks` level by level, and the losses ``detection`` and ``overlap`` of the first and
        of the last iteration.

    Raises:
        FloatingPointError: they came to nothing.
    """
    freeze(teacher)
    device = next(teacher.parameters()).device
    masks = nn.ModuleList(Masks(teacher.neck.out_channels) for _ in reader_of(teacher.bbox_head).strides).to(device)
    optimizer = torch.optim.Adam(masks.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, count, eta_min=LAST_RATE)
    overlaps: list[Tensor] = []

    def see_through(neck: nn.Module, given: tuple, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen, overlaps[:] = zip(*(own(level) for own, level in zip(masks, features, strict=True)), strict=True)
        return seen

    course = []
    hook = teacher.neck.register_forward_hook(see_through)
    try:
        for step in tqdm(range(count), desc="masks of the teacher", mininterval=5, leave=False):
            detection, _ = teacher.parse_losses(teacher.loss(*next(batches)))
            overlap = sum(overlaps)
            optimizer.zero_grad()
            (detection + overlap).backward()
            optimizer.step()
            schedule.step()
            if step in (0, count - 1):
                course.append({"detection": round(detection.item(), 4), "overlap": round(overlap.item(), 4)})
    finally:
        hook.remove()
    if not all(bool(p.isfinite().all()) for p in masks.parameters()):
        raise FloatingPointError(
            f"the masks are not finite after {count} iterations (losses first and last: {course}); take a teacher "
            "whose own losses are finite on these images"
        )
    return masks, course


def batches_of(cfg: Config, seed: int, device: torch.device) -> Iterator[tuple[Tensor, list]]:
    """The batches of a training, one after the other without end, as its model gets them."""
    preprocess = MODELS.build(cfg.model.data_preprocessor).to(device)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=seed)
    for epoch in itertools.count():
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            data = preprocess(batch, True)
            yield data["inputs"], data["data_samples"]


def depends(teacher: Job, space: Workspace, count: int) -> dict:
    """What the masks of a teacher follow from: its weights, its training's config and data, the code, and for how many
    iterations they are learned."""
    plan = json.loads(basis(teacher, space).read_text(encoding="utf-8"))
    # of the detector; how it was trained is in its weights
    detector = {name: digest for name, digest in plan["code"].items() if not name.startswith("benchmark.")}
    return {
        "teacher": file_digest(space.teacher(teacher.pair_name) / "weights.pth"),
        **{key: plan[key] for key in ("data", "config", "libraries")},
        "code": detector | closure({LEARNER}, BESIDE_TRAINING),
        "iterations": count,
    }


def learned(job: Job, space: Workspace) -> Path:
    """The file with the masks of the teacher of a run, learned if need be."""
    folder = space.masks(job.pair_name)
    # another run of the same teacher may be at it
    with locked(folder):
        return _learned(job, folder, space)


def _learned(job: Job, folder: Path, space: Workspace) -> Path:
    own = job.of_teacher
    data, started = planned_data(own, space), time.perf_counter()
    init_default_scope("mmdet")
    cfg = training_config(own, data, None, folder)
    count = iterations(cfg)
    weights, record, known = folder / "masks.pth", folder / "masks.json", depends(own, space, count)
    if weights.is_file() and record.is_file():
        found = json.loads(record.read_text(encoding="utf-8"))
        if found["depends"] == known and found["sha256"] == file_digest(weights):
            return weights
    repeat_on_gpus()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = MODELS.build(cfg.model.student).to(device)
    load_strict(teacher, space.teacher(job.pair_name) / "weights.pth", "teacher")
    torch.manual_seed(own.seed)
    masks, course = learn(teacher, batches_of(cfg, own.seed, device), count)
    atomic_save({"state_dict": {name: value.cpu() for name, value in masks.state_dict().items()}}, weights)
    found = {
        "depends": known,
        "sha256": file_digest(weights),
        "iterations": count,
        "seconds": round(time.perf_counter() - started, 1),
        "parameters": sum(p.numel() for p in masks.parameters()),
        "peak_memory_mb": round(peak_memory_mb()),
        "losses": course,
        "environment": machine(),
    }
    record.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"{own.label}: masks learned in {count} iterations, {found['seconds']:.0f} s")
    return weights
