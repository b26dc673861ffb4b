"""A weaker teacher of GFL's student than PGD's: its own backbone, trained as PGD's teachers are."""

_base_ = "gfl_r101_3x.py"

model = dict(backbone=dict(depth=50, init_cfg=dict(checkpoint="torchvision://resnet50")))
