"""COCO figures of many sets of detections on the same images, the same as pycocotools' but in a fraction of the time.

Sets of detections that an image has in common are matched once, all different ones at the same time. D detections and
G objects of an image, U different sets, R = 4 ranges of area (all, small, medium, large), T = 10 thresholds of IoU,
K classes, I images, B resamples of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from pycocotools.coco import COCO
from torch import Tensor

from benchmark.evidence.stats import RECALLS, Category, coco_ap

THRESHOLDS = np.linspace(0.5, 0.95, 10)
#: detections of an image and category that count, best first
MAX_DETECTIONS = 100
RANGES = ("AP", "AP_small", "AP_medium", "AP_large")
BITS = len(RANGES) * len(THRESHOLDS)
Found = TypeVar("Found")


class Objects(NamedTuple):
    """The annotations of an image."""

    #: ``[G, 4]`` x, y, width, height
    boxes: np.ndarray
    #: ``[G]`` class indices
    labels: np.ndarray
    #: bool ``[G]``
    crowd: np.ndarray
    #: bool ``[R, G]``: neither to be found nor held against a detection
    ignored: np.ndarray


class Matches(NamedTuple):
    """What became of the detections of one set, best first. Bits of R x T are packed."""

    scores: np.ndarray
    labels: np.ndarray
    #: found an object
    true: np.ndarray
    #: counts neither as true nor as false
    ignored: np.ndarray


def overlaps(boxes: np.ndarray, objects: Objects) -> np.ndarray:
    """IoU of boxes ``[..., 4]`` (x, y, width, height) and objects; of a crowd, the share of the box: ``[..., G]``."""
    low = np.maximum(boxes[..., None, :2], objects.boxes[:, :2])
    high = np.minimum((boxes[..., :2] + boxes[..., 2:])[..., None, :], objects.boxes[:, :2] + objects.boxes[:, 2:])
    common = (high - low).clip(min=0).prod(axis=-1)
    own, theirs = boxes[..., 2:].prod(axis=-1)[..., None], objects.boxes[:, 2:].prod(axis=-1)
    union = np.where(objects.crowd, own, own + theirs - common)
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def match(overlap: np.ndarray, objects: Objects) -> tuple[np.ndarray, np.ndarray]:
    """Give each detection, best first, the free object that it overlaps most; what is ignored comes last.

    Args:
        overlap: ``[U, D, G]``, negative where classes differ.
        objects: of the image.

    Returns:
        bool ``[U, D, R, T]`` each: found an object, and this one is ignored.
    """
    sets, count, number = overlap.shape
    shape = (sets, len(RANGES), len(THRESHOLDS), number)
    found = np.zeros((sets, count, *shape[1:3]), dtype=bool)
    spared = np.zeros_like(found)
    free = np.ones(shape, dtype=bool)
    limits = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    ignored, index = objects.ignored[:, None], np.arange(number)
    for place in np.flatnonzero((overlap >= THRESHOLDS[0]).any(axis=(0, 2))):
        own = overlap[:, place, None, None]
        value = np.where((own >= limits) & (free | objects.crowd), own, -1.0)
        wanted = np.where(ignored, -1.0, value)
        value = np.where(wanted.max(axis=-1, keepdims=True) >= 0, wanted, value)
        # of equals the last, as in pycocotools
        best = number - 1 - value[..., ::-1].argmax(axis=-1)
        taken = (index == best[..., None]) & (value >= 0)
        free &= ~taken
        found[:, place] = taken.any(axis=-1)
        spared[:, place] = (taken & ignored).any(axis=-1)
    return found, spared


class ManyCoco:
    """Collects the detections of S settings image by image and evaluates each.

    Args:
        truth: annotations.
        labels: class index of each category id.
        areas: bounds of small and of medium objects in pixels^2.
        settings: S.
    """

    def __init__(self, truth: COCO, labels: dict[int, int], areas: tuple[float, float], settings: int) -> None:
        self._truth, self._labels = truth, labels
        self._bounds = np.array([[0, 1e10], [0, areas[0]], [areas[0], areas[1]], [areas[1], 1e10]])
        self._matches: list[list[Matches]] = [[] for _ in range(settings)]
        #: objects to be found ``[R, K]``, image by image
        self._objects: list[np.ndarray] = []

    def _outside(self, areas: np.ndarray) -> np.ndarray:
        """Which areas ``[...]`` are out of which range: ``[..., R]``."""
        return (areas[..., None] < self._bounds[:, 0]) | (areas[..., None] > self._bounds[:, 1])

    def _objects_of(self, image_id: int) -> Objects:
        annotations = self._truth.imgToAnns.get(image_id, [])
        crowd = np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool)
        boxes = np.array([a["bbox"] for a in annotations], dtype=float).reshape(-1, 4)
        areas = [a.get("area", w * h) for a, (_, _, w, h) in zip(annotations, boxes, strict=True)]
        return Objects(
            boxes=boxes,
            labels=np.array([self._labels[a["category_id"]] for a in annotations], dtype=int),
            crowd=crowd,
            ignored=self._outside(np.array(areas, dtype=float)).T | crowd,
        )

    def add(self, image_id: int, detections: Sequence[Tensor]) -> None:
        """The detections of one image by setting: ``[D, 6]`` boxes xyxy, score, label.

        A tensor that several settings share is matched once. Rounded as :class:`pgd.evaluation.CocoBoxes` does.
        """
        objects = self._objects_of(image_id)
        present = np.zeros((len(RANGES), max(self._labels.values()) + 1), dtype=int)
        for label, ignored in zip(objects.labels, objects.ignored.T, strict=True):
            present[:, label] += ~ignored
        self._objects.append(present)
        different = {id(found): found for found in detections}
        sets = [self._known(found.double().numpy()) for found in different.values()]
        longest = max(len(found) for found in sets)
        # -1 is no object's label
        padded = np.full((len(sets), longest, 6), -1.0)
        for row, found in zip(padded, sets, strict=True):
            row[: len(found)] = found
        boxes, labels = padded[..., :4], padded[..., 5]
        overlap = np.where(labels[..., None] == objects.labels, overlaps(boxes, objects), -1.0)
        found, ignored = match(overlap, objects)
        outside = self._outside(boxes[..., 2:].prod(axis=-1))[..., None]
        ignored = np.where(found, ignored, outside)
        bits = [np.packbits(mask.reshape(*mask.shape[:2], BITS), axis=-1) for mask in (found & ~ignored, ignored)]
        matches = {
            key: Matches(own[:, 4], own[:, 5].astype(int), *(part[k, : len(own)] for part in bits))
            for k, (key, own) in enumerate(zip(different, sets, strict=True))
        }
        for seen, own in zip(self._matches, detections, strict=True):
            seen.append(matches[id(own)])

    def _known(self, found: np.ndarray) -> np.ndarray:
        """Rounded rows (x, y, width, height, score, label), best first, of classes that have a category."""
        found = found[np.isin(found[:, 5], list(self._labels.values()))]
        found = np.column_stack(
            (found[:, :2].round(3), (found[:, 2:4] - found[:, :2]).round(3), found[:, 4].round(5), found[:, 5])
        )
        found = found[np.argsort(-found[:, 4], kind="stable")]
        if len(found) > MAX_DETECTIONS:
            rank = (found[:, None, 5] == found[None, :, 5]) & np.tri(len(found), k=-1, dtype=bool)
            found = found[rank.sum(axis=1) < MAX_DETECTIONS]
        return found

    def figures(self) -> list[dict[str, float]]:
        """Of every setting what :func:`pgd.evaluation.coco.coco_box_metrics` would give, in percent."""
        return self._of_each(self._evaluate)

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """``[S, R, B]`` AP in percent when images, in order of :meth:`add`, count as often as ``weights [B, I]`` say.

        NaN where no object is left.
        """

        def evaluate(matches: Sequence[Matches]) -> np.ndarray:
            return np.stack([coco_ap(categories, weights) for categories in self._categories(matches)])

        return np.stack(self._of_each(evaluate))

    def _of_each(self, evaluate: Callable[[Sequence[Matches]], Found]) -> list[Found]:
        """What ``evaluate`` makes of every setting; settings that are the same in all images are looked at once."""
        known: dict[tuple[int, ...], Found] = {}
        for matches in self._matches:
            key = tuple(map(id, matches))
            if key not in known:
                known[key] = evaluate(matches)
        return [known[tuple(map(id, matches))] for matches in self._matches]

    def _evaluate(self, matches: Sequence[Matches]) -> dict[str, float]:
        shape = len(RANGES), len(THRESHOLDS)
        precision = np.full((len(self._labels), *shape), np.nan)
        recall = precision.copy()
        for r, categories in enumerate(self._categories(matches)):
            for place, own in enumerate(categories):
                if count := own.objects.sum():
                    miss = ~own.matched & ~own.ignored
                    precision[place, r], recall[place, r] = curve(own.matched.T, miss.T, count)
        figures = {name: mean(precision[:, r]) for r, name in enumerate(RANGES)}
        at = {"AP50": mean(precision[:, 0, 0]), "AP75": mean(precision[:, 0, 5])}
        return {"AP": figures.pop("AP"), **at, **figures, "AR100": mean(recall[:, 0])}

    def _categories(self, matches: Sequence[Matches]) -> list[list[Category]]:
        """One setting's detections in all images, by range and class."""
        scores, labels, *packed = (np.concatenate(part) for part in zip(*matches, strict=True))
        true, ignored = (
            np.unpackbits(part, axis=-1, count=BITS).astype(bool).reshape(-1, len(RANGES), len(THRESHOLDS))
            for part in packed
        )
        image = np.repeat(np.arange(len(matches)), [len(own.scores) for own in matches])
        objects, found = np.stack(self._objects), [[] for _ in RANGES]
        for label in sorted(self._labels.values()):
            own = np.flatnonzero(labels == label)
            own = own[np.argsort(-scores[own], kind="stable")]
            for r, categories in enumerate(found):
                categories.append(Category(image[own], true[own, r].T, ignored[own, r].T, objects[:, r, label]))
        return found


def curve(hit: np.ndarray, miss: np.ndarray, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Interpolated precision (mean over 101 recalls) and final recall of detections, best first.

    Args:
        hit: bool ``[N, T]``, true.
        miss: bool ``[N, T]``, false.
        objects: to be found.

    Returns:
        ``[T]`` each, 0..1.
    """
    if not len(hit):
        return np.zeros(hit.shape[1]), np.zeros(hit.shape[1])
    true, false = hit.cumsum(axis=0), miss.cumsum(axis=0)
    recall = true / objects
    precision = true / (true + false + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    # recalls that are never reached have a precision of 0
    precision = np.vstack((precision, np.zeros(precision.shape[1])))
    places = [np.searchsorted(column, RECALLS) for column in recall.T]
    means = [precision[place, t].mean() for t, place in enumerate(places)]
    return np.array(means), recall[-1]


def mean(values: np.ndarray) -> float:
    """Mean in percent over what is there; NaN where nothing is."""
    present = values[~np.isnan(values)]
    return 100 * float(present.mean()) if len(present) else float("nan")
