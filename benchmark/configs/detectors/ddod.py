"""DDOD (Chen et al., 2021) as in PGD's experiments, with assigners by cost over all levels where mmdet has ATSS's."""

_base_ = "dense.py"

model = dict(
    type="DDOD",
    bbox_head=dict(
        type="DDODHead",
        norm_cfg=dict(type="GN", num_groups=32, requires_grad=True),
        anchor_generator=dict(
            type="AnchorGenerator",
            ratios=[1.0],
            octave_base_scale=8,
            scales_per_octave=1,
            strides=[8, 16, 32, 64, 128],
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
        loss_iou=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
    train_cfg=dict(
        # of the classification; mmdet's DDODHead wants it under this name
        assigner=dict(type="CostTopKAssigner", topk=9, xi=0.8),
        reg_assigner=dict(type="CostTopKAssigner", topk=9, xi=0.6),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
)
