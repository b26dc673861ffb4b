"""NanoDet-m 0.5x: half of the backbone's width, 0.27 M parameters; 13.5 AP on COCO val2017 by its authors."""

_base_ = "nanodet_m_320.py"

model = dict(backbone=dict(channels=(48, 96, 192)), neck=dict(in_channels=[48, 96, 192]))
