"""The mini student: the paper's R50 in small (R18 of 16 base channels, 32-channel neck and head).

Backbone and neck stand in the file of each detector: mmengine refuses two bases that both have a ``model``.
"""

_base_ = ["../detectors/gfl.py", "../datasets/minicoco.py", "../schedules/mini.py"]

model = dict(
    backbone=dict(
        depth=18,
        base_channels=16,
        init_cfg=dict(checkpoint="data/pretrained/resnet18_c16.pth"),
    ),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    bbox_head=dict(
        in_channels=32,
        feat_channels=32,
        stacked_convs=2,
        # 8 channels a group, as 256 / 32
        norm_cfg=dict(num_groups=4),
        # objects are larger relative to a 160-pixel image's strides than on COCO
        anchor_generator=dict(octave_base_scale=4),
    ),
)
