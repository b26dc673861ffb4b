"""How sure a figure is: spread over seeds, and a paired bootstrap over images. Pure functions.

Seeds and images are two chances. A t-interval of paired differences over seeds says how much another training would
change the result; the bootstrap says how much other validation images would, with the trainings as they are, which is
all that a single seed allows; :func:`over_seeds` draws both.

The bootstrap never evaluates twice. An image drawn w times counts like w images of the same content, so that a
resample is a vector of weights: matching, which happens within images, is done once, and only the sums over images
are made anew (Efron and Tibshirani, 1993, section 13; paired: both runs see the same draws). Ties aside, the figures
are those of an evaluation of the resampled set.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from scipy import stats

from pgd.evaluation.matching import evaluated

#: share of an interval
LEVEL = 0.95
#: COCO's recalls, at which precision is read
RECALLS = np.linspace(0, 1, 101)
#: false alarms an image at which CrowdHuman's MR reads the miss rate
FPPI = (0.0100, 0.0178, 0.0316, 0.0562, 0.1000, 0.1778, 0.3162, 0.5623, 1.0000)
#: resamples weighed at a time: bounds the memory, changes no figure
CHUNK = 125


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1); NaN where there are too few values."""
    found = np.asarray(values, dtype=float)
    return (found.mean() if len(found) else np.nan), (found.std(ddof=1) if len(found) > 1 else np.nan)


def t_interval(differences: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """The interval of the mean of paired differences by Student's t; NaN for fewer than two."""
    mean, sd = mean_sd(differences)
    count = len(differences)
    if count < 2:
        return np.nan, np.nan
    reach = stats.t.ppf((1 + level) / 2, count - 1) * sd / np.sqrt(count)
    return mean - reach, mean + reach


def draw_images(images: int, resamples: int, seed: int = 0) -> np.ndarray:
    """[resamples, images] how often each image is drawn, with replacement, as many as there are; by ``seed`` alone."""
    draws = np.random.default_rng(seed).integers(images, size=(resamples, images))
    return np.stack([np.bincount(row, minlength=images) for row in draws]).astype(np.int32)


def percentile_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The middle ``level`` of bootstrap values; NaN where none is finite."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.nan, np.nan
    low, high = np.quantile(finite, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def over_seeds(differences: np.ndarray, seed: int = 0) -> np.ndarray:
    """[B] bootstrap values of a mean difference when seeds and images are drawn anew.

    Args:
        differences: [S, B] of S seeds on B resamples of the images, each row on the same ones.
        seed: of the draws of seeds.

    Returns:
        For each resample of images the mean over as many seeds, drawn with replacement. What the drawn seeds' mean
        differs from all seeds' is stretched by ``sqrt(S / (S - 1))``, as a bootstrap of few values is too narrow by
        that much (Efron and Tibshirani, 1993, section 5.3). A single seed gives its row.
    """
    seeds, resamples = differences.shape
    mean = differences.mean(axis=0)
    if seeds == 1:
        return mean
    chosen = np.random.default_rng(seed).integers(seeds, size=(seeds, resamples))
    drawn = np.take_along_axis(differences, chosen, axis=0).mean(axis=0)
    return mean + np.sqrt(seeds / (seeds - 1)) * (drawn - mean)


def two_sided(values: np.ndarray) -> float:
    """p-value of no difference by bootstrap values: twice the share on the other side of zero, at least 1/B."""
    share = min(np.mean(values <= 0), np.mean(values >= 0))
    return float(min(1.0, max(2 * share, 1 / len(values))))


def holm(p: np.ndarray) -> np.ndarray:
    """p-values of several comparisons, adjusted so that the chance of any false one stays (Holm, 1979)."""
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted[np.argsort(order)]


def improvement(one: np.ndarray, other: np.ndarray) -> float:
    """Chance that a training of one kind is better than one of another: the share of pairs, ties by half.

    Args:
        one, other: figures ``[S, ...]`` and ``[T, ...]`` of S and T seeds; the rest, such as resamples of the images,
            is the same for both.
    """
    a, b = np.asarray(one, dtype=float)[:, None], np.asarray(other, dtype=float)[None]
    return float(np.mean((a > b) + 0.5 * (a == b)))


def smallest_difference(seed_sd: float, image_sd: float, seeds: int, level: float = LEVEL, power: float = 0.8) -> float:
    """The smallest true difference that a design sees with the chance ``power``.

    Args:
        seed_sd: standard deviation of a paired difference between seeds.
        image_sd: of the mean difference when images are drawn anew.
        seeds: how many.
        level: of the interval that must leave out zero.
        power: chance that it does.
    """
    reach = stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power)
    return float(reach * np.sqrt(seed_sd**2 / seeds + image_sd**2))


@dataclass(frozen=True)
class Category:
    """The detections of one category (D, best first) as pycocotools matched them at T thresholds of IoU."""

    #: [D] the place of each detection's image
    image: np.ndarray
    #: [T, D] matched to an object; and neither right nor wrong, as inside a crowd region
    matched: np.ndarray
    ignored: np.ndarray
    #: [I] objects of each image
    objects: np.ndarray


def indexed(content: dict) -> COCO:
    """The content of an annotation file, to be asked."""
    truth = COCO()
    truth.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def coco_matches(truth: COCO, detections: list[dict]) -> list[Category]:
    """One entry a category: COCO's matching of all sizes and at most 100 detections an image and category.

    Args:
        truth: the annotations; all of its images count, in order of id.
        detections: COCO results, ``{"image_id", "category_id", "bbox": [x, y, w, h], "score"}``.
    """
    evaluation = evaluated(truth, detections, [(0, 1e10)], limits=[100])
    thresholds = len(evaluation.params.iouThrs)
    place = {image: i for i, image in enumerate(sorted(truth.getImgIds()))}
    images = len(place)
    by_category: dict[int, dict[int, dict]] = {k: {} for k in sorted(truth.getCatIds())}
    for entry in evaluation.evalImgs:
        # where an image has neither objects nor detections of the category there is none
        if entry is not None:
            by_category[entry["category_id"]][place[entry["image_id"]]] = entry
    categories = []
    for own in by_category.values():
        entries = dict(sorted(own.items()))
        objects = np.zeros(images, dtype=int)
        for i, entry in entries.items():
            objects[i] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
        scores = np.concatenate([np.empty(0), *(entry["dtScores"] for entry in entries.values())])
        order = np.argsort(-scores, kind="stable")
        image = np.concatenate([np.full(len(e["dtScores"]), i) for i, e in entries.items()] or [np.empty(0)])
        table = [
            np.concatenate([np.empty((thresholds, 0)), *(e[key] for e in entries.values())], axis=1)[:, order] != 0
            for key in ("dtMatches", "dtIgnore")
        ]
        categories.append(Category(image[order].astype(int), table[0] & ~table[1], table[1], objects))
    return categories


def coco_ap(categories: Sequence[Category], weights: np.ndarray) -> np.ndarray:
    """[B] AP in percent when images count as often as ``weights`` [B, I] say; NaN where no object is left.

    Precision at a recall is the best at this recall or a higher one, read at 101 recalls and averaged over thresholds
    of IoU and over the categories that have objects, as pycocotools' ``accumulate`` does it. Only the hits, K of the D
    detections, can be the first to reach a recall, so that precision is needed there alone.
    """
    parts = [_category_ap(categories, chunk) for chunk in np.array_split(weights, max(1, len(weights) // CHUNK))]
    return 100 * np.concatenate(parts)


def _category_ap(categories: Sequence[Category], weights: np.ndarray) -> np.ndarray:
    # resamples innermost, so that running sums and maxima go over all of them at once
    counts = np.ascontiguousarray(weights.T, dtype=np.int32)  # [I, B]
    total, counted = np.zeros(len(weights)), np.zeros(len(weights))
    for category in categories:
        objects = category.objects @ counts
        counted += objects > 0
        drawn = counts[category.image]  # [D, B]
        before, found = drawn.cumsum(axis=0, dtype=np.int32), np.zeros(len(weights))
        for matched, ignored in zip(category.matched, category.ignored, strict=True):
            hits = np.flatnonzero(matched)
            if not len(hits):
                continue
            seen = before[hits]
            if ignored.any():
                places = np.flatnonzero(ignored)
                passed = np.concatenate((np.zeros_like(drawn[:1]), drawn[places].cumsum(axis=0, dtype=np.int32)))
                seen -= passed[np.searchsorted(places, hits)]
            right = drawn[hits].cumsum(axis=0, dtype=np.int32)
            precision = right / np.maximum(seen, 1)
            best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
            recall = right / np.maximum(objects, 1)
            # how many of the recalls are reached: all below the nearest one, and perhaps that
            nearest = np.rint(recall * (len(RECALLS) - 1)).astype(np.int32)
            reached = nearest + (RECALLS[nearest] <= recall)
            found += reached[0] * best[0] + (np.diff(reached, axis=0) * best[1:]).sum(axis=0)
        total += found / len(RECALLS) / len(category.matched)
    with np.errstate(invalid="ignore"):
        return total / counted


@dataclass(frozen=True)
class Crowd:
    """The detections of CrowdHuman's AP and MR (D, best first), those inside regions to ignore left out."""

    #: [D] the place of each detection's image, and whether it found a person
    image: np.ndarray
    hit: np.ndarray
    #: [I] persons of each image
    persons: np.ndarray


def crowd_matches(truth: Mapping[str, tuple[np.ndarray, np.ndarray]], detections: list[dict]) -> Crowd:
    """CrowdHuman's matching, by the rules that ``pgd/evaluation/crowdhuman.py`` states.

    Written anew because that module brings mmdet along, whose import takes longer than all of this; a test compares
    both.

    Args:
        truth: by ID, in the annotations' order: [G, 4] boxes ``x, y, w, h`` and [G] which of them are to be ignored.
        detections: ``{"ID", "width", "height", "boxes": [[x, y, w, h, score], ...]}``, one entry an image. Images
            without an entry do not count.
    """
    entries = {entry["ID"]: entry for entry in detections}
    scores, images, hits = [np.empty(0)], [np.empty(0, int)], [np.empty(0, bool)]
    persons = []
    for name in (name for name in truth if name in entries):
        entry, (boxes, ignored) = entries[name], truth[name]
        size = entry["width"], entry["height"]
        found = np.asarray(entry["boxes"], dtype=float).reshape(-1, 5)
        found = found[np.argsort(-found[:, 4], kind="stable")]
        hit, kept = _crowd_image(_clipped(found, size), _clipped(boxes[~ignored], size), _clipped(boxes[ignored], size))
        scores.append(found[kept, 4])
        images.append(np.full(kept.sum(), len(persons)))
        hits.append(hit[kept])
        persons.append(np.count_nonzero(~ignored))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return Crowd(np.concatenate(images)[order], np.concatenate(hits)[order], np.array(persons))


def _clipped(boxes: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """[N, 4] corners inside the image, the upper left ones a pixel away from the far borders."""
    width, height = size
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:4]), axis=1)
    return np.clip(corners, 0, (width - 1, height - 1, width, height))


def _crowd_image(found: np.ndarray, persons: np.ndarray, regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of one image's detections, best first: [D] which find a person, and [D] which count at all."""

    def areas(boxes: np.ndarray) -> np.ndarray:
        return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)

    def shared(others: np.ndarray) -> np.ndarray:
        upper, lower = np.maximum(found[:, None, :2], others[:, :2]), np.minimum(found[:, None, 2:], others[:, 2:])
        return np.maximum(lower - upper, 0).prod(axis=2)

    common = shared(persons)
    iou = common / (areas(found)[:, None] + areas(persons) - common + 1e-6)
    inside = (shared(regions) / (areas(found)[:, None] + 1e-6) > 0.5).any(axis=1)
    hit, free = np.zeros(len(found), dtype=bool), np.ones(len(persons), dtype=bool)
    for d in np.flatnonzero((iou > 0.5).any(axis=1)):
        rivals = np.where(free, iou[d], 0)
        if rivals.max() > 0.5:
            hit[d], free[rivals.argmax()] = True, False
    return hit, hit | ~inside


def crowd_ap_mr(crowd: Crowd, weights: np.ndarray) -> np.ndarray:
    """[B, 2] AP and MR^-2 in percent when images count as often as ``weights`` [B, I] say; NaN without persons."""
    figures = np.full((len(weights), 2), np.nan)
    for figure, weight in zip(figures, weights, strict=True):
        persons = weight @ crowd.persons
        if not persons:
            continue
        hit = np.repeat(crowd.hit, weight[crowd.image])
        if not len(hit):
            figure[:] = 0, 1
            continue
        right = np.cumsum(hit)
        precision = right / np.arange(1, len(hit) + 1)
        alarms = np.cumsum(~hit) / weight.sum()
        missed = 1 - right[np.minimum(np.searchsorted(alarms, FPPI), len(hit) - 1)] / persons
        with np.errstate(divide="ignore"):
            mr = np.exp(np.log(missed).mean())
        figure[:] = (np.diff(right) * (precision[1:] + precision[:-1]) / 2).sum() / persons, mr
    return 100 * figures
