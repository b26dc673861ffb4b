"""VFNet (Zhang et al., 2021) as in mmdet, not one of PGD's: three convolutions, then a star-shaped deformable one."""

_base_ = "dense.py"

model = dict(
    type="VFNet",
    neck=dict(relu_before_extra_convs=True),
    bbox_head=dict(
        type="VFNetHead",
        stacked_convs=3,
        norm_cfg=dict(type="GN", num_groups=32, requires_grad=True),
        strides=[8, 16, 32, 64, 128],
        # the upper ends are what the first boxes are measured in; ATSS assigns
        regress_ranges=((-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8)),
        anchor_generator=dict(
            type="AnchorGenerator",
            ratios=[1.0],
            octave_base_scale=8,
            scales_per_octave=1,
            center_offset=0.0,
            strides=[8, 16, 32, 64, 128],
        ),
        use_atss=True,
        use_vfl=True,
        loss_cls=dict(
            type="VarifocalLoss", use_sigmoid=True, alpha=0.75, gamma=2.0, iou_weighted=True, loss_weight=1.0
        ),
        loss_bbox=dict(type="GIoULoss", loss_weight=1.5),
        loss_bbox_refine=dict(type="GIoULoss", loss_weight=2.0),
    ),
    train_cfg=dict(assigner=dict(type="ATSSAssigner", topk=9), allowed_border=-1, pos_weight=-1, debug=False),
)
