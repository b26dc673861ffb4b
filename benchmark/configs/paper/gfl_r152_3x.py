"""A larger teacher of GFL's student than PGD's, trained as PGD's teachers are."""

_base_ = "gfl_r101_3x.py"

model = dict(backbone=dict(depth=152, init_cfg=dict(checkpoint="torchvision://resnet152")))
