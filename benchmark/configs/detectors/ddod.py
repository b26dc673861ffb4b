"""DDOD (Chen et al., 2021) as in PGD's experiments, with assigners by cost over all levels where mmdet has ATSS's."""

_base_ = "anchors.py"

model = dict(
    type="DDOD",
    bbox_head=dict(
        type="DDODHead",
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
        loss_iou=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
    train_cfg=dict(
        # ignore_iof_thr: ignore regions (crowds) are plain background, as released; 0.5 leaves them out.
        # This one is of the classification; mmdet's DDODHead wants it under this name
        assigner=dict(type="CostTopKAssigner", topk=9, xi=0.8, ignore_iof_thr=-1),
        reg_assigner=dict(type="CostTopKAssigner", topk=9, xi=0.6, ignore_iof_thr=-1),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
)
