"""DDOD on minicrowd: ddod_r18.py's network with the settings that PGD's CrowdHuman detectors have."""

_base_ = ["../detectors/ddod.py", "../datasets/minicrowd.py", "../schedules/mini.py"]

model = dict(
    backbone=dict(
        depth=18,
        base_channels=16,
        frozen_stages=-1,
        init_cfg=dict(checkpoint="data/pretrained/resnet18_c16.pth"),
    ),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    bbox_head=dict(
        num_classes=1,
        in_channels=32,
        feat_channels=32,
        stacked_convs=2,
        # 8 channels a group, as 256 / 32
        norm_cfg=dict(num_groups=4),
        # persons are larger relative to a 256-pixel image's strides than on CrowdHuman
        anchor_generator=dict(octave_base_scale=4),
    ),
    # 500 at full scale; a mini image has 1,023 positions in all
    test_cfg=dict(max_per_img=200),
)
