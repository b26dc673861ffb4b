"""What an experiment would take: operations, steps, GPU hours, memory, disk, money, what is missing. Trains nothing.

Operations (:mod:`benchmark.experiment.operations`) are forward and backward of the student, forward of the teacher. Not
counted are losses, assignment and a method's own terms, for which a run with a method is charged :data:`OVERHEAD`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from benchmark.data.manifest import parts_of
from benchmark.experiment.config import DatasetInfo, detector_config
from benchmark.experiment.image_size import set_image_size
from benchmark.experiment.operations import Work, work_of
from benchmark.experiment.pretrained import cache, remote_of
from benchmark.experiment.settings import Dataset, Job, Params
from benchmark.experiment.workspace import HERE, Workspace

#: Of a step with a method by one of student and teacher alone: 1.07 to 1.33 were measured on an H100 (README).
OVERHEAD = 1.2
#: Width by height of the images that stand for a data set: most photographs of COCO are 640 x 480.
ASPECT = 4 / 3
#: images that are trained on (those with annotations) and validated on, and bytes on the disk, unpacked
KNOWN = {
    "coco": (117_266, 5_000, 21.0e9),
    "crowdhuman": (15_000, 4_370, 11.0e9),
    "minicoco": (2_000, 500, 2.5e7),
    "midicoco": (6_000, 1_000, 7.5e7),
    "minicrowd": (800, 300, 1.5e7),
}
#: bytes of a box in a file of detections
BOX = 110


@dataclass(frozen=True)
class Row:
    """One training and its evaluation; None: not known before the data are there."""

    name: str
    pair: str
    teacher: bool
    work: Work
    #: operations for each training image: with backward, and with the teacher's
    per_image: float
    images: int | None
    steps: int | None
    gpu_hours: float | None
    #: that it trains on together
    gpus: int
    #: bytes of a GPU's memory, in single precision
    memory: float
    #: bytes that stay, and those of the checkpoints while it trains
    disk: float
    scratch: float


@dataclass(frozen=True)
class Budget:
    """All trainings of an experiment."""

    rows: tuple[Row, ...]
    #: bytes
    data: float
    #: a sentence each
    missing: tuple[str, ...]

    @property
    def unknown(self) -> int:
        """How many trainings take nobody knows how long, as their data are not there."""
        return sum(row.gpu_hours is None for row in self.rows)

    @property
    def gpu_hours(self) -> float:
        """Of the trainings that are known."""
        return sum(row.gpu_hours or 0.0 for row in self.rows)

    def disk(self, gpus: int) -> float:
        """Bytes at the most: data, what stays, and the checkpoints of as many trainings as run at once."""
        scratch = sorted((row.scratch for row in self.rows), reverse=True)[:gpus]
        return self.data + sum(row.disk for row in self.rows) + sum(scratch)

    def wall_hours(self, gpus: int) -> float:
        """Students wait for their own teacher; more GPUs for a training lose nothing."""
        return makespan([Share(row.gpu_hours or 0.0, row.gpus, row.pair, row.teacher) for row in self.rows], gpus)


class Share(NamedTuple):
    """What a training asks of the GPUs."""

    #: GPU hours
    hours: float
    #: that share them; all there are, where it wants more
    gpus: int
    #: students of a pair wait for its teacher, where it has one
    pair: str = ""
    teacher: bool = False


def makespan(trainings: Iterable[Share], gpus: int) -> float:
    """Hours until the last is done: teachers have the first choice, then whoever may begin first.

    Of several the longest, where a teacher counts with the longest of its students.
    """
    free, ready, waiting = [0.0] * gpus, {}, list(trainings)
    hours = {own: own.hours / min(own.gpus, gpus) for own in waiting}
    taught = {own.pair for own in waiting if own.teacher}
    behind = dict.fromkeys(taught, 0.0)
    for own in waiting:
        if not own.teacher and own.pair in taught:
            behind[own.pair] = max(behind[own.pair], hours[own])

    def begins(own: Share) -> float:
        if not own.teacher and own.pair in taught and own.pair not in ready:
            return math.inf
        return max(free[min(own.gpus, gpus) - 1], 0.0 if own.teacher else ready.get(own.pair, 0.0))

    def order(own: Share) -> tuple[bool, float, float]:
        return not own.teacher, begins(own), -hours[own] - (behind[own.pair] if own.teacher else 0.0)

    while waiting:
        free.sort()
        chosen = min(waiting, key=order)
        waiting.remove(chosen)
        taken = min(chosen.gpus, gpus)
        end = begins(chosen) + hours[chosen]
        free[:taken] = [end] * taken
        if chosen.teacher:
            ready[chosen.pair] = end
    return max(free)


def image_size(pipeline: Sequence[dict], divisor: int) -> tuple[int, int] | None:
    """(height, width) in pixels of an image of :data:`ASPECT` behind a pipeline, padded; None: it resizes none."""
    for part in pipeline:
        if part["type"] not in ("Resize", "RandomResize") or "scale" not in part:
            continue
        # of a range the middle
        scales = part["scale"] if isinstance(part["scale"][0], list | tuple) else [part["scale"]]
        long, short = (sum(max(s) for s in scales) / len(scales), sum(min(s) for s in scales) / len(scales))
        factor = min(long / ASPECT, short)
        return tuple(math.ceil(round(side) / divisor) * divisor for side in (factor, factor * ASPECT))
    return None


def size_of(cfg: Config) -> tuple[int, int]:
    """(height, width) of a training image; where training resizes none, they have the size that the test asks for."""
    divisor = cfg.model.data_preprocessor.get("pad_size_divisor", 1)
    if size := image_size(cfg.train_dataloader.dataset.pipeline, divisor):
        return size
    resize = next(part for part in cfg.val_dataloader.dataset.pipeline if part["type"] == "Resize")
    return resize["scale"][1], resize["scale"][0]


@dataclass(frozen=True)
class Images:
    """How many a data set has; None: not known before it is there."""

    train: int | None
    val: int | None
    classes: int | None
    #: what every config scales them to; None: each as it says
    scale: tuple[int, int] | None = None


def images_of(name: str, settings: Dataset, space: Workspace = HERE) -> Images:
    """As `prepare` found them, else as they are known."""
    if space.dataset(name).is_file():
        data = DatasetInfo.load(name, space)
        train, val = (
            json.loads(Path(p).read_text(encoding="utf-8")) for p in (data.train_annotations, data.val_annotations)
        )
        seen = {entry["image_id"] for entry in train["annotations"]}
        return Images(len(seen), len(val["images"]), len(data.classes), settings.image_size)
    train, val, _ = KNOWN.get(settings.kind, (None, None, 0)) if settings.layout is None else (None, None, 0)
    limits = (settings.train_images, settings.val_images)
    counts = [min(count, limit or count) if count else limit for count, limit in zip((train, val), limits, strict=True)]
    return Images(*counts, None, settings.image_size)


def steps_of(cfg: Config, images: int | None, gpus: int = 1) -> int | None:
    """Of the optimiser."""
    if (iterations := cfg.train_cfg.get("max_iters")) is not None:
        return iterations
    return images and cfg.train_cfg.max_epochs * math.ceil(images / (cfg.train_dataloader.batch_size * gpus))


def row_of(job: Job, data: Images, speed: float) -> Row:
    """What a training takes.

    Args:
        job: the training.
        data: its images.
        speed: operations a second that a GPU keeps up.
    """
    cfg = detector_config(job.detector, job.options)
    set_image_size(cfg, job.pair.dataset, data.scale)
    work = work_of(cfg, data.classes, size_of(cfg))
    gpus = job.detector.gpus
    per_image, batch, beside = work.step, cfg.train_dataloader.batch_size * gpus, 0
    if job.run is not None and job.run.method != "none":
        teacher = detector_config(job.pair.teacher)
        # it sees the student's images
        taught_by = work_of(teacher, data.classes, size_of(cfg))
        per_image, beside = OVERHEAD * (per_image + taught_by.forward), 4 * taught_by.parameters
    steps = 0 if job.run is None and job.pair.teacher.checkpoint else steps_of(cfg, data.train, gpus)
    images = None if steps is None else steps * batch
    known = images is not None and data.val is not None
    hours = (images * per_image + data.val * work.forward) / speed / 3600 if known else None
    boxes = cfg.model.test_cfg.get("max_per_img", 100) * (data.val or 0)
    # the optimiser keeps one number for each weight, Adam two; two checkpoints are kept
    states = 2 if cfg.optim_wrapper.optimizer.type.startswith("Adam") else 1
    # in work/ and in DVC's cache
    disk = 2 * (4 * work.parameters + BOX * boxes)
    scratch = 2 * 4 * work.parameters * (1 + states) if steps else 0
    memory = work.memory(cfg.train_dataloader.batch_size, states) + beside
    named = job.label, job.pair_name, job.run is None
    return Row(*named, work, per_image, images, steps, hours, gpus, memory, disk, scratch)


def missing_of(params: Params, space: Workspace = HERE) -> list[str]:
    """What has to be fetched before the experiment can run."""
    found = []
    for name, settings in params.datasets.items():
        if gone := [str(path) for part in parts_of(settings) for path in part if not path.exists()]:
            fetch = f"; `python -m benchmark.fetch {settings.kind} --root {settings.root}`"
            found.append(f"{name}: {len(gone)} files and folders are not there (first: {gone[0]}){fetch}")
    needed: dict[str, bool] = {}
    for pair in params.pairs.values():
        for detector in (pair.teacher, pair.student):
            given = getattr(detector, "checkpoint", None)
            init = detector_config(detector).model.backbone.get("init_cfg") or {}
            source = given or init.get("checkpoint")
            needed |= {source: given is not None} if source else {}
    for source, given in needed.items():
        if "://" not in source:
            if not Path(source).is_file():
                found.append(f"{source}: not there; `dvc pull data` fetches backbones of the mini sets")
        elif given:
            if not (space.work / "downloads" / source.rpartition("/")[2]).is_file():
                found.append(f"{source}: downloaded by the stage `teacher`")
        elif not (cache() / remote_of(source).name).is_file():
            found.append(f"{source}: downloaded by the first training that needs it, into {cache()}")
    return found


def budget(params: Params, throughput: float, space: Workspace = HERE) -> Budget:
    """What all trainings of an experiment take.

    Args:
        params: the experiment.
        throughput: training images a second that one GPU does of the first pair's student without a teacher.
        space: where prepared data are found, if there are any.
    """
    data = {name: images_of(name, settings, space) for name, settings in params.datasets.items()}
    first = next(iter(params.pairs.values()))
    cfg = detector_config(first.student)
    set_image_size(cfg, first.dataset, data[first.dataset].scale)
    speed = throughput * work_of(cfg, data[first.dataset].classes, size_of(cfg)).step
    rows = tuple(row_of(job, data[job.pair.dataset], speed) for job in params.jobs)
    size = sum(KNOWN.get(settings.kind, (0, 0, 0.0))[2] for settings in params.datasets.values())
    return Budget(rows, size, tuple(missing_of(params, space)))
