"""Metrics: COCO boxes (:mod:`pgd.evaluation.coco`) and CrowdHuman (:mod:`pgd.evaluation.crowdhuman`)."""
