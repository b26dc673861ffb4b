"""FCOS (Tian et al., 2019) as in PGD's experiments: with its later improvements, but -log IoU and NMS at 0.5."""

_base_ = "dense.py"

model = dict(
    type="FCOS",
    neck=dict(relu_before_extra_convs=True),
    bbox_head=dict(
        type="FCOSHead",
        norm_cfg=dict(type="GN", num_groups=32, requires_grad=True),
        strides=[8, 16, 32, 64, 128],
        regress_ranges=((-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8)),
        center_sampling=True,
        center_sample_radius=1.5,
        norm_on_bbox=True,
        centerness_on_reg=True,
        conv_bias=True,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="IoULoss", loss_weight=1.0),
        loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
    test_cfg=dict(nms=dict(iou_threshold=0.5)),
)
