"""The mini teacher on photographs."""

_base_ = "gfl_r18.py"

model = dict(backbone=dict(depth=34, init_cfg=dict(checkpoint="data/pretrained/resnet34_c16.pth")))
