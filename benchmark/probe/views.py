"""What a pair's trained teacher sees on validation images, and the maps over positions that follow from it.

For figures: reads weights, settings and images from the folder that a pipeline ran in; trains and writes nothing.
P positions over all levels, A predictions a position, C classes; boxes xyxy in input pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.data.faults import DataError
from benchmark.evidence.record import ReportError
from benchmark.experiment.config import DatasetInfo, detector_config, key_count, pgd_settings, training_config
from benchmark.experiment.settings import Params, SettingsError, load
from benchmark.experiment.workspace import Workspace
from benchmark.probe.subjects import batches, build, class_names, read_annotations, subject_of_pair
from benchmark.training.dynamics import first_images, regions
from benchmark.training.result import REGIONS
from pgd.checkpoint import CheckpointError
from pgd.dense import Grid, UnsupportedHead, View, reader_of
from pgd.maths.masks import MASKS, mask
from pgd.maths.regions import Objects, Predictions, background_mask, inside_pairs, prediction_guided_weights
from pgd.methods.base import settings_of
from pgd.methods.pgd_released import JITTER
from pgd.tape import Tape

#: Images with fewer objects than this are shown only if there are no others.
OBJECTS = 3
#: PGD's maps, those of the released order of steps, and these with the axes swapped as for FCOS and AutoAssign.
VERSIONS = ("as meant", "released order", "released, axes swapped")


@dataclass(frozen=True)
class Scene:
    """One image, its ground truth and what the teacher predicts on it."""

    #: uint8 ``[H, W, 3]``, RGB, as the detector gets it before padding
    picture: np.ndarray
    grid: Grid
    #: class probabilities ``[P A, C]``
    scores: Tensor
    #: predicted boxes ``[P A, 4]``
    boxes: Tensor
    gt_boxes: Tensor
    gt_labels: Tensor
    #: ``[R, 4]`` regions without annotation (crowds)
    ignored: Tensor

    @property
    def predictions(self) -> Predictions:
        """What the teacher says, with its positions."""
        grid = self.grid
        return Predictions(
            self.scores, self.boxes, grid.prediction_centers, grid.strides.repeat_interleave(grid.per_position)
        )

    @property
    def objects(self) -> Objects:
        """The ground truth."""
        return Objects(self.gt_boxes, self.gt_labels)


class Maps(NamedTuple):
    """What PGD makes of a scene for one branch, ``[P]`` each: the largest over boxes and predictions of a position."""

    quality: Tensor
    #: 1 where a box has one of its top-K
    top: Tensor
    weights: Tensor


def reported(function: Callable) -> Callable:
    """What is missing or does not fit becomes a :class:`~benchmark.evidence.record.ReportError`, which notebooks
    show."""

    @wraps(function)
    def tell(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except (SettingsError, DataError, CheckpointError, UnsupportedHead) as error:
            raise ReportError(str(error)) from None

    return tell


def taught_pairs(params: Params, space: Workspace) -> list[str]:
    """The pairs whose teacher has left weights."""
    return [pair for pair in params.pairs if (space.teacher(pair) / "weights.pth").is_file()]


@reported
def choose_pair(folder: Path, anchor_free: bool | None = None) -> str | None:
    """The first pair with a trained teacher; with ``anchor_free``, the first whose head is (or is not), or None.

    Raises:
        ReportError: no pair has a trained teacher.
    """
    space = Workspace(folder)
    params = load(space.params)
    pairs = taught_pairs(params, space)
    if not pairs:
        raise ReportError(f"{space.work}: no trained teacher of the pairs {', '.join(params.pairs)}")
    if anchor_free is None:
        return pairs[0]
    init_default_scope("mmdet")
    return next((pair for pair in pairs if is_anchor_free(params, pair) == anchor_free), None)


def is_anchor_free(params: Params, pair: str) -> bool:
    """Whether the release's anchor-free code serves the pair's teacher; False for heads that are not served."""
    head = MODELS.get(detector_config(params.pairs[pair].teacher).model.bbox_head.type)
    return getattr(reader_of.dispatch(head), "anchor_free", False)


def mask_settings(params: Params, pair: str) -> dict[str, Any]:
    """``topk``, ``xi_cls`` and ``xi_reg`` of the pair's first run of PGD, or the published ones where it has none.

    Published for the pair's detector, carried over to its size.
    """
    names = ("topk", "xi_cls", "xi_reg")
    if runs := [run for run in params.runs.values() if run.pair == pair and run.method in ("pgd", "pgd_released")]:
        return {name: runs[0].settings.get(name, settings_of("pgd")[name]) for name in names}
    published = pgd_settings(params.pairs[pair].teacher)
    return {name: published[name] for name in names}


class Teacher:
    """A pair's trained teacher and the images to look at: the first ``images``, by id, that hold enough objects."""

    @reported
    def __init__(self, folder: Path, pair: str, images: int = 12) -> None:
        """``folder`` holds params.yaml and work/; :class:`ReportError` names what is missing."""
        space = Workspace(folder)
        params = load(space.params)
        self.pair, self.subject = pair, subject_of_pair(params, pair, space)
        self.settings = mask_settings(params, pair)
        self.truth = read_annotations(self.subject)
        self.model = build(self.subject)
        self.head = type(self.model.bbox_head).__name__
        self.tape = Tape(self.model)
        names = class_names(self.subject, self.truth, self.model.bbox_head.num_classes)
        self.label_of = {c["id"]: names.index(c["name"]) for c in self.truth.dataset["categories"]}
        self.ids = self._choose(images)
        self._seen: dict[int, Scene] = {}

    def _choose(self, images: int) -> list[int]:
        ids, objects = sorted(self.truth.imgs), self.truth.imgToAnns
        rich = [i for i in ids if sum(not a.get("iscrowd", 0) for a in objects[i]) >= OBJECTS]
        return (rich or ids)[:images]

    @reported
    def scene(self, index: int) -> Scene:
        """What the teacher sees on the ``index``-th of the chosen images; it looks at each once."""
        if index not in self._seen:
            self._seen[index] = self._look(index)
        return self._seen[index]

    @reported
    def tower(self, index: int) -> list[Tensor]:
        """What PGD compares: the classification tower's first block on the ``index``-th image, ``[1, C, H, W]`` a
        level."""
        self._seen[index] = self._look(index)
        return [features.cpu() for features in self.tape.towers[0]]

    @torch.no_grad()
    def _look(self, index: int) -> Scene:
        image_id, only = self.ids[index], copy.copy(self.truth)
        only.imgs = {image_id: self.truth.imgs[image_id]}
        _, batch = next(batches(self.subject, only, None, 1))
        view, grid, (sample,) = predictions(self.model, self.tape, batch)
        scale = sample.scale_factor
        objects = self.truth.imgToAnns[image_id]
        annotated = [a for a in objects if not a.get("iscrowd", 0)]
        return Scene(
            # pipelines load BGR
            picture=batch["inputs"][0].flip(0).permute(1, 2, 0).numpy(),
            grid=grid,
            scores=view.scores[0].cpu(),
            boxes=view.boxes[0].cpu(),
            gt_boxes=corners(annotated, scale),
            gt_labels=torch.tensor([self.label_of[a["category_id"]] for a in annotated], dtype=torch.long),
            ignored=corners([a for a in objects if a.get("iscrowd", 0)], scale),
        )


def corners(annotations: Sequence[dict], scale: Sequence[float]) -> Tensor:
    """Boxes ``[G, 4]`` of COCO annotations in input pixels; ``scale`` is (width, height) by the original image's."""
    xywh = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float32).reshape(-1, 4)
    return torch.cat((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), dim=1) * torch.tensor([*scale, *scale])


def predictions(model: nn.Module, tape: Tape, batch: dict) -> tuple[View, Grid, list]:
    """What the detector says about a batch of a pipeline, where (the grid on the CPU), and the data samples."""
    data = model.data_preprocessor(batch, False)
    with tape.recording():
        model.bbox_head(model.extract_feat(data["inputs"]))
    samples, sizes = data["data_samples"], [f.shape[-2:] for f in tape.neck]
    metas = [sample.metainfo for sample in samples]
    view = tape.view(tape.reader.grid(sizes, metas, data["inputs"].device), {"predictions"})
    return view, tape.reader.grid(sizes, metas, torch.device("cpu")), samples


def mask_of(kind: str, scene: Scene, xi: float, topk: int) -> Tensor:
    """One of :data:`pgd.maths.masks.MASKS` as weights of positions ``[P]``."""
    return scene.grid.to_positions(mask(kind, scene.predictions, scene.objects, xi, topk))


def maps_of(scene: Scene, xi: float, topk: int) -> Maps:
    """Quality, top-K and Gaussian weights (PGD sections 3.1 and 3.2)."""
    return Maps(*(mask_of(kind, scene, xi, topk) for kind in ("quality", "topk", "pgw")))


def all_masks(scene: Scene, xi: float, topk: int) -> dict[str, Tensor]:
    """Every mask by name, PGD's last."""
    return {kind: mask_of(kind, scene, xi, topk) for kind in MASKS}


def background_of(scene: Scene, swap_axes: bool = False, exclude_ignored: bool = True) -> Tensor:
    """1 on positions of the image that lie in no box (nor, by default, in a region without annotation) ``[P]``.

    ``swap_axes``: the test is done at the transposed position, as released for anchor-free heads.
    """
    centers = scene.grid.centers.flip(1) if swap_axes else scene.grid.centers
    boxes = torch.cat((scene.gt_boxes, scene.ignored)) if exclude_ignored else scene.gt_boxes
    return background_mask(centers, boxes) * scene.grid.valid[0]


def released_weights(scene: Scene, xi: float, topk: int, swap_axes: bool = False) -> Tensor:
    """Gaussian weights of positions ``[P]`` by the released order of steps, with its noise from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = {"released": True, "swap_axes": swap_axes, "jitter": JITTER}
        weights = prediction_guided_weights(scene.predictions, scene.objects, xi, topk, **settings)
    return scene.grid.to_positions(weights)


def versions(scene: Scene, xi: float, topk: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and background, ``[P]`` each, as they are meant and as released; by the names of :data:`VERSIONS`."""
    meant, in_order, swapped = VERSIONS
    weights = {
        meant: mask_of("pgw", scene, xi, topk),
        in_order: released_weights(scene, xi, topk),
        swapped: released_weights(scene, xi, topk, swap_axes=True),
    }
    # the release knows no regions without annotation
    backgrounds = {name: background_of(scene, name == swapped, name == meant) for name in VERSIONS}
    return weights, backgrounds


def surviving(scenes: Sequence[Scene]) -> tuple[float, float]:
    """What the transposed in-box test leaves: the share of in-box positions, and of boxes that keep any of theirs.

    Boxes without a position do not count. NaN where there is no box with one.
    """
    kept = total = boxes_kept = boxes = 0
    for scene in scenes:
        pairs, centers = inside_pairs(scene.grid.centers, scene.gt_boxes), scene.grid.centers.flip(1)
        own, position = scene.gt_boxes[pairs.box], centers[pairs.position]
        still = ((position > own[:, :2]) & (position < own[:, 2:])).all(dim=1)
        kept, total = kept + int(still.sum()), total + len(still)
        boxes_kept, boxes = boxes_kept + len(pairs.box[still].unique()), boxes + len(pairs.box.unique())
    return (kept / total, boxes_kept / boxes) if total else (float("nan"), float("nan"))


@reported
@torch.no_grad()
def region_shares(folder: Path, run: str, images: int = 8) -> dict[str, float]:
    """Shares of the positions that belong to each of :data:`benchmark.training.result.REGIONS`.

    On the training images, and with the K, by which :class:`benchmark.training.dynamics.Dynamics` measures a run.
    """
    space = Workspace(folder)
    params = load(space.params)
    job = params.student(run)
    model = build(subject_of_pair(params, job.pair_name, space))
    cfg = training_config(job, DatasetInfo.load(job.pair.dataset, space), None, folder)
    try:
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        batch = first_images(dataset, min(images, cfg.train_dataloader.batch_size))
    except (FileNotFoundError, AttributeError) as error:
        raise ReportError(f"{folder}: the training images cannot be read ({error})") from None
    view, grid, samples = predictions(model, Tape(model, None), batch)
    truth = [Objects(sample.gt_instances.bboxes.cpu(), sample.gt_instances.labels.cpu()) for sample in samples]
    topk = key_count(job.pair.teacher)
    region = regions(grid, view.scores.cpu(), view.boxes.cpu(), truth, topk)[grid.valid]
    return {name: float((region == i).double().mean()) for i, name in enumerate(REGIONS)}
