"""The teacher: EfficientNet-lite2, a tenth wider, a fifth deeper. Behind the neck's first layers it is the student."""

_base_ = "gfl_lite0.py"

model = dict(backbone=dict(size="lite2"), neck=dict(in_channels=[48, 120, 352]))
