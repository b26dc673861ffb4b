"""The RetinaNet student of PGD's rivals on COCO: mmdet's 2x, whose norms train scale and shift."""

_base_ = ["../detectors/retinanet.py", "../datasets/coco.py", "../schedules/coco_2x.py"]

model = dict(backbone=dict(norm_cfg=dict(requires_grad=True)))
