"""PGD's FCOS student on COCO."""

_base_ = ["../detectors/fcos.py", "../datasets/coco.py", "../schedules/coco_1x.py"]
