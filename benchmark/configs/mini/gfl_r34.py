"""The mini teacher: same stage widths as the student, twice the depth, as R101 is to R50."""

_base_ = "gfl_r18.py"

model = dict(backbone=dict(depth=34, init_cfg=dict(checkpoint="data/pretrained/resnet34_c16.pth")))
