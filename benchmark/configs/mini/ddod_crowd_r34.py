"""The teacher of ddod_crowd_r18.py: twice the depth."""

_base_ = "ddod_crowd_r18.py"

model = dict(backbone=dict(depth=34, init_cfg=dict(checkpoint="data/pretrained/resnet34_c16.pth")))
