"""PGD's FCOS student with a MobileNetV2 on COCO; see atss_mb2_1x.py.

Its release has no ReLU before the neck's extra convolutions, unlike its R50 and its teacher.
"""

_base_ = ["../detectors/fcos.py", "../datasets/coco.py", "../schedules/coco_1x.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="MobileNetV2",
        out_indices=(1, 2, 4, 7),
        frozen_stages=-1,
        norm_cfg=dict(type="BN", requires_grad=False),
        init_cfg=dict(type="Pretrained", checkpoint="open-mmlab://mmdet/mobilenet_v2"),
    ),
    neck=dict(in_channels=[24, 32, 96, 1280], relu_before_extra_convs=False),
)
