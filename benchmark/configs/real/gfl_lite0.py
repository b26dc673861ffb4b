"""A student whose backbone has seen ImageNet: EfficientNet-lite0, 64-channel neck and head."""

_base_ = "gfl.py"

#: which size of detectors settings of methods are carried over to (benchmark/experiment/config.py)
scale = "photos_wide"
model = dict(
    # what the weights expect
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3),
    backbone=dict(
        _delete_=True,
        type="EfficientNetLite",
        size="lite0",
        # stem and first two stages: half of the backbone's time, and a few hundred photographs teach them nothing
        frozen_stages=2,
        norm_eval=True,
        norm_grad=False,
        init_cfg=dict(type="LiteWeights"),
    ),
    neck=dict(in_channels=[40, 112, 320], start_level=0, out_channels=64),
    # 8 channels a group, as 256 / 32
    bbox_head=dict(in_channels=64, feat_channels=64, norm_cfg=dict(num_groups=8)),
)
