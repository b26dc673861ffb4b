"""From settings to the mmengine config of one training or evaluation."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config

from benchmark.experiment.image_size import check_image_sizes, set_image_size
from benchmark.experiment.names import hint, wrong_kind
from benchmark.experiment.settings import Detector, Job, SettingsError
from benchmark.experiment.workspace import HERE, ROOT, Workspace
from pgd.inputs import other_input
from pgd.scaling import FULL, Size, published_settings

#: validation images looked at while training, for the curve; the table's figures come from the whole set
MONITOR_IMAGES = 75
MONITOR_POINTS = 4
#: steps between two checkpoints of schedules in epochs, which are those at full scale
LONG = 1000
#: What settings of methods depend on in the configs of benchmark/configs/mini: 160 x 160 on five levels.
MINI = Size(channels=32, positions=538, cells=4, blocks=2, warmup=40)
#: In those of benchmark/configs/real: 256 x 192, the photographs of a 4 : 3 camera, in two widths.
PHOTOS = replace(MINI, positions=1024)
PHOTOS_WIDE = replace(PHOTOS, channels=64)
#: which of benchmark/training/draws.py takes the place of mmengine's sampler in trainings
DRAWS = {"DefaultSampler": "EpochDraws", "InfiniteSampler": "EndlessDraws"}
#: whose sampler and loop serve epochs of batches that are grouped
GROUPED = "benchmark.training.grouped"
#: by what configs call their ``scale``
SCALES = {"full": FULL, "mini": MINI, "photos": PHOTOS, "photos_wide": PHOTOS_WIDE}

#: entries of :class:`DatasetInfo` that are paths
PATHS = ("train_images", "train_annotations", "val_images", "val_annotations", "val_odgt")


@dataclass(frozen=True)
class DatasetInfo:
    """What `prepare` found: a COCO-format set, by path."""

    name: str
    classes: list[str]
    train_images: str
    train_annotations: str
    val_images: str
    val_annotations: str
    #: bounds of small and medium objects in pixels^2
    areas: list[float]
    #: SHA-256 of what the figures depend on: annotations, and the archive where there is one
    digest: str
    #: ``coco`` or ``crowdhuman``
    metric: str = "coco"
    #: CrowdHuman's own annotations of the validation images, which its metric reads
    val_odgt: str | None = None
    #: how much `prepare` left out, by split and by what was wrong with it
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    #: what images are scaled to in training and testing alike, as mmdet's Resize takes it; None: the config's own
    image_size: list[int] | None = None

    @classmethod
    def load(cls, name: str, space: Workspace = HERE) -> DatasetInfo:
        """What `prepare` wrote about the data set of this name."""
        path = space.dataset(name)
        if not path.is_file():
            raise SettingsError(f"{path}: not there; run `dvc repro prepare@{name}`")
        found = cls(**json.loads(path.read_text(encoding="utf-8")))
        return found.placed(space.data_root)

    def placed(self, root: Path) -> DatasetInfo:
        """The same with paths that start where ``root`` does; absolute ones stay."""
        paths = {key: getattr(self, key) for key in PATHS}
        return replace(self, **{key: str(root / path) for key, path in paths.items() if path})


def _set_existing(cfg: Config, key: str, value: Any) -> None:
    """Set a dotted key that must exist already, so that a misspelt one is an error, and to a value of its kind."""
    node, path = cfg, key.split(".")
    for i, part in enumerate(path):
        is_list = isinstance(node, list)
        known = [str(n) for n in range(len(node))] if is_list else list(node) if isinstance(node, dict | Config) else []
        if part not in known:
            at = ".".join(path[:i]) or "the config"
            raise SettingsError(f"options.{key}: {at} has no '{part}'; {hint(part, known, 'it has')}")
        if i < len(path) - 1:
            node = node[int(part) if is_list else part]
    last = int(path[-1]) if isinstance(node, list) else path[-1]
    if wrong := wrong_kind(value, node[last]):
        raise SettingsError(f"options.{key}: {wrong}")
    # YAML has lists only, but some libraries tell a pair from a list of choices (mmcv's Resize).
    node[last] = tuple(value) if isinstance(node[last], tuple) and isinstance(value, list) else value


def _stretch(cfg: Config, iterations: int) -> None:
    """Scale an iteration-based schedule to another length; warm-up takes a tenth of it at most (or two steps)."""
    if cfg.train_cfg.get("max_iters") is None:
        raise SettingsError("iterations: the config trains by epochs; set options train_cfg.max_epochs instead")
    old = cfg.train_cfg.max_iters
    # At least two steps where there are three: after a single one the rate would stay at its start.
    warmup = min(cfg.param_scheduler[0]["end"], max(iterations // 10, min(2, iterations - 1)))
    for scheduler in cfg.param_scheduler:
        for key in ("begin", "end"):
            if key in scheduler:
                scheduler[key] = iterations if scheduler[key] == old else min(scheduler[key], warmup)
        if "T_max" in scheduler:
            scheduler["T_max"] = max(1, iterations - scheduler["begin"])
    cfg.train_cfg.max_iters = iterations


def pgd_settings(detector: Detector) -> dict[str, Any]:
    """PGD's published settings for a detector, carried over to the scale that its config names."""
    cfg = detector_config(detector)
    return published_settings("pgd", cfg.model.type.lower(), SCALES[cfg.get("scale", "full")])


def key_count(detector: Detector) -> int:
    """How many positions an object has in its key region: PGD's K for this detector, whatever the method."""
    return pgd_settings(detector)["topk"]


@functools.cache
def _read(name: str) -> Config:
    # planning asks for the same few files once a run
    if "::" in name:
        try:
            return get_config(name)
        except (FileNotFoundError, AssertionError):
            raise SettingsError(f"{name}: mmdet ships no such config; its folder `configs` has them all") from None
    path = ROOT / name
    if not path.is_file():
        raise SettingsError(
            f"{name}: no such config file (paths start at the repository; 'mmdet::gfl/...' is one of mmdet's)"
        )
    return Config.fromfile(path)


def detector_config(detector: Detector, extra_options: dict | None = None) -> Config:
    """The config file of a detector, or the one that mmdet ships, with its overrides; errors name file and key."""
    cfg = copy.deepcopy(_read(detector.config))
    try:
        if detector.iterations is not None:
            _stretch(cfg, detector.iterations)
        for key, value in {**detector.options, **(extra_options or {})}.items():
            _set_existing(cfg, key, value)
    except SettingsError as error:
        raise SettingsError(f"{detector.config}: {error}") from None
    init = cfg.model.backbone.get("init_cfg") or {}
    if "://" not in (source := init.get("checkpoint") or "://"):
        init["checkpoint"] = str(ROOT / source)
    return cfg


def config_digest(cfg: Config, data: DatasetInfo | None = None) -> str:
    """Hash of a config's content, whatever folder this repository and the data set lie in."""
    text = json.dumps(cfg.to_dict(), sort_keys=True, default=repr)
    for key in PATHS if data else ():
        if path := getattr(data, key):
            text = text.replace(json.dumps(path), f'"{key}"')
    return hashlib.sha256(text.replace(f"{ROOT}/", "").encode()).hexdigest()[:16]


def use_dataset(cfg: Config, data: DatasetInfo, monitor: bool) -> None:
    """Point the dataloaders and the metric at the prepared data, and see that images are as large in both."""
    set_image_size(cfg, data.name, data.image_size)
    check_image_sizes(cfg, data.name, (data.train_annotations, data.val_annotations))
    meta = {"classes": tuple(data.classes)}
    cfg.train_dataloader.dataset.update(
        ann_file=data.train_annotations, data_prefix={"img": data.train_images}, metainfo=meta
    )
    val = cfg.val_dataloader.dataset
    val.update(ann_file=data.val_annotations, data_prefix={"img": data.val_images}, metainfo=meta)
    if monitor:
        count = len(json.loads(Path(data.val_annotations).read_text(encoding="utf-8"))["images"])
        val.indices = min(MONITOR_IMAGES, count)
    if data.metric == "crowdhuman":
        evaluator = {"type": "CrowdHumanBoxes", "ann_file": data.val_odgt}
    else:
        evaluator = {"type": "CocoBoxes", "ann_file": data.val_annotations, "areas": tuple(data.areas)}
    cfg.val_evaluator = evaluator


def model_dict(cfg: Config, classes: int) -> ConfigDict:
    """The model of a config with the data set's number of classes."""
    model = cfg.model
    model.bbox_head.num_classes = classes
    return model


def check_same_inputs(job: Job, teacher: dict, student: dict) -> None:
    """Both see the same pixels: a teacher that was trained on others would be blind, and nobody would notice."""
    if other := other_input(teacher, student):
        key, theirs, own = other
        raise SettingsError(
            f"pairs.{job.pair_name}: data_preprocessor.{key} is {theirs} for the teacher, {own} for the student: "
            "take configs with the same preprocessing"
        )


def in_groups(cfg: Config) -> bool:
    """Whether a detector is trained by epochs of batches that are grouped."""
    return not cfg.train_cfg.get("max_iters") and cfg.train_dataloader.get("batch_sampler") is not None


def training_config(job: Job, data: DatasetInfo, teacher_checkpoint: Path | None, work_dir: Path) -> Config:
    """The config of one training; who builds it imports :mod:`benchmark.training.draws` and `.hooks`."""
    cfg = detector_config(job.detector, job.options)
    classes = len(data.classes)
    student = model_dict(cfg, classes)
    model = {
        "type": "Distiller",
        # a step takes a quarter less time on a CPU; benchmark/experiment/soundness.py says which configs refuse it
        "channels_last": cfg.get("channels_last", True),
        "student": {k: v for k, v in student.items() if k != "data_preprocessor"},
        "data_preprocessor": student.data_preprocessor,
    }
    hooks = [{"type": "ProgressBar"}, {"type": "Record"}]
    loader = cfg.train_dataloader
    loader.sampler.type = DRAWS[loader.sampler.type]
    loader.dataset.update(type="DrawnCoco", seed=job.seed)
    if loader.num_workers:
        loader.worker_init_fn = {"type": "outlive"}
    if job.detector.gpus > 1:
        # read by benchmark/training/run.py; who only builds the model does so in one process
        cfg.processes = job.detector.gpus
    if job.run is not None and job.run.needs_teacher:
        teacher = model_dict(detector_config(job.pair.teacher), classes)
        teacher.backbone.init_cfg = None
        check_same_inputs(job, teacher.data_preprocessor, student.data_preprocessor)
        model.update(
            teacher={k: v for k, v in teacher.items() if k != "data_preprocessor"},
            teacher_checkpoint=str(teacher_checkpoint),
            inherit=job.run.inherit,
        )
        if job.run.method != "none":
            model["method"] = {"type": job.run.method, **job.run.settings}
        hooks.append({"type": "Dynamics", "topk": key_count(job.detector)})
    cfg.model = model
    use_dataset(cfg, data, monitor=True)
    iterations = cfg.train_cfg.get("max_iters")
    if iterations:
        cfg.train_cfg.val_interval = -(-iterations // MONITOR_POINTS)
    elif in_groups(cfg):
        loader.sampler.type, cfg.train_cfg.type = f"{GROUPED}.GroupedDraws", f"{GROUPED}.GroupedEpochs"
    else:
        cfg.train_cfg.type = "ResumedEpochs"
    interval = LONG if iterations is None else max(1, min(100, iterations // 4))
    # gradients that wait for more batches are not saved: between two updates a training could not go on exactly
    batches = cfg.optim_wrapper.get("accumulative_counts", 1)
    interval = -(-interval // batches) * batches
    cfg.merge_from_dict(
        {
            "default_scope": "mmdet",
            "work_dir": str(work_dir),
            "randomness": {"seed": job.seed},
            "log_level": "ERROR",
            "default_hooks": {
                "logger": None,
                "checkpoint": {
                    "type": "CheckpointHook",
                    "by_epoch": False,
                    "interval": interval,
                    # mmengine deletes the old one before it writes the new one: a kill between must leave one
                    "max_keep_ckpts": 2,
                    # and a kill while it writes must leave no half file (benchmark/training/hooks.py)
                    "backend_args": {"backend": "atomic"},
                },
            },
            "custom_hooks": hooks,
        }
    )
    return cfg


def training_digest(job: Job, data: DatasetInfo) -> str:
    """Hash of the whole config of a training but for its seed: with the code, all that it is."""
    cfg = training_config(replace(job, seed=0), data, Path("teacher.pth"), Path("work"))
    return config_digest(cfg, data)
