"""PGD's GFL teacher on COCO."""

_base_ = ["../detectors/gfl.py", "../datasets/coco_ms.py", "../schedules/coco_3x.py"]

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint="torchvision://resnet101")))
