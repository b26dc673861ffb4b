"""PGD's AutoAssign student on COCO."""

_base_ = ["../detectors/autoassign.py", "../datasets/coco.py", "../schedules/coco_1x.py"]
