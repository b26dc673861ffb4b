"""PGD's GFL student on COCO."""

_base_ = ["../detectors/gfl.py", "../datasets/coco.py", "../schedules/coco_1x.py"]
