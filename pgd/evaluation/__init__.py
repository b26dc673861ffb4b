"""Metrics: COCO boxes (:mod:`pgd.evaluation.coco`) and CrowdHuman (:mod:`pgd.evaluation.crowdhuman`)."""

from pgd.evaluation.coco import CocoBoxes, coco_box_metrics
from pgd.evaluation.crowdhuman import CrowdHumanBoxes
from pgd.evaluation.odgt import CrowdHumanError

__all__ = ["CocoBoxes", "CrowdHumanBoxes", "CrowdHumanError", "coco_box_metrics"]
