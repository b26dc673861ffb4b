"""GFL's student of DetKDS, CSKD and FRS on COCO: mmdet's multi-scale 2x, whose norms train scale and shift."""

_base_ = ["../detectors/gfl.py", "../datasets/coco_ms_800.py", "../schedules/coco_2x.py"]

model = dict(backbone=dict(norm_cfg=dict(requires_grad=True)))
