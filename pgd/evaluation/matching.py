"""COCO's matching of detections and objects: by hotcoco where it is installed, else by pycocotools, which is slower.

Both give the same figures (a test compares them); hotcoco takes a hundredth of the time.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.coco
import pycocotools.cocoeval

#: what has COCO's interface: a loaded annotation file, and an evaluation
try:
    import hotcoco as fast
except ImportError:
    fast = None


def evaluated(
    annotations: str | Path | dict | pycocotools.coco.COCO,
    detections: list[dict],
    ranges: Sequence[Sequence[float]],
    image_ids: Sequence[int] | None = None,
    limits: Sequence[int] = (1, 10, 100),
    library: Any = fast,
) -> Any:
    """The evaluation of detections after its matching, with pycocotools' interface.

    Args:
        annotations: COCO JSON file, its content, or one that pycocotools has loaded.
        detections: COCO results, ``{"image_id", "category_id", "bbox": [x, y, w, h], "score"}``.
        ranges: of objects' areas, pixels^2.
        image_ids: these images only; None: all.
        limits: most detections an image and category that count.
        library: hotcoco, or None for pycocotools.
    """
    truth_type, evaluation_type = (
        (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval) if library is None else (library.COCO, library.COCOeval)
    )
    # both print what they do, and hotcoco warns where ranges are not COCO's own
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        truth = _loaded(annotations, truth_type)
        # pycocotools cannot load an empty result; a detector that found nothing has AP 0, not an error.
        found = truth.loadRes(detections) if detections or library is not None else truth_type()
        evaluation = evaluation_type(truth, found, "bbox")
        params = evaluation.params
        params.imgIds = sorted(truth.getImgIds() if image_ids is None else image_ids)
        params.catIds = sorted(truth.getCatIds())
        params.areaRng, params.maxDets = [list(pair) for pair in ranges], list(limits)
        evaluation.evaluate()
    return evaluation


def figures(evaluation: Any) -> list[float]:
    """pycocotools' twelve figures; -1 where there is no such object."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        evaluation.accumulate()
        evaluation.summarize()
    return [float(figure) for figure in evaluation.stats]


def category_figures(evaluation: Any) -> dict[int, float]:
    """AP of each category by its id, of the first range of areas and the highest limit; -1 where it has no object."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        evaluation.accumulate()
    # IoU thresholds, recalls, categories; where a category has no object, all are -1
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
    return dict(zip(map(int, evaluation.params.catIds), precision.mean(axis=(0, 1)).tolist(), strict=True))


def _loaded(annotations: Any, kind: type) -> Any:
    """The annotations as this kind of object, none with the id 0: to pycocotools, and to who asks an evaluation which
    detections have found something, that is an object that nothing has found."""
    reference = pycocotools.coco.COCO
    if isinstance(annotations, reference):
        if kind is reference and 0 not in annotations.anns:
            return annotations
        annotations = annotations.dataset
    if not isinstance(annotations, dict):
        if kind is not reference and 0 not in (truth := kind(str(annotations))).getAnnIds():
            return truth
        annotations = json.loads(Path(annotations).read_text(encoding="utf-8-sig"))
    if any(one["id"] == 0 for one in annotations["annotations"]):
        numbered = [{**one, "id": number} for number, one in enumerate(annotations["annotations"], start=1)]
        annotations = {**annotations, "annotations": numbered}
    if kind is not reference:
        return kind(annotations)
    truth = reference()
    truth.dataset = annotations
    truth.createIndex()
    return truth
