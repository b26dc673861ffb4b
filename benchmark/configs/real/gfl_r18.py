"""The mini student (benchmark/configs/mini/gfl_r18.py) on photographs; its backbone has seen drawings only."""

_base_ = "gfl.py"

#: which size of detectors settings of methods are carried over to (benchmark/experiment/config.py)
scale = "photos"
model = dict(
    backbone=dict(
        depth=18,
        base_channels=16,
        init_cfg=dict(checkpoint="data/pretrained/resnet18_c16.pth"),
    ),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    # 8 channels a group, as 256 / 32
    bbox_head=dict(in_channels=32, feat_channels=32, norm_cfg=dict(num_groups=4)),
)
