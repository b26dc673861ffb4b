"""A student of half the backbone width; neck and head keep theirs, so that all but the laterals can be inherited."""

_base_ = "gfl_r18.py"

# its second stage starts with a strided 1x1 convolution of 8 channels (benchmark/experiment/soundness.py)
channels_last = False

model = dict(
    backbone=dict(base_channels=8, init_cfg=dict(checkpoint="data/pretrained/resnet18_c8.pth")),
    neck=dict(in_channels=[8, 16, 32, 64]),
)
