"""Metrics: COCO boxes (:mod:`pgd.evaluation.coco`) and CrowdHuman (:mod:`pgd.evaluation.crowdhuman`).

The names below are looked up when they are first asked for: matching alone needs neither torch nor mmengine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgd.evaluation.coco import CocoBoxes, coco_box_metrics
    from pgd.evaluation.crowdhuman import CrowdHumanBoxes
    from pgd.evaluation.odgt import CrowdHumanError

_PLACES = {
    "CocoBoxes": "coco",
    "coco_box_metrics": "coco",
    "CrowdHumanBoxes": "crowdhuman",
    "CrowdHumanError": "odgt",
}

__all__ = ["CocoBoxes", "CrowdHumanBoxes", "CrowdHumanError", "coco_box_metrics"]


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f"module 'pgd.evaluation' has no attribute '{name}'")
    return getattr(importlib.import_module(f"pgd.evaluation.{_PLACES[name]}"), name)
