"""COCO box AP as a function of files and as an mmengine metric.

mmdet's ``CocoMetric`` computes the same twelve figures (a test compares them); this one also takes the area bounds of
small and medium objects, which only make sense relative to the images' size, and keeps quiet.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.evaluator import BaseMetric
from pycocotools.coco import COCO

from pgd.evaluation.matching import category_figures, evaluated, figures

#: COCO's own bounds between small and medium and between medium and large objects, in pixels^2.
COCO_AREAS = (32**2, 96**2)
#: Names of pycocotools' twelve figures that are reported, by their place.
FIGURES = {0: "AP", 1: "AP50", 2: "AP75", 3: "AP_small", 4: "AP_medium", 5: "AP_large", 8: "AR100"}


def coco_box_metrics(
    annotations: str | Path | COCO,
    detections: list[dict],
    image_ids: Sequence[int] | None = None,
    areas: tuple[float, float] = COCO_AREAS,
) -> dict[str, float]:
    """The COCO figures in percent.

    Args:
        annotations: COCO JSON file, or one already loaded.
        detections: COCO results, ``{"image_id", "category_id", "bbox": [x, y, w, h], "score"}``.
        image_ids: evaluate these images only; None: all.
        areas: bounds of small and of medium objects in pixels^2.

    Returns:
        AP, AP50, AP75, AP_small, AP_medium, AP_large, AR100; NaN where there is no such object.
    """
    ranges = (0, 1e10), (0, areas[0]), (areas[0], areas[1]), (areas[1], 1e10)
    found = figures(evaluated(annotations, detections, ranges, image_ids))
    return {name: 100 * found[i] if found[i] >= 0 else float("nan") for i, name in FIGURES.items()}


def coco_class_ap(annotations: str | Path, detections: list[dict]) -> dict[str, float]:
    """AP of each category in percent, by its name; NaN where it has no object. AP is the mean of the others.

    Args:
        annotations: COCO JSON file.
        detections: see :func:`coco_box_metrics`.
    """
    content = json.loads(Path(annotations).read_text(encoding="utf-8-sig"))
    found = category_figures(evaluated(content, detections, [(0, 1e10)]))
    names = {category["id"]: category["name"] for category in content["categories"]}
    return {names[number]: 100 * ap if ap >= 0 else float("nan") for number, ap in found.items()}


class CocoBoxes(BaseMetric):
    """Collects mmdet predictions as COCO results and evaluates them.

    Args:
        ann_file: COCO JSON with the ground truth.
        areas: see :func:`coco_box_metrics`.
        out_file: where to write the detections, if anywhere.
    """

    default_prefix = None

    def __init__(
        self,
        ann_file: str,
        areas: tuple[float, float] = COCO_AREAS,
        out_file: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.areas = tuple(areas)
        self.out_file = out_file
        with contextlib.redirect_stdout(io.StringIO()):
            self.truth = COCO(ann_file)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep one batch: ``data_samples`` are mmdet's, boxes in pixels of the original image."""
        categories = self.truth.getCatIds(catNms=self.dataset_meta["classes"])
        for sample in data_samples:
            predicted = sample["pred_instances"]
            boxes = predicted["bboxes"].cpu().numpy().astype(np.float64)
            boxes[:, 2:] -= boxes[:, :2]
            rows = zip(boxes.tolist(), predicted["scores"].tolist(), predicted["labels"].tolist(), strict=True)
            detections = [
                {
                    "image_id": sample["img_id"],
                    "category_id": categories[label],
                    "bbox": [round(v, 3) for v in box],
                    "score": round(score, 5),
                }
                for box, score, label in rows
            ]
            self.results.append((sample["img_id"], detections))

    def compute_metrics(self, results: list) -> dict[str, float]:
        image_ids = [image_id for image_id, _ in results]
        detections = [d for _, found in results for d in found]
        if self.out_file is not None:
            Path(self.out_file).parent.mkdir(parents=True, exist_ok=True)
            Path(self.out_file).write_text(json.dumps(detections, separators=(",", ":")), encoding="utf-8")
        return coco_box_metrics(self.truth, detections, image_ids, self.areas)
