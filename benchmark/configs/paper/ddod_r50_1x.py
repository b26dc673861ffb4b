"""PGD's DDOD student on COCO."""

_base_ = ["../detectors/ddod.py", "../datasets/coco.py", "../schedules/coco_1x.py"]
