"""The teacher that PGD's rivals have for GFL on COCO: mmdet's multi-scale 2x."""

_base_ = "gfl_r50_2x.py"

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint="torchvision://resnet101")))
optim_wrapper = dict(clip_grad=None)
