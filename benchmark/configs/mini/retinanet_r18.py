"""RetinaNet in small, by gfl_r18.py's rule; its anchors begin at half the others', and there is no norm to scale."""

_base_ = ["../detectors/retinanet.py", "../datasets/minicoco.py", "../schedules/mini.py"]

model = dict(
    backbone=dict(depth=18, base_channels=16, init_cfg=dict(checkpoint="data/pretrained/resnet18_c16.pth")),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    bbox_head=dict(
        in_channels=32,
        feat_channels=32,
        stacked_convs=2,
        # objects are larger relative to a 160-pixel image's strides than on COCO
        anchor_generator=dict(octave_base_scale=2),
    ),
)
