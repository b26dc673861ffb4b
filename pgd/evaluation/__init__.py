"""Metrics: COCO boxes (:mod:`pgd.evaluation.coco`)."""

from pgd.evaluation.coco import CocoBoxes, coco_box_metrics

__all__ = ["CocoBoxes", "coco_box_metrics"]
