"""PGD's ATSS (IoU branch) teacher on COCO."""

_base_ = ["../detectors/atss.py", "../datasets/coco_ms.py", "../schedules/coco_3x.py"]

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint="torchvision://resnet101")))
