"""A trained detector and annotated images to look at it on: of this experiment, or anyone's.

Everything that a user may have got wrong ends in one line: missing files, checkpoints and classes that do not fit,
detectors without a served dense head.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from pycocotools.coco import COCO
from torch import nn

import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.data.coco_check import Annotations, has_size
from benchmark.data.faults import DataError
from benchmark.data.image_names import image_names
from benchmark.evidence.stats import indexed
from benchmark.experiment.config import DatasetInfo, detector_config, model_dict
from benchmark.experiment.image_size import set_image_size
from benchmark.experiment.settings import Params, SettingsError
from benchmark.experiment.workspace import HERE, Workspace
from benchmark.probe.options import EXAMPLE, ORDERS
from pgd.checkpoint import load_strict
from pgd.class_names import listed_classes
from pgd.dense import reader_of
from pgd.evaluation.coco import COCO_AREAS
from pgd.maths.regions import Objects


@dataclass(frozen=True)
class Subject:
    """A trained detector and the images that it is looked at on."""

    name: str
    cfg: Config
    checkpoint: Path
    annotations: Path
    images: Path
    #: where ``cfg`` comes from
    config: str
    #: whether `prepare` has checked the annotations
    prepared: bool = False
    #: class names in the order of the head's outputs; None: as the checkpoint or the annotations say
    classes: tuple[str, ...] | None = None
    #: bounds of small and medium objects in pixels^2
    areas: tuple[float, float] = COCO_AREAS
    #: which order of classes counts where the checkpoint's and the annotations' differ, one of :data:`ORDERS`
    order: str | None = None


def subject_of_pair(params: Params, pair: str, space: Workspace = HERE) -> Subject:
    """A pair's trained teacher and the validation images of its data set."""
    job = params.teacher(pair)
    data = DatasetInfo.load(job.pair.dataset, space)
    cfg = detector_config(job.detector, job.options)
    model_dict(cfg, len(data.classes))
    set_image_size(cfg, data.name, data.image_size)
    return Subject(
        name=pair,
        cfg=cfg,
        checkpoint=space.teacher(pair) / "weights.pth",
        annotations=Path(data.val_annotations),
        images=Path(data.val_images),
        config=job.detector.config,
        prepared=True,
        classes=tuple(data.classes),
        areas=tuple(data.areas),
    )


def subject_of_files(
    config: str, checkpoint: Path, annotations: Path, images: Path, name: str | None, order: str | None = None
) -> Subject:
    """Anyone's detector; ``config`` is a file or the name of a config that mmdet ships (``mmdet::...``)."""
    try:
        cfg = get_config(config) if "::" in config else Config.fromfile(config)
    except (AssertionError, ImportError, OSError, SyntaxError) as error:
        # of a file that is there, a base may be missing
        if isinstance(error, FileNotFoundError) and not Path(config).is_file():
            raise SettingsError(f"{config}: no such config; give a file or a name such as {EXAMPLE}") from None
        raise SettingsError(f"{config}: cannot be read as a config ({error})") from None
    if "model" not in cfg:
        raise SettingsError(f"{config}: no `model` in it; give the config of a detector")
    if not images.is_dir():
        raise SettingsError(f"{images}: no such folder; give the folder that holds the images")
    name = name or Path(config).stem
    if not re.fullmatch(r"[\w.-]+(?<!_levels)", name):
        raise SettingsError(f"--name: '{name}' names files: letters, digits, '_', '.' and '-', no '_levels' at the end")
    return Subject(name, cfg, checkpoint, annotations, images, config, order=order)


def read_annotations(subject: Subject) -> COCO:
    """The annotations; :class:`DataError` where they are no good. Those of this experiment `prepare` has checked."""
    path = subject.annotations
    if subject.prepared:
        return indexed(json.loads(path.read_text(encoding="utf-8")))
    found = Annotations(path)
    found.check_places()
    found.settle("refuse", hint="")
    if all(entry["iscrowd"] for entry in found.content["annotations"]):
        raise DataError(f"{path}: no object in it (but for crowds); give annotations with objects")
    if found.computed:
        print(f"{path}: computed {found.told_computed()}", file=sys.stderr)
    return indexed(found.bare())


def class_names(subject: Subject, truth: COCO, count: int) -> tuple[str, ...]:
    """Names of the head's ``count`` classes; :class:`SettingsError` where they do not fit the annotations."""
    known = [category["name"] for category in truth.dataset["categories"]]
    names, source = subject.classes, "the data set"
    if names is None:
        names, source = listed_classes(subject.checkpoint), str(subject.checkpoint)
    # the kind of data set may name classes that are not this detector's
    if names is None and len(own := configured_classes(subject.cfg)) == count:
        names, source = own, subject.config
    if names is None:
        names, source = known, str(subject.annotations)
        print(f"neither checkpoint nor config names the classes: taken in the order of {source}", file=sys.stderr)
    names = tuple(names)
    if len(names) != count:
        raise SettingsError(f"{source}: {len(names)} classes, but the detector has {count}: they do not fit")
    shared = [name for name in known if name in names]
    if unknown := [name for name in known if name not in names]:
        what = f"{subject.annotations}: {len(unknown)} of {len(known)} categories are no classes of the detector"
        if not shared:
            some = f"{', '.join(names[:5])}{', ...' if count > 5 else ''}"
            raise SettingsError(f"{what}, first '{unknown[0]}'; its classes by {source}: {some}")
        print(f"{what} and are left out: {', '.join(unknown)}", file=sys.stderr)
    return names if shared == sorted(shared, key=names.index) else _ordered(subject, shared, names, source)


def _ordered(subject: Subject, shared: Sequence[str], names: tuple[str, ...], source: str) -> tuple[str, ...]:
    """The classes in the order of the head's outputs, where annotations and checkpoint have them in another one.

    mmdet numbers classes by their order in the annotations that it trains on, and writes down ``metainfo.classes``,
    whose order counts for nothing: only who trained the detector knows which of the two its outputs follow.
    """
    what = f"{subject.annotations}: categories in another order than by {source}"
    if subject.order is None:
        choices = " or ".join(
            f"--classes {order} ({', '.join(own[:3])}, ...)" for order, own in zip(ORDERS, (names, shared), strict=True)
        )
        raise SettingsError(
            f"{what}, and mmdet numbers classes by the annotations that it trains on: say which order those had, by "
            f"{choices}"
        )
    if subject.order == ORDERS[0]:
        print(f"{what}; matched by name", file=sys.stderr)
        return names
    if absent := [name for name in names if name not in shared]:
        raise SettingsError(f"{what}, and without '{absent[0]}': their order says nothing; give --classes {ORDERS[0]}")
    print(f"{what}; numbered by the annotations", file=sys.stderr)
    return tuple(shared)


def of_classes(truth: COCO, names: Sequence[str]) -> COCO:
    """The annotations of these classes only."""
    categories = [category for category in truth.dataset["categories"] if category["name"] in names]
    if len(categories) == len(truth.dataset["categories"]):
        return truth
    kept = {category["id"] for category in categories}
    annotations = [a for a in truth.dataset["annotations"] if a["category_id"] in kept]
    return indexed({**truth.dataset, "categories": categories, "annotations": annotations})


def configured_classes(cfg: Config) -> tuple[str, ...]:
    """The class names of a config's test set: those that it lists, else those of the kind of data set; or none."""
    dataset = dataset_of(cfg)
    kind = DATASETS.get(dataset.type) if isinstance(dataset.get("type"), str) else dataset.get("type")
    names = (dataset.get("metainfo") or {}).get("classes") or getattr(kind, "METAINFO", {}).get("classes") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def dataset_of(cfg: Config) -> dict:
    """The config of the data set that is tested on; empty where there is none."""
    loader = cfg.get("test_dataloader") or cfg.get("val_dataloader") or {}
    dataset = loader.get("dataset") or {}
    while "pipeline" not in dataset and "dataset" in dataset:
        dataset = dataset["dataset"]
    return dataset


def pipeline_of(cfg: Config) -> Compose:
    """The test pipeline of a config."""
    dataset = dataset_of(cfg)
    if not dataset.get("pipeline"):
        raise SettingsError("the config has no test_dataloader.dataset.pipeline; add the test pipeline of the detector")
    return Compose(dataset["pipeline"])


def build(subject: Subject) -> nn.Module:
    """The detector with its weights, ready to predict."""
    init_default_scope(subject.cfg.get("default_scope") or "mmdet")
    model = MODELS.build(subject.cfg.model)
    for part in ("neck", "bbox_head"):
        if not isinstance(getattr(model, part, None), nn.Module):
            # says what is served
            reader_of(model)
    reader_of(model.bbox_head)
    load_strict(model, subject.checkpoint, "detector")
    return model.eval().to(get_device())


def truth_of(
    truth: COCO, image_id: int, labels: dict[int, int], scale: Sequence[float], device: torch.device
) -> Objects:
    """Boxes without crowds; ``scale`` is (width, height) of the input by those of the original image."""
    objects = [a for a in truth.imgToAnns[image_id] if not a.get("iscrowd", 0)]
    xywh = torch.tensor([a["bbox"] for a in objects], dtype=torch.float32).reshape(-1, 4)
    xyxy = torch.cat((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), dim=1) * torch.tensor([*scale, *scale])
    indices = torch.tensor([labels[a["category_id"]] for a in objects], dtype=torch.long)
    return Objects(xyxy.to(device), indices.to(device))


def shape_of(info: dict) -> tuple[int, int]:
    """Height and width of an image, as annotated."""
    return info["height"], info["width"]


def _image(subject: Subject, name: str) -> Path:
    """The file of an image."""
    names, outside = image_names([name], subject.images, subject.images)
    path = subject.images / names[name]
    if outside:
        raise DataError(f"{path}: lies in {path.resolve().parent}; copy what is linked to into the folder")
    if not path.is_file():
        raise SettingsError(f"{path}: no such image, though {subject.annotations} names it; check --images")
    return path


def batches(subject: Subject, truth: COCO, limit: int | None, batch_size: int) -> Iterator[tuple[list[int], dict]]:
    """Image ids and what the test pipeline makes of the images."""
    ids = sorted(truth.imgs)[:limit]
    pipeline = pipeline_of(subject.cfg)
    for start in range(0, len(ids), batch_size):
        part = ids[start : start + batch_size]
        samples = []
        for image_id in part:
            info = truth.imgs[image_id]
            path = _image(subject, info["file_name"])
            size = {key: info[key] for key in ("height", "width")} if has_size(info) else {}
            sample = pipeline({"img_path": str(path), "img_id": image_id, "instances": [], **size})
            if "scale_factor" not in sample["data_samples"]:
                raise SettingsError("the test pipeline packs no scale_factor; add it to meta_keys of PackDetInputs")
            # boxes of an image of another size, or of one that its EXIF entry turns, would lie elsewhere
            if size and (loaded := sample["data_samples"].metainfo.get("ori_shape", shape_of(info))) != shape_of(info):
                raise DataError(
                    f"{subject.annotations}: image {image_id} ({info['file_name']}) is {info['width']} x "
                    f"{info['height']}, but {loaded[1]} x {loaded[0]} when read; correct width and height, or the boxes"
                )
            samples.append(sample)
        yield part, pseudo_collate(samples)
