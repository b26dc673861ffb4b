"""PGD's DDOD teacher on CrowdHuman; see crowdhuman_ddod_r50_1x.py."""

_base_ = ["../detectors/ddod.py", "../datasets/crowdhuman_ms.py", "../schedules/crowdhuman_3x.py"]

model = dict(
    backbone=dict(depth=101, frozen_stages=-1, init_cfg=dict(checkpoint="torchvision://resnet101")),
    bbox_head=dict(num_classes=1),
    test_cfg=dict(max_per_img=500),
)
