"""CrowdHuman's AP, log-average miss rate MR^-2 and Jaccard index JI, as PGD's released evaluation computes them.

The rules are those of ``crowd_code`` in PGD's repository; the golden values in the tests come from it. A box of width
w clipped to an image of width W has x1 in [0, W - 1] and x2 in [0, W]. IoU = inter / (union + 1e-6), and the share of a
box inside a region to ignore is IoA = inter / (own area + 1e-6). Every comparison is a strict ``>``.

- AP and MR: in each image, detections by descending score take the free person of the largest IoU > 0.5, once; one that
  gets none but has IoA > 0.5 with a region to ignore is dropped. AP is the trapezoid area under the pooled curve from
  its first detection on, so that a perfect detector has 1 - 1/(number of persons). MR is the geometric mean of the miss
  rates where false alarms an image first reach nine values from 0.01 to 1; it is 0 if one of them is.
- JI: k pairs of the matching of the largest total IoU among pairs with IoU > 0.5; n detections and m persons without
  the unmatched that lie in a region to ignore; mean of k / (m + n - k + 1e-6) over the images where m or n is not 0,
  at the best of ten score thresholds. Annotated boxes without a width or a height count in AP and MR, but not here.

mmdet's ``CrowdHumanMetric`` agrees in AP and MR up to its single precision and four digits. It differs otherwise:

- JI: it takes any matching of the largest number of pairs with IoU >= 0.5. Which of two duplicates is left over, and
  maybe ignored, depends on their order: on the golden set it has 0.4745, and 0.4738 as here when they come sorted by
  score. It keeps annotated boxes without a width or a height.
- It pairs detections and annotations by their place: another order than the file's stops it, and where one side has
  fewer images it evaluates the first ones and is silent about the others.
- It starts ten processes for each of the ten thresholds; here nothing is started.
- Without detections its MR is NaN; here a detector that finds nothing misses everything, 1.

Nothing of it is built on: its loops are what takes the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.evaluator import BaseMetric
from scipy.optimize import linear_sum_assignment

from pgd.evaluation.odgt import (
    CrowdHumanError,
    Found,
    Truth,
    check_detections,
    read_odgt,
    write_detections,
)

#: false alarms an image at which MR^-2 reads the miss rate
FPPI = (0.0100, 0.0178, 0.0316, 0.0562, 0.1000, 0.1778, 0.3162, 0.5623, 1.0000)
#: score thresholds of JI; 0.1 * 3 is a little more than 0.3, as released
SCORES = 0.1 * np.arange(10)
OVERLAP = 0.5
EPS = 1e-6


@dataclass(frozen=True)
class Overlaps:
    """What both matchings need of one image with D detections, best first, and P persons, after clipping."""

    #: [D] descending
    scores: np.ndarray
    #: [D, P] IoU where it is more than 0.5, else 0
    iou: np.ndarray
    #: [D] and [P]: mostly inside a region to ignore
    found_ignored: np.ndarray
    persons_ignored: np.ndarray


def clip(boxes: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """[N, 4] xyxy pixels inside an image of (width, height), upper left corners a pixel away from the far borders."""
    width, height = size
    return np.clip(boxes, 0, (width - 1, height - 1, width, height))


def overlaps(truth: Truth, found: Found) -> Overlaps:
    """IoU and membership in regions to ignore of one image."""
    ours, theirs = clip(found.boxes, found.size), clip(truth.boxes, found.size)
    persons, regions = theirs[: truth.persons], theirs[truth.persons :]
    shared, own = _shared(ours, persons), _area(ours)
    iou = shared / (own[:, None] + _area(persons) - shared + EPS)
    iou[iou <= OVERLAP] = 0
    return Overlaps(found.scores, iou, _inside_any(ours, regions), _inside_any(persons, regions))


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[A, B] areas of intersections."""
    width = np.minimum(a[:, None, 2], b[:, 2]) - np.maximum(a[:, None, 0], b[:, 0])
    height = np.minimum(a[:, None, 3], b[:, 3]) - np.maximum(a[:, None, 1], b[:, 1])
    return np.maximum(width, 0) * np.maximum(height, 0)


def _inside_any(boxes: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """[N] whether more than half of a box lies in one of the regions."""
    return (_shared(boxes, regions) / (_area(boxes) + EPS)[:, None] > OVERLAP).any(axis=1)


def pooled_hits(images: Sequence[Overlaps]) -> np.ndarray:
    """The detections that count in AP and MR, best first: True for a person found, False for a false alarm.

    Equal scores stay in the order of the images.
    """
    pairs = [np.nonzero(image.iou) for image in images]
    detections = np.cumsum([0] + [len(image.scores) for image in images])
    persons = np.cumsum([0] + [image.iou.shape[1] for image in images])
    d = np.concatenate([first + pair[0] for first, pair in zip(detections[:-1], pairs, strict=True)])
    p = np.concatenate([first + pair[1] for first, pair in zip(persons[:-1], pairs, strict=True)])
    iou = np.concatenate([image.iou[pair] for image, pair in zip(images, pairs, strict=True)])
    order = np.lexsort((p, -iou, d))
    # Detection by detection, its persons by IoU: the first pair of which both are free is the one the rule takes.
    hit, taken = [False] * int(detections[-1]), [False] * int(persons[-1])
    for i, j in zip(d[order].tolist(), p[order].tolist(), strict=True):
        if not (hit[i] or taken[j]):
            hit[i] = taken[j] = True
    hits = np.array(hit, dtype=bool)
    kept = hits | ~np.concatenate([image.found_ignored for image in images])
    scores = np.concatenate([image.scores for image in images])
    return hits[kept][np.argsort(-scores[kept], kind="stable")]


def average_precision(hits: np.ndarray, persons: int) -> float:
    """Area under recall and precision of :func:`pooled_hits`; NaN without persons."""
    if not persons:
        return float("nan")
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    return float((np.diff(found) / persons * (precision[1:] + precision[:-1]) / 2).sum())


def miss_rate(hits: np.ndarray, persons: int, images: int) -> float:
    """MR^-2 of :func:`pooled_hits`; NaN without persons, 1 without detections."""
    if not persons:
        return float("nan")
    if not len(hits):
        return 1.0
    # The first detection that reaches a value, or the last one: of all with this many false alarms, the lowest recall.
    at = np.minimum(np.searchsorted(np.cumsum(~hits) / images, FPPI), len(hits) - 1)
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(1 - np.cumsum(hits)[at] / persons).mean()))


def jaccard_counts(image: Overlaps) -> np.ndarray:
    """[10, 3] pairs, persons and detections that count in one image at each of :data:`SCORES`."""
    counts = np.empty((len(SCORES), 3))
    kept = np.searchsorted(-image.scores, -SCORES)
    for t, first in enumerate(kept):
        if t and first == kept[t - 1]:
            counts[t] = counts[t - 1]
            continue
        iou, ignored = image.iou[:first], image.found_ignored[:first]
        d, p = linear_sum_assignment(iou, maximize=True)
        real = iou[d, p] > 0
        d, p = d[real], p[real]
        persons = iou.shape[1] - image.persons_ignored.sum() + image.persons_ignored[p].sum()
        counts[t] = len(d), persons, first - ignored.sum() + ignored[d].sum()
    return counts


def jaccard_by_score(images: Sequence[Overlaps]) -> np.ndarray:
    """[10] mean Jaccard index at each of :data:`SCORES`; NaN where no image has anything to count."""
    k, m, n = np.moveaxis(np.stack([jaccard_counts(image) for image in images]), 2, 0)
    counted = ((m != 0) | (n != 0)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return (k / (m + n - k + EPS)).sum(axis=0) / counted


def evaluate(
    annotations: str | Path | Mapping[str, Truth], detections: Iterable[Mapping], subset: bool = False
) -> dict[str, float]:
    """AP, MR^-2 and JI as fractions.

    Args:
        annotations: the .odgt file, or what :func:`read_odgt` made of it.
        detections: ``{"ID", "width", "height", "boxes": [[x, y, w, h, score], ...]}`` for every image; size in pixels,
            boxes in pixels of that image. An image where nothing was found has an entry with no boxes: without its
            size its annotations cannot be clipped.
        subset: evaluate the images that have an entry, instead of stopping where one has none.

    Returns:
        AP, MR and JI. AP and MR are NaN where there is no person to find; JI is NaN where there is nothing at all to
        count. Persons but no detections: 0, 1, 0.

    Raises:
        CrowdHumanError: broken files or entries, an image without annotations, one without an entry.
    """
    truths = annotations if isinstance(annotations, Mapping) else read_odgt(annotations)
    found = dict(check_detections(detections))
    if unknown := [name for name in found if name not in truths]:
        raise CrowdHumanError(
            f"detections of {_some(unknown)}: not in the annotations; the ID is the stem of the image's file name"
        )
    if (missing := [name for name in truths if name not in found]) and not subset:
        raise CrowdHumanError(
            f"no detections of {_some(missing)}; an image without any needs an entry with an empty list of boxes, "
            "and subset=True evaluates only images that have an entry"
        )
    if not found:
        raise CrowdHumanError("no image to evaluate: the list of detections is empty")
    # the annotations' order: it decides between equal scores
    pairs = [(truths[name], found[name]) for name in truths if name in found]
    images = [overlaps(*pair) for pair in pairs]
    hits, persons = pooled_hits(images), sum(truth.persons for truth, _ in pairs)
    sized = [
        image if truth.sized.all() else overlaps(truth.without_empty(), own)
        for image, (truth, own) in zip(images, pairs, strict=True)
    ]
    indices = jaccard_by_score(sized)
    return {
        "AP": average_precision(hits, persons),
        "MR": miss_rate(hits, persons, len(images)),
        "JI": float(np.fmax.reduce(indices)),
    }


def _some(names: Sequence[str]) -> str:
    """The first of some names, and how many more."""
    return f"'{names[0]}'" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


class CrowdHumanBoxes(BaseMetric):
    """Collects mmdet predictions and evaluates them on the images that were seen; AP, MR and JI in percent.

    As in the release, x, y, w, h are rounded to 0.1 pixels and scores to five decimals, and only label 0 counts.

    Args:
        ann_file: CrowdHuman's .odgt with the ground truth. An image's ID is the stem of its file name.
        out_file: where to write the detections, if anywhere, for :func:`evaluate` or ``python -m pgd.evaluation``.
    """

    default_prefix = None

    def __init__(
        self,
        ann_file: str,
        out_file: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ann_file = ann_file
        self.out_file = out_file
        self.truths = read_odgt(ann_file)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep one batch: ``data_samples`` are mmdet's, boxes in pixels of the original image."""
        for sample in data_samples:
            name = Path(sample["img_path"]).stem
            if name not in self.truths:
                raise CrowdHumanError(f"{sample['img_path']}: no '{name}' in {self.ann_file}; are both of one split?")
            predicted = sample["pred_instances"]
            boxes = predicted["bboxes"].cpu().numpy().astype(np.float64)
            boxes[:, 2:] -= boxes[:, :2]
            scores = predicted["scores"].cpu().numpy().astype(np.float64)
            rows = np.concatenate((boxes.round(1), scores.round(5)[:, None]), axis=1)
            height, width = sample["ori_shape"][:2]
            self.results.append(
                {
                    "ID": name,
                    "width": int(width),
                    "height": int(height),
                    "boxes": rows[predicted["labels"].cpu().numpy() == 0],
                }
            )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        if self.out_file is not None:
            write_detections(self.out_file, results)
        return {name: 100 * value for name, value in evaluate(self.truths, results, subset=True).items()}
