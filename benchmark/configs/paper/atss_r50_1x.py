"""PGD's ATSS (IoU branch) student on COCO."""

_base_ = ["../detectors/atss.py", "../datasets/coco.py", "../schedules/coco_1x.py"]
